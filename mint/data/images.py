"""Images of one size, (n, C, H, W) uint8: in memory, or decoded whenever rows are read."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mint.data.preparation import to_pixels
from mint.errors import InputError, first_line
from mint.machine import threads

# Formats that Pillow decodes without another program, and modes that it converts as they are meant.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_BITS = 258  # the tag of a TIFF that holds the bits a pixel
_GREY_16 = ("I;16", "I;16L", "I;16B")
MODES = (*_GREY_16, "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")


class EncodedImages(NamedTuple):
    """Labelled images as published, of any size and mode."""

    labels: NDArray[np.int64]  # (n,) from 0
    open: Callable[[int], Image.Image]  # the image of a row; called by several threads
    name: Callable[[int], str]  # of the image of a row, for error messages
    pixels: NDArray[np.uint8] | None = None  # (n, H, W) or (n, H, W, 3), if published decoded
    class_names: Sequence[str] = ()  # in the order of the labels; empty if not published


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

        def fill(place: int) -> None:
            pixels[place] = self._decode(int(rows[place]))

        # Each thread reads neighbouring rows of a file, wherever they stand in the batch.
        for_each(np.argsort(rows), fill)
        return torch.from_numpy(pixels)

    def _decode(self, row: int) -> NDArray[np.uint8]:
        with opened(self.encoded, row, None if self.resized else self.size) as image:
            return to_pixels(image, self.mode, self.size[0] if self.resized else None)


Images = Tensor | DecodedImages
"""Images of one size: a tensor on any device, or decoded when rows are read."""


def open_image(file: str | IO[bytes]) -> Image.Image:
    """Open an image file of a known format, which its content tells, not its name."""
    return Image.open(file, formats=_FORMATS)


@contextmanager
def opened(
    encoded: EncodedImages, row: int, size: tuple[int, int] | None = None
) -> Iterator[Image.Image]:
    """Open and decode an image of the given width and height; by default of any size.

    Raises:
        InputError: it names the image, which is damaged, of another size, has several frames, or
            has pixels that are neither 8 bits nor 16-bit grey.
    """
    name = encoded.name(row)
    try:
        with encoded.open(row) as image:
            if image.mode not in MODES:
                raise InputError(
                    f"{name}: has pixels of Pillow's mode {image.mode}; allowed are 8 bits a "
                    "channel, and 16-bit grey"
                )
            if 12 in getattr(image, "tag_v2", {}).get(_BITS, ()):  # its mode is that of 16 bits
                raise InputError(f"{name}: has pixels of 12 bits; allowed are 8 and 16 bits")
            # A JPEG of a camera may hold previews of the photo as more frames.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise InputError(f"{name}: holds several images; allowed is one in a file")
            if size not in (None, image.size):
                raise InputError(
                    f"{name}: has {image.width} x {image.height} pixels, others have {size[0]} x "
                    f"{size[1]}; set data.size to resize all images to one size"
                )
            image.load()
            yield image
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise InputError(f"{name}: cannot be decoded as an image ({first_line(error)})") from error


def all_grey(modes: Collection[str]) -> bool:
    """Return whether images of Pillow's modes are grey, of 8 or 16 bits."""
    return set(modes) <= {"L", *_GREY_16}


def any_16_bit(modes: Collection[str]) -> bool:
    """Return whether some images of Pillow's modes are grey of 16 bits."""
    return not set(modes).isdisjoint(_GREY_16)


def for_each(items: NDArray[np.int64], function: Callable[[int], None]) -> None:
    """Call a function with every item, in several threads; each takes neighbouring items."""
    workers = threads()

    def call(share: NDArray[np.int64]) -> None:
        for item in share:
            function(int(item))

    shares = np.array_split(items, min(4 * workers, max(1, len(items))))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, shares))
