"""What a network sees of a batch of images: its middle, or for training a random part of it.

All works on whole batches, (b, C, H, W) float32 normalised on any device. Random numbers come in
from outside, five uniform ones an image, so that every device sees the same parts.
"""

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 5  # uniform numbers an image


def centre(images: Tensor, side: tuple[int, int]) -> Tensor:
    """Return the middle (h, w) of every image."""
    top, left = (
        round((whole - part) / 2) for whole, part in zip(images.shape[2:], side, strict=True)
    )
    return images[:, :, top : top + side[0], left : left + side[1]]


def crop_flip(images: Tensor, draws: Tensor, side: tuple[int, int]) -> Tensor:
    """Cut an (h, w) part out of every image and mirror every other one.

    Images are padded by an eighth of their side with zeros, the mean of normalised pixels.

    Args:
        images: (b, C, H, W).
        draws: (b, DRAWS) uniform from 0 to 1.
        side: (h, w) of the parts.
    """
    height, width = images.shape[2:]
    padding = (width // 8, width // 8, height // 8, height // 8)
    windows = functional.pad(images, padding).unfold(2, side[0], 1).unfold(3, side[1], 1)
    top, left = (
        # The product with a draw just below 1 may be rounded up to the number of places.
        (draw * places).long().clamp(max=places - 1)
        for draw, places in zip(draws.T, windows.shape[2:4], strict=False)
    )
    parts = windows[torch.arange(len(images), device=images.device), :, top, left]
    return torch.where(draws[:, 2, None, None, None] < 0.5, parts.flip(3), parts)


def resized_crop_flip(images: Tensor, draws: Tensor, side: tuple[int, int]) -> Tensor:
    """Resize a random part of every image to (h, w), bilinearly, and mirror every other one.

    The part has 8 to 100% of the area, uniformly, and an aspect of 3/4 to 4/3, uniformly in its
    logarithm among those that fit; in an image where none does, the part ends at the border.

    Args:
        images: (b, C, H, W).
        draws: (b, DRAWS) uniform from 0 to 1.
        side: (h, w) that parts are resized to.
    """
    shape = images.shape[2] / images.shape[3]
    area = 0.08 + 0.92 * draws[:, 0]
    widest = (1 / (area * shape)).clamp(max=4 / 3).log()
    narrowest = (area / shape).clamp(min=3 / 4).log().minimum(widest)
    aspect = (narrowest + (widest - narrowest) * draws[:, 1]).exp()
    # As shares of the image's width and height.
    width = (area * aspect * shape).sqrt().clamp(max=1)
    height = (area / aspect / shape).sqrt().clamp(max=1)
    across = (1 - width) * (2 * draws[:, 2] - 1)
    down = (1 - height) * (2 * draws[:, 3] - 1)
    mirrored = torch.where(draws[:, 4] < 0.5, -width, width)
    none = torch.zeros_like(width)
    maps = torch.stack([mirrored, none, across, none, height, down], 1).view(-1, 2, 3)
    grid = functional.affine_grid(maps, [*images.shape[:2], *side], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
