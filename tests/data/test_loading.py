"""Splits are stratified, seeded and disjoint; stored and decoded images give equal batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint.config.schema import DataConfig
from mint.data.datasets import Source, load_source
from mint.data.loading import Dataset, balanced_rows, split_source

CPU = torch.device("cpu")
DIGITS = DataConfig(name="digits", validation_size=280)


def _inputs(dataset: Dataset, part: str) -> torch.Tensor:
    return torch.cat([inputs for inputs, _ in getattr(dataset, part).batches(100)])


def test_split_keeps_every_image_once_and_classes_in_proportion(
    digits: Source, digits_dataset: Dataset
) -> None:
    assert len(digits_dataset.train) + len(digits_dataset.validation) == 1437
    assert len(digits_dataset.validation) == 280
    share = np.bincount(digits.train_labels) * 280 / 1437
    assert np.abs(np.bincount(digits_dataset.validation.labels.numpy()) - share).max() < 1
    pixels = torch.cat([_inputs(digits_dataset, part) for part in ("train", "validation")])
    raw = digits.train[np.arange(1437)].double().sum((1, 2, 3)).numpy()
    ours = pixels.double().sum((1, 2, 3)).numpy()
    # One affine map takes the raw sums to the normalised ones, in any order.
    assert np.corrcoef(np.sort(raw), np.sort(ours))[0, 1] > 0.999999


def test_pixels_have_zero_mean_and_unit_variance(digits_dataset: Dataset) -> None:
    pixels = _inputs(digits_dataset, "train").double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std(unbiased=False)) == pytest.approx(1, abs=1e-5)


def test_channels_are_normalised_separately() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers([[[0]], [[100]], [[7]]], [[[50]], [[256]], [[8]]], (90, 3, 5, 4))
    images = torch.from_numpy(pixels.astype(np.uint8))
    labels = np.arange(90) % 3
    source = Source(images, labels, images, labels, "", ("a", "b", "c"))
    data = DataConfig(name="parquet:none", validation_size=9)
    inputs = _inputs(split_source(source, data, seed=0, device=CPU), "train").double()
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5)
    deviation = inputs.std((0, 2, 3), unbiased=False)
    # A constant channel stays finite.
    assert torch.allclose(deviation, torch.tensor([1.0, 1, 0]).double(), atol=1e-5)


def test_split_depends_on_the_seed_alone(digits: Source) -> None:
    splits = [split_source(digits, DIGITS, seed=seed, device=CPU) for seed in (0, 0, 1)]
    same, again, other = (_inputs(split, "validation") for split in splits)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert torch.equal(splits[0].test.labels, splits[2].test.labels)


def test_batches_follow_the_rows(digits_dataset: Dataset) -> None:
    train = digits_dataset.train
    whole = _inputs(digits_dataset, "train")
    rows = np.random.default_rng(0).permutation(len(train))[:250]
    batches = list(train.batches(100, rows))
    assert [len(labels) for _, labels in batches] == [100, 100, 50]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), whole[rows])
    assert torch.equal(torch.cat([labels for _, labels in batches]), train.labels[rows])


def test_augmentation_is_optional_and_seeded(digits: Source) -> None:
    data = DIGITS.model_copy(update={"augmentation": "crop_flip", "crop": 6})
    dataset = split_source(digits, data, seed=0, device=CPU)
    assert dataset.image_shape == (1, 6, 6)

    def batch(generator: np.random.Generator | None) -> torch.Tensor:
        inputs, _ = next(dataset.train.batches(50, augment=generator))
        return inputs

    plain = split_source(digits, DIGITS, seed=0, device=CPU)
    assert torch.equal(batch(None), _inputs(plain, "train")[:50, :, 1:7, 1:7])
    first, again, other = (batch(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, batch(None))


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "resized_crop_flip"])
@pytest.mark.parametrize("size", [None, 20])
def test_stored_and_decoded_images_give_equal_batches(
    cifar_dir: Path, small_cifar: Path, augmentation: Any, size: int | None
) -> None:
    data = DataConfig(
        name=f"parquet:{small_cifar}",
        validation_size=100,
        size=size,
        crop=16,
        augmentation=augmentation,
    )
    sources = [load_source(data, cifar_dir, memory_limit=limit) for limit in (None, 0)]
    assert [isinstance(source.train, torch.Tensor) for source in sources] == [True, False]
    assert sources[0].digest == sources[1].digest
    stored, decoded = (split_source(source, data, seed=0, device=CPU) for source in sources)
    rows = np.random.default_rng(1).permutation(len(stored.train))
    for part, order, seed in (("train", rows, 5), ("validation", None, None), ("test", None, None)):
        batches = [
            list(
                getattr(dataset, part).batches(
                    64, order, None if seed is None else np.random.default_rng(seed)
                )
            )
            for dataset in (stored, decoded)
        ]
        for ours, theirs in zip(*batches, strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])


def test_iteration_may_end_early(cifar_dir: Path, small_cifar: Path) -> None:
    data = DataConfig(name=f"parquet:{small_cifar}", validation_size=100)
    dataset = split_source(load_source(data, cifar_dir, memory_limit=0), data, seed=0, device=CPU)
    for inputs, _ in dataset.train.batches(10):
        assert inputs.shape == (10, 3, 32, 32)
        break


def test_balanced_rows(digits_dataset: Dataset) -> None:
    labels = digits_dataset.train.labels
    rows = balanced_rows(labels, samples_per_class=50, seed=3)
    assert len(set(rows.tolist())) == 500
    assert np.bincount(labels.numpy()[rows]).tolist() == [50] * 10
    assert np.array_equal(rows, balanced_rows(labels, samples_per_class=50, seed=3))
    assert not np.array_equal(rows, balanced_rows(labels, samples_per_class=50, seed=4))


def test_smallest_class_limits_the_samples(digits: Source, digits_dataset: Dataset) -> None:
    most = digits.facts.smallest_class(280)
    balanced_rows(digits_dataset.train.labels, samples_per_class=most, seed=0)
    with pytest.raises(ValueError, match="larger sample"):
        balanced_rows(digits_dataset.train.labels, samples_per_class=most + 1, seed=0)
