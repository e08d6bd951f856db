"""Images of one size by their rows: kept in memory, or decoded whenever they are asked for."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mint.config.schema import DataConfig
from mint.errors import InputError, first_line


class Images(Protocol):
    """A part's images, all of one size."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height, width."""

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (len(rows), C, H, W) uint8."""


class Pictures(Protocol):
    """Images as they are stored, of any size and mode."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """Name one in an error message."""

    def open(self, row: int) -> Image.Image:
        """Open one; called from several threads."""


@dataclass(frozen=True)
class StoredImages:
    """Images in memory: pixels (n, C, H, W) uint8 on any device."""

    pixels: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = self.pixels.shape
        return count, channels, height, width

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        return self.pixels[torch.from_numpy(rows).to(self.pixels.device)]


@dataclass(frozen=True)
class Form:
    """What pictures are made into.

    Attributes:
        mode: Pillow's, L for grey or RGB; pictures of other modes are converted.
        height: of the images (pixels).
        width: likewise.
        resized: whether pictures are resized to cover the images and their middle is cut out;
            otherwise they have to be of this size.
    """

    mode: str
    height: int
    width: int
    resized: bool

    @classmethod
    def of(cls, pictures: Pictures, data: DataConfig) -> "Form":
        """Return the form of pictures: of the size and channels asked for, or their own.

        They are grey if all of a sample are.
        """
        sample = np.linspace(0, len(pictures) - 1, min(64, len(pictures))).astype(int)
        modes, sizes = set(), []
        for row in sample:
            with _opened(pictures, int(row)) as picture:
                modes.add(picture.mode)
                sizes.append(picture.size)
        width, height = (data.size, data.size) if data.size else sizes[0]
        grey = modes == {"L"} and data.channels is None
        return cls("L" if grey else "RGB", height, width, resized=data.size is not None)

    @property
    def bytes(self) -> int:
        """Of one image."""
        return len(self.mode) * self.height * self.width


class DecodedImages:
    """Images that are decoded by several threads whenever they are taken."""

    def __init__(self, pictures: Pictures, form: Form) -> None:
        self._pictures = pictures
        self._form = form

    @property
    def shape(self) -> tuple[int, int, int, int]:
        form = self._form
        return len(self._pictures), len(form.mode), form.height, form.width

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (len(rows), C, H, W) uint8.

        Raises:
            InputError: an image cannot be decoded, or is of another size.
        """
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(places: NDArray[np.int64]) -> None:
            for place in places:
                pixels[place] = self._decoded(int(rows[place]))

        threads = os.cpu_count() or 1
        # Neighbours in a file one after another, whatever their places in the batch.
        shares = np.array_split(np.argsort(rows), min(4 * threads, max(1, len(rows))))
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, shares):
                pass
        return torch.from_numpy(pixels)

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        form = self._form
        with _opened(self._pictures, row) as picture:
            try:
                image = picture.convert(form.mode)
            except Exception as error:
                raise _undecodable(self._pictures, row, error) from error
        if form.resized:
            image = _middle_square(image, form.width)
        elif image.size != (form.width, form.height):
            raise InputError(
                f"{self._pictures.name(row)}: is of {image.width} x {image.height} pixels and "
                f"others of {form.width} x {form.height}; give data.size to bring all to one size"
            )
        pixels = np.asarray(image).reshape(form.height, form.width, len(form.mode))
        return pixels.transpose(2, 0, 1)


def _opened(pictures: Pictures, row: int) -> Image.Image:
    try:
        return pictures.open(row)
    except InputError:
        raise
    except Exception as error:  # Pillow lets errors of every format through
        raise _undecodable(pictures, row, error) from error


def _undecodable(pictures: Pictures, row: int, error: Exception) -> InputError:
    detail = first_line(error)
    return InputError(f"{pictures.name(row)}: cannot be decoded as an image ({detail})")


def _middle_square(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    width, height = (side * length // shorter for length in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
