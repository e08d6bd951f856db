"""Crops and flips of batches of images.

Functions take images (b, C, H, W) float32, normalised, on any device, and return (b, C, h, w) for
side (h, w). The caller draws uniform random numbers in [0, 1), draws (b, DRAWS), so that results
are the same on every device.
"""

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 5  # uniform random numbers for each image


def centre_crop(images: Tensor, side: tuple[int, int]) -> Tensor:
    """Return the central (h, w) of every image."""
    top, left = (
        round((whole - part) / 2) for whole, part in zip(images.shape[2:], side, strict=True)
    )
    return images[:, :, top : top + side[0], left : left + side[1]]


def crop_flip(images: Tensor, draws: Tensor, side: tuple[int, int]) -> Tensor:
    """Crop (h, w) of every image at a random place and flip it with probability 1/2.

    Images are padded by an eighth of their sides with zeros, the mean of normalised pixels.
    """
    height, width = images.shape[2:]
    padding = (width // 8, width // 8, height // 8, height // 8)
    windows = functional.pad(images, padding).unfold(2, side[0], 1).unfold(3, side[1], 1)
    top, left = (
        # Rounding may turn the product with a draw just below 1 into the number of places.
        (draw * places).long().clamp(max=places - 1)
        for draw, places in zip(draws.T, windows.shape[2:4], strict=False)
    )
    crops = windows[torch.arange(len(images), device=images.device), :, top, left]
    return torch.where(draws[:, 2, None, None, None] < 0.5, crops.flip(3), crops)


def resized_crop_flip(images: Tensor, draws: Tensor, side: tuple[int, int]) -> Tensor:
    """Resize a random crop of every image to (h, w), bilinearly, and flip it with probability 1/2.

    The crop covers 8 to 100% of the area, uniformly, with an aspect ratio of 3/4 to 4/3,
    log-uniformly among the ratios that fit. If no ratio fits, the crop ends at the border.
    """
    shape = images.shape[2] / images.shape[3]
    area = 0.08 + 0.92 * draws[:, 0]
    widest = (1 / (area * shape)).clamp(max=4 / 3).log()
    narrowest = (area / shape).clamp(min=3 / 4).log().minimum(widest)
    aspect = (narrowest + (widest - narrowest) * draws[:, 1]).exp()
    # Relative to the image's width and height.
    width = (area * aspect * shape).sqrt().clamp(max=1)
    height = (area / aspect / shape).sqrt().clamp(max=1)
    x = (1 - width) * (2 * draws[:, 2] - 1)
    y = (1 - height) * (2 * draws[:, 3] - 1)
    flipped = torch.where(draws[:, 4] < 0.5, -width, width)
    zero = torch.zeros_like(width)
    maps = torch.stack([flipped, zero, x, zero, height, y], 1).view(-1, 2, 3)
    grid = functional.affine_grid(maps, [*images.shape[:2], *side], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS = {"crop_flip": crop_flip, "resized_crop_flip": resized_crop_flip}
