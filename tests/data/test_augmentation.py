"""Training crops are drawn uniformly from the image; evaluation crops the centre."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mint.data.augmentation import DRAWS, centre_crop, crop_flip, resized_crop_flip


def _draws(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, DRAWS), np.float32))


def test_centre() -> None:
    images = torch.arange(7 * 6.0).reshape(1, 1, 7, 6)
    assert torch.equal(centre_crop(images, (3, 2)), images[:, :, 2:5, 2:4])
    assert torch.equal(centre_crop(images, (7, 6)), images)


@pytest.mark.parametrize("side", [(16, 24), (12, 12)])
def test_crop_flip_draws_every_crop_equally_often(side: tuple[int, int]) -> None:
    image = torch.arange(1, 2 * 16 * 24 + 1.0).reshape(1, 2, 16, 24)
    padded = functional.pad(image, (3, 3, 2, 2))[0]
    rows, columns = 20 - side[0] + 1, 30 - side[1] + 1
    expected = [
        part
        for top in range(rows)
        for left in range(columns)
        for whole in [padded[:, top : top + side[0], left : left + side[1]]]
        for part in (whole, whole.flip(2))
    ]
    count = 100 * len(expected)
    parts = crop_flip(image.expand(count, -1, -1, -1), _draws(count), side)
    places = {part.numpy().tobytes(): 0 for part in expected}
    for part in parts:
        places[part.numpy().tobytes()] += 1  # KeyError for a part that is not of the image
    # Poisson counts of mean 100: five standard deviations.
    assert min(places.values()) > 50
    assert max(places.values()) < 150


def test_crop_flip_at_the_last_draw() -> None:
    image = torch.arange(1024 * 1024.0).reshape(1, 1, 1024, 1024)
    last = torch.full((1, DRAWS), float(np.nextafter(np.float32(1), np.float32(0))))
    assert torch.equal(
        crop_flip(image, last, (1024, 1024)),
        functional.pad(image, (0, 128, 0, 128))[:, :, 128:, 128:],
    )


@pytest.mark.parametrize("shape", [(64, 64), (48, 64)])
def test_resized_crop_flip_draws_the_published_areas_and_aspects(shape: tuple[int, int]) -> None:
    height, width = shape
    down, across = torch.meshgrid(
        torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij"
    )
    images = torch.stack([down, across])[None].expand(4000, -1, -1, -1)
    parts = resized_crop_flip(images, _draws(4000), (9, 9))
    assert parts.shape == (4000, 2, 9, 9)
    # Both channels are linear in the position, so differences between pixels give the sides of
    # the crop; near the border, values are clamped to those of the outermost pixel.
    tall = 9 * (parts[:, 0, 5, 4] - parts[:, 0, 3, 4]) / 2
    wide = 9 * (parts[:, 1, 4, 5] - parts[:, 1, 4, 3]) / 2
    area = (tall * wide.abs() / (height * width)).numpy()
    aspect = (wide.abs() / tall).numpy()
    assert area.min() > 0.079
    assert area.max() < 1.001
    assert np.abs(np.quantile(area, [0.25, 0.5, 0.75]) - [0.31, 0.54, 0.77]).max() < 0.03
    assert aspect.min() > 0.7499
    assert aspect.max() < 1.3334
    # A wide image has room for more wide parts.
    assert (abs(np.median(np.log(aspect))) < 0.03) == (height == width)
    assert 0.46 < float((wide < 0).float().mean()) < 0.54
    middle = parts[:, :, 4, 4]
    assert bool(((middle[:, 0] - tall / 2) > -1e-3).all())
    assert bool(((middle[:, 0] + tall / 2) < height + 1e-3).all())
    assert bool(((middle[:, 1] - wide.abs() / 2) > -1e-3).all())
    assert bool(((middle[:, 1] + wide.abs() / 2) < width + 1e-3).all())
    assert 0.4 < float((middle[:, 0] < height / 2).float().mean()) < 0.6


def test_resized_crop_flip_of_an_elongated_image() -> None:
    images = torch.rand(500, 1, 10, 80)
    parts = resized_crop_flip(images, _draws(500), (8, 8))
    assert bool(torch.isfinite(parts).all())
    assert float(parts.min()) >= 0
    assert float(parts.max()) <= 1


def test_augmentation_of_an_image_does_not_depend_on_its_batch() -> None:
    images, draws = torch.rand(10, 3, 32, 32), _draws(10)
    for function in (crop_flip, resized_crop_flip):
        whole = function(images, draws, (24, 24))
        assert torch.equal(whole[4:7], function(images[4:7], draws[4:7], (24, 24)))
