"""The Python source of a function that turns images into inputs of an exported network."""

import inspect
from pprint import pformat

from mint.data.augmentation import centre_crop
from mint.data.images import MODES
from mint.data.preparation import Preparation, to_pixels

PREPARE_IMPORTS = {
    "import numpy as np",
    "import torch",
    "from numpy.typing import NDArray",
    "from PIL import Image",
    "from torch import Tensor",
}

_TEMPLATE = '''

CLASSES = {classes}
MEAN, DEVIATION = {mean}, {deviation}  # of pixels from 0 to 255


def prepare(image: Image.Image | Tensor) -> Tensor:
    """Return inputs (n, {channels}, {height}, {width}) of the network from an image.

    Args:
        image: of Pillow, or uint8 (channels, H, W) or (n, channels, H, W), grey or RGB.
    """
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            raise TypeError(f"pixels must be uint8, from 0 to 255, not {{image.dtype}}")
        stack = (image if image.dim() == 4 else image[None]).movedim(1, -1).cpu()
        return torch.cat([prepare(Image.fromarray(one.squeeze(-1).numpy())) for one in stack])
    if image.mode not in {modes}:
        raise ValueError(f"image must have 8 bits a channel, or 16-bit grey, not {{image.mode}}")
{check}    pixels = torch.from_numpy(to_pixels(image, {mode!r}, {side}))
    mean, deviation = torch.tensor([MEAN, DEVIATION]).view(2, -1, 1, 1)
    return centre_crop(((pixels - mean) / deviation)[None], {crop})


'''
_CHECK = """\
    if image.size != {size}:
        raise ValueError(f"image must have {width} x {height} pixels, not {{image.size}}")
"""


def prepare_code(preparation: Preparation) -> str:
    """Return prepare(), which takes the same steps as mint, and the names of the classes."""
    height, width = preparation.size
    resized = preparation.resized
    return _TEMPLATE.format(
        classes=pformat(preparation.classes, width=100, compact=True),
        mean=preparation.mean,
        deviation=preparation.deviation,
        channels=len(preparation.mean),
        height=preparation.crop[0],
        width=preparation.crop[1],
        modes=MODES,
        check="" if resized else _CHECK.format(size=(width, height), width=width, height=height),
        mode="L" if len(preparation.mean) == 1 else "RGB",
        side=height if resized else None,
        crop=preparation.crop,
    ) + "\n\n".join(inspect.getsource(step) for step in (to_pixels, centre_crop))
