"""Data sets as tensors on one device: train, validation and test, and class-balanced rows."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.errors import InputError
from mint.seeds import stream


@dataclass(frozen=True)
class Source:
    """A data set as it is published, before a validation set is held out.

    Attributes:
        train_images: (n, ...) uint8.
        train_labels: (n,) int64.
        test_images: (m, ...) uint8.
        test_labels: (m,) int64.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the content: two folders with different images differ in it."""
        content = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            content.update(str(part.shape).encode())
            content.update(np.ascontiguousarray(part).data)
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class Split:
    """Images and labels on one device: inputs (n, ...) float32, labels (n,) int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three parts of a data set; the test part is for the last figure of a trial only."""

    train: Split
    validation: Split
    test: Split


def is_absent(name: str, data_dir: Path) -> bool:
    """Tell whether reading a data set would have to download it first."""
    return name == "mnist" and not any(file.exists() for file in _mnist_files(data_dir))


def load_source(name: str, data_dir: Path) -> Source:
    """Read a data set, downloading it where it is absent and can be had.

    Raises:
        InputError: the data cannot be read or fetched.
    """
    return _SOURCES[name](data_dir)


def split_source(
    source: Source, *, validation_size: int, seed: int, device: torch.device
) -> Dataset:
    """Hold a stratified validation set out of the training images and put all on the device.

    Pixels are scaled to zero mean and unit variance over the remaining training images.
    """
    train_rows, validation_rows = _split_rows(
        source.train_labels, validation_size, stream(seed, "validation split")
    )
    mean, deviation = _pixel_moments(source.train_images[train_rows])

    def to_split(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
        inputs = (torch.from_numpy(images).to(device, torch.float32) - mean) / deviation
        return Split(inputs, torch.from_numpy(labels).to(device))

    return Dataset(
        train=to_split(source.train_images[train_rows], source.train_labels[train_rows]),
        validation=to_split(
            source.train_images[validation_rows], source.train_labels[validation_rows]
        ),
        test=to_split(source.test_images, source.test_labels),
    )


def smallest_class(source: Source, *, validation_size: int, seed: int) -> int:
    """Return how many training rows the rarest class has once validation is held out."""
    train_rows, _ = _split_rows(
        source.train_labels, validation_size, stream(seed, "validation split")
    )
    return int(np.bincount(source.train_labels[train_rows]).min())


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


def _split_rows(
    labels: NDArray[np.int64], held_out: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that stay and the rows held out, classes in proportion, both ascending."""
    share = np.bincount(labels) * (held_out / len(labels))
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: held_out - counts.sum()]] += 1
    out = np.zeros(len(labels), np.bool_)
    for label, count in enumerate(counts):
        out[generator.choice(np.flatnonzero(labels == label), count, replace=False)] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def _pixel_moments(images: NDArray[np.uint8]) -> tuple[float, float]:
    # From a histogram: exact, whatever the order or number of threads of the sum.
    counts = np.bincount(images.ravel(), minlength=256)
    values = np.arange(256)
    mean = float(counts @ values / counts.sum())
    variance = float(counts @ (values - mean) ** 2 / counts.sum())
    return mean, variance**0.5


def _digits(_: Path) -> Source:
    """The 1797 handwritten digits that scikit-learn carries; 360 of them are the test set."""
    from sklearn.datasets import load_digits  # takes seconds, and only this data set needs it

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    train, test = _split_rows(labels, 360, np.random.default_rng(0))
    return Source(images[train], labels[train], images[test], labels[test])


def _mnist(data_dir: Path) -> Source:
    from torchvision.datasets import MNIST  # takes seconds, and only this data set needs it

    files = _mnist_files(data_dir)
    if is_absent("mnist", data_dir):
        _download_mnist(data_dir)
    try:
        parts = [MNIST(str(data_dir), train=train) for train in (True, False)]
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        missing = ", ".join(file.name for file in files if not file.exists())
        detail = f"without {missing}" if missing else f"that cannot be read ({error})"
        raise InputError(
            f"data folder {data_dir}: holds an MNIST {detail}; remove {files[0].parent} "
            "to have it downloaded again"
        ) from error
    (train, test) = parts
    return Source(
        train.data.numpy(),
        train.targets.numpy().astype(np.int64),
        test.data.numpy(),
        test.targets.numpy().astype(np.int64),
    )


def _mnist_files(data_dir: Path) -> list[Path]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [data_dir / "MNIST" / "raw" / f"{name}-ubyte" for name in names]


def _download_mnist(data_dir: Path) -> None:
    from torchvision.datasets import MNIST

    # Into a folder of its own first: a broken download leaves the data folder as it was.
    anchor = data_dir
    while not anchor.exists():
        anchor = anchor.parent
    if not os.access(anchor, os.W_OK):
        raise InputError(_no_mnist(data_dir, f"{anchor} is not writable"))
    with tempfile.TemporaryDirectory(prefix=".mint-download-", dir=anchor) as partial:
        try:
            MNIST(partial, train=True, download=True)
        except Exception as error:  # torchvision lets errors of many libraries through here
            raise InputError(_no_mnist(data_dir, str(error).splitlines()[0])) from error
        data_dir.mkdir(parents=True, exist_ok=True)
        shutil.move(str(Path(partial) / "MNIST"), data_dir / "MNIST")


def _no_mnist(data_dir: Path, reason: str) -> str:
    return (
        f"MNIST is not in the data folder {data_dir} and could not be downloaded ({reason}). "
        "Three ways out: try again with a network; put the four files *-ubyte into MNIST/raw of a "
        "folder and name it with --data-dir or MINT_DATA_DIR; or run --experiment digits_mlp, "
        "whose data needs no download."
    )


_SOURCES: dict[str, Callable[[Path], Source]] = {"digits": _digits, "mnist": _mnist}
