"""Training, validation and test images in batches on one device, and class-balanced rows."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.config.schema import DataConfig
from mint.data.augmentation import AUGMENTATIONS, DRAWS, centre_crop
from mint.data.datasets import Source, stratified_rows
from mint.data.images import Images
from mint.data.preparation import Preparation
from mint.rng import stream

# Means and variances come from so many pixel values, but from no fewer images than these.
_SAMPLED_VALUES = 2**28
_SAMPLED_IMAGES = 10000
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Split:
    """One part of a data set, in batches on one device."""

    labels: Tensor  # (n,) int64 on the device
    images: Images
    rows: NDArray[np.int64]  # (n,) of the images
    moments: tuple[Tensor, Tensor]  # (C, 1, 1) mean and deviation of the pixels, on the device
    side: tuple[int, int]  # (h, w) of the inputs
    augmentation: str

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        rows: NDArray[np.int64] | None = None,
        augment: np.random.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (b, C, h, w) float32, normalised, and labels (b,) int64.

        Rows are those of this part, in the order to yield; by default all of them. Without a
        generator for the augmentation, inputs are cropped to the centre. An image that cannot be
        read raises InputError.
        """
        device = self.labels.device
        order = torch.from_numpy(np.arange(len(self)) if rows is None else rows)
        labels = self.labels[order.to(device)].split(batch_size)
        augmented = AUGMENTATIONS.get(self.augmentation)
        if augment is not None and augmented is not None:
            # Drawn for all batches at once: one copy for each batch would stall the device.
            drawn = augment.random((len(order), DRAWS), np.float32)
            draws = torch.from_numpy(drawn).to(device).split(batch_size)
        for index, pixels in enumerate(self._pixels(order, batch_size)):
            inputs = pixels.to(torch.float32).sub_(self.moments[0]).div_(self.moments[1])
            if augment is not None and augmented is not None:
                inputs = augmented(inputs, draws[index], self.side)
            else:
                inputs = centre_crop(inputs, self.side)
            yield inputs, labels[index]

    def _pixels(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Yield (b, C, H, W) uint8 on the device; a thread decodes the next batches meanwhile."""
        device = self.labels.device
        selected = torch.from_numpy(self.rows)[order]
        if isinstance(self.images, Tensor) and self.images.device == device:
            for batch in selected.to(device).split(batch_size):
                yield self.images.index_select(0, batch)
            return
        batches = iter(selected.split(batch_size))

        def take(rows: Tensor) -> Tensor:
            pixels = self.images[rows.numpy()]
            return pixels.pin_memory() if device.type == "cuda" else pixels

        with ThreadPoolExecutor(1) as pool:
            pending = deque(pool.submit(take, rows) for rows in islice(batches, _BATCHES_AHEAD))
            while pending:
                pending.extend(pool.submit(take, rows) for rows in islice(batches, 1))
                yield pending.popleft().result().to(device, non_blocking=True)


@dataclass(frozen=True)
class Dataset:
    """The parts of a data set; the test part is read once, for the result of a trial."""

    train: Split
    validation: Split  # held out of the training images; selects the model
    test: Split
    image_shape: tuple[int, int, int]  # (C, h, w) of the network's input
    preparation: Preparation  # of the images of all parts


def split_source(source: Source, data: DataConfig, *, seed: int, device: torch.device) -> Dataset:
    """Hold out a stratified validation set, and store on the device the images that fit.

    Pixels are scaled to zero mean and unit variance, each channel by the remaining training
    images, or by a sample of them if they are large.
    """
    _, channels, height, width = source.train.shape
    side = (data.crop, data.crop) if data.crop else (height, width)
    labels = source.train_labels
    train_rows, validation_rows = stratified_rows(
        labels, data.validation_size, stream(seed, "validation split")
    )
    mean, deviation = _pixel_moments(source.train, train_rows, stream(seed, "pixel moments"))
    moments = (mean.to(device), deviation.to(device))

    def split(images: Images, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Split:
        on_device = torch.from_numpy(labels[rows]).to(device)
        return Split(on_device, images, rows, moments, side, data.augmentation)

    train, test = _on_device(source.train, device), _on_device(source.test, device)
    return Dataset(
        train=split(train, source.train_labels, train_rows),
        validation=split(train, source.train_labels, validation_rows),
        test=split(test, source.test_labels, np.arange(len(source.test_labels))),
        image_shape=(channels, *side),
        preparation=Preparation(
            size=(height, width),
            resized=data.size is not None,
            crop=side,
            mean=tuple(mean.flatten().tolist()),
            deviation=tuple(deviation.flatten().tolist()),
            classes=source.class_names,
        ),
    )


def balanced_rows(labels: Tensor, *, samples_per_class: int, seed: int) -> NDArray[np.int64]:
    """Draw rows (classes * samples_per_class,), ascending; ValueError if a class has too few."""
    all_labels = labels.cpu().numpy()
    generator = stream(seed, "estimation rows")
    rows = [
        generator.choice(np.flatnonzero(all_labels == label), samples_per_class, replace=False)
        for label in range(all_labels.max() + 1)
    ]
    return np.sort(np.concatenate(rows))


def _on_device(images: Images, device: torch.device) -> Images:
    if isinstance(images, Tensor) and device.type == "cuda":
        fits = images.nbytes <= torch.cuda.mem_get_info(device)[0] // 4
        return images.to(device) if fits else images
    return images


def _pixel_moments(
    images: Images, rows: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return (C, 1, 1) float32 means and standard deviations of the pixels."""
    _, channels, height, width = images.shape
    sampled = max(_SAMPLED_IMAGES, _SAMPLED_VALUES // (channels * height * width))
    if sampled < len(rows):
        rows = generator.choice(rows, sampled, replace=False)
    # Sums over a histogram are exact, so they depend on neither order nor number of threads.
    counts = np.zeros((channels, 256), np.int64)
    for some in np.array_split(rows, 1 + len(rows) // 1000):
        pixels = images[some].numpy()
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
    values = np.arange(256)
    means = counts @ values / counts[0].sum()
    variances = [
        float(count @ (values - mean) ** 2 / count.sum())
        for count, mean in zip(counts, means, strict=True)
    ]
    deviations = [variance**0.5 or 1.0 for variance in variances]  # a constant channel becomes zero
    mean, deviation = torch.tensor(means).float(), torch.tensor(deviations).float()
    return mean[:, None, None], deviation[:, None, None]
