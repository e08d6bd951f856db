"""Images of one size, (n, C, H, W) uint8: in memory, or decoded whenever rows are read."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mint.config.schema import DataConfig
from mint.errors import InputError, first_line


class EncodedImages(NamedTuple):
    """Labelled images as published, of any size and mode."""

    labels: NDArray[np.int64]  # (n,) from 0
    open: Callable[[int], Image.Image]  # the image of a row; called by several threads
    name: Callable[[int], str]  # of the image of a row, for error messages
    pixels: NDArray[np.uint8] | None = None  # (n, H, W) or (n, H, W, 3), if published decoded


@dataclass(frozen=True)
class DecodedImages:
    """Images that several threads decode on every access; indexed by rows, as a tensor is."""

    encoded: EncodedImages
    mode: str  # Pillow's L or RGB
    size: tuple[int, int]  # width and height
    resized: bool  # resized to cover the size and cropped to the centre; else they have the size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, C, H, W)."""
        return len(self.encoded.labels), len(self.mode), self.size[1], self.size[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (len(rows), C, H, W) uint8; InputError if one is damaged or of another size."""
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(places: NDArray[np.int64]) -> None:
            for place in places:
                pixels[place] = self._decode(int(rows[place]))

        threads = os.cpu_count() or 1
        # Each thread reads neighbouring rows of a file, wherever they stand in the batch.
        shares = np.array_split(np.argsort(rows), min(4 * threads, max(1, len(rows))))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, shares))
        return torch.from_numpy(pixels)

    def _decode(self, row: int) -> NDArray[np.uint8]:
        _, channels, height, width = self.shape
        with _opened(self.encoded, row) as opened:
            image = opened.convert(self.mode)
            if self.resized:
                image = _centre_square(image, width)
            elif image.size != self.size:
                raise InputError(
                    f"{self.encoded.name(row)}: has {image.width} x {image.height} pixels, others "
                    f"have {width} x {height}; set data.size to resize all images to one size"
                )
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


Images = Tensor | DecodedImages
"""Images of one size: a tensor on any device, or decoded when rows are read."""


def decoded_images(encoded: EncodedImages, data: DataConfig) -> DecodedImages:
    """Return images of the configured size and channels, or of their own: grey if a sample is."""
    count = len(encoded.labels)
    modes, sizes = set(), []
    for row in np.linspace(0, count - 1, min(64, count)).astype(int):
        with _opened(encoded, int(row)) as image:
            modes.add(image.mode)
            sizes.append(image.size)
    mode = "L" if modes == {"L"} and data.channels is None else "RGB"
    if data.size is None:
        return DecodedImages(encoded, mode, sizes[0], resized=False)
    return DecodedImages(encoded, mode, (data.size, data.size), resized=True)


@contextmanager
def _opened(encoded: EncodedImages, row: int) -> Iterator[Image.Image]:
    """Open an image, and raise InputError if it cannot be decoded inside the block."""
    try:
        with encoded.open(row) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        problem = f"cannot be decoded as an image ({first_line(error)})"
        raise InputError(f"{encoded.name(row)}: {problem}") from error


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    width, height = (side * length // shorter for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
