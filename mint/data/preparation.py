"""How an image becomes an input of the network. An export contains the functions' source."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Preparation:
    """How images become inputs of the network, and what its outputs mean.

    Attributes:
        size: (height, width) before the crop (pixels).
        resized: whether images are resized to cover the size and cropped to its central square;
            otherwise they have the size.
        crop: (height, width) of the input, cropped from the centre.
        mean: of the pixels from 0 to 255; one number if images are turned grey, three for RGB.
        deviation: standard deviation of the same pixels, by which inputs are divided.
        classes: their names, in the order of the network's outputs.
    """

    size: tuple[int, int]
    resized: bool
    crop: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: tuple[str, ...]


def to_pixels(image: Image.Image, mode: str, side: int | None) -> NDArray[np.uint8]:
    """Return the pixels (C, H, W) of an image in Pillow's mode L or RGB.

    With a side, the shorter side is resized to it, and the central square remains.
    """
    if image.mode.startswith("I;16"):  # Pillow would turn all above 255 into 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert(mode)
    if side:
        shorter = min(image.size)
        width, height = (side * length // shorter for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - side) / 2), round((height - side) / 2)
        image = image.crop((left, top, left + side, top + side))
    return np.array(image).reshape(image.height, image.width, len(mode)).transpose(2, 0, 1)
