"""A data set on one device: train, validation and test in batches, and class-balanced rows."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.config.schema import DataConfig
from mint.data.augmentation import DRAWS, centre, crop_flip, resized_crop_flip
from mint.data.datasets import Source, stratified_rows
from mint.data.images import Images, StoredImages
from mint.errors import InputError
from mint.rng import stream

# Means and variances of larger images are those of a sample, but for no fewer images than these.
_MEASURED_VALUES = 2**28
_MEASURED_IMAGES = 10000

_AUGMENTATIONS = {"crop_flip": crop_flip, "resized_crop_flip": resized_crop_flip}
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Split:
    """One part of a data set, in batches on one device.

    Attributes:
        labels: (n,) int64 on the device.
        images: that the part's are among, stored on the device or taken from where they are.
        rows: (n,) of the part's images.
        mean: (C, 1, 1) of pixels, on the device.
        deviation: (C, 1, 1), likewise.
        side: (h, w) of inputs.
        augmentation: of inputs that are to be augmented.
    """

    labels: Tensor
    images: Images
    rows: NDArray[np.int64]
    mean: Tensor
    deviation: Tensor
    side: tuple[int, int]
    augmentation: str

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        rows: Tensor | NDArray[np.int64] | None = None,
        augment: np.random.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (b, C, h, w) float32, normalised, and labels (b,) int64.

        Args:
            batch_size: largest b.
            rows: what to yield, in this order; None for all, as they come.
            augment: draws what is done to every image; None for their middle as it is.

        Raises:
            InputError: an image cannot be read.
        """
        device = self.labels.device
        order = torch.arange(len(self)) if rows is None else torch.as_tensor(rows).cpu()
        labels = self.labels[order.to(device)].split(batch_size)
        function = _AUGMENTATIONS.get(self.augmentation)
        draws = None
        if augment is not None and function is not None:
            # All at once: a copy to the device for every batch would make it wait.
            drawn = augment.random((len(order), DRAWS), np.float32)
            draws = torch.from_numpy(drawn).to(device).split(batch_size)
        for index, pixels in enumerate(self._pixels(order, batch_size)):
            inputs = pixels.to(torch.float32).sub_(self.mean).div_(self.deviation)
            if draws is None or function is None:
                inputs = centre(inputs, self.side)
            else:
                inputs = function(inputs, draws[index], self.side)
            yield inputs, labels[index]

    def _pixels(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Yield (b, C, H, W) uint8 on the device."""
        rows = torch.from_numpy(self.rows)[order]
        if isinstance(self.images, StoredImages) and self.images.pixels.device == self.mean.device:
            for some in rows.to(self.mean.device).split(batch_size):
                yield self.images.pixels.index_select(0, some)
        else:
            yield from _ahead(
                self.images, (some.numpy() for some in rows.split(batch_size)), self.mean.device
            )


@dataclass(frozen=True)
class Dataset:
    """The three parts of a data set; the test part is for the last figure of a trial only.

    Attributes:
        train: what is learnt.
        validation: held out of the training images.
        test: as published.
        image_shape: (C, h, w) as the network sees them.
    """

    train: Split
    validation: Split
    test: Split
    image_shape: tuple[int, int, int]


def split_source(source: Source, data: DataConfig, *, seed: int, device: torch.device) -> Dataset:
    """Hold a stratified validation set out of the training images, and put on the device what fits.

    Pixels are scaled to zero mean and unit variance, channel by channel, over the remaining
    training images; of large images over a sample of 10000.
    """
    _, channels, height, width = source.train.shape
    side = (data.crop, data.crop) if data.crop else (height, width)
    train_rows, validation_rows = _split_rows(source, data.validation_size, seed)
    moments = _pixel_moments(source.train, train_rows, stream(seed, "pixel moments"))
    mean, deviation = (torch.from_numpy(moment).to(device)[:, None, None] for moment in moments)

    def split(images: Images, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Split:
        on_device = torch.from_numpy(labels[rows]).to(device)
        return Split(on_device, images, rows, mean, deviation, side, data.augmentation)

    train, test = _on_device(source.train, device), _on_device(source.test, device)
    return Dataset(
        train=split(train, source.train_labels, train_rows),
        validation=split(train, source.train_labels, validation_rows),
        test=split(test, source.test_labels, np.arange(len(source.test_labels))),
        image_shape=(channels, *side),
    )


def smallest_class(source: Source, *, validation_size: int, seed: int) -> int:
    """Return how many training rows the rarest class has once validation is held out."""
    train_rows, _ = _split_rows(source, validation_size, seed)
    return int(np.bincount(source.train_labels[train_rows], minlength=source.classes).min())


def _split_rows(
    source: Source, validation_size: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training images that are learnt from, and those that are held out."""
    return stratified_rows(source.train_labels, validation_size, stream(seed, "validation split"))


def balanced_rows(labels: Tensor, *, samples_per_class: int, seed: int) -> NDArray[np.int64]:
    """Draw the same number of rows from every class, without replacement.

    Returns:
        (classes * samples_per_class,) row indices, ascending.

    Raises:
        InputError: a class has fewer rows than asked for.
    """
    all_labels = labels.cpu().numpy()
    generator = stream(seed, "estimation rows")
    rows = []
    for label, available in enumerate(np.bincount(all_labels)):
        if available < samples_per_class:
            raise InputError(
                f"samples per class {samples_per_class}: class {label} has only {available} "
                "training images"
            )
        of_class = np.flatnonzero(all_labels == label)
        rows.append(generator.choice(of_class, samples_per_class, replace=False))
    return np.sort(np.concatenate(rows))


def _on_device(images: Images, device: torch.device) -> Images:
    if not isinstance(images, StoredImages):
        return images
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.pixels.nbytes > free // 4:
            return images
    return StoredImages(images.pixels.to(device))


def _ahead(
    images: Images, batches: Iterable[NDArray[np.int64]], device: torch.device
) -> Iterator[Tensor]:
    """Yield the images of batches on the device; the next ones are taken in the meantime."""

    def take(rows: NDArray[np.int64]) -> Tensor:
        pixels = images.take(rows)
        return pixels.pin_memory() if device.type == "cuda" else pixels

    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for rows in batches:
                waiting.append(pool.submit(take, rows))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result().to(device, non_blocking=True)
            while waiting:
                yield waiting.popleft().result().to(device, non_blocking=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _pixel_moments(
    images: Images, rows: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (C,) means and standard deviations of pixels."""
    _, channels, height, width = images.shape
    measured = max(_MEASURED_IMAGES, _MEASURED_VALUES // (channels * height * width))
    if measured < len(rows):
        rows = generator.choice(rows, measured, replace=False)
    # From a histogram: exact, whatever the order or number of threads of the sum.
    counts = np.zeros((channels, 256), np.int64)
    for some in np.array_split(rows, 1 + len(rows) // 1000):
        pixels = images.take(some).numpy()
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
    moments = np.array([_moments(of_channel) for of_channel in counts], np.float32)
    return moments[:, 0], moments[:, 1]


def _moments(counts: NDArray[np.int64]) -> tuple[float, float]:
    values = np.arange(256)
    mean = float(counts @ values / counts.sum())
    variance = float(counts @ (values - mean) ** 2 / counts.sum())
    return mean, variance**0.5 or 1.0  # a channel that is the same everywhere is zero
