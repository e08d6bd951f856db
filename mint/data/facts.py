"""What a plan needs to know of a data set, recalled while none of its files has changed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mint.config.schema import DataConfig
from mint.machine import memory_bytes
from mint.store.remembered import recall, remember

KNOWN_SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
"""(channels, height, width) of the data sets that mint knows before reading them."""

_MNIST_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
DOWNLOADED_FILES = {
    "mnist": [f"MNIST/raw/{name}-ubyte" for name in _MNIST_FILES],
    "cifar10": [f"cifar-10-batches-py/{name}" for name in _CIFAR10_FILES],
}
"""Files of the public data sets, below the data folder."""


@dataclass(frozen=True)
class DataFacts:
    """A data set without its images.

    Attributes:
        digest: of the content, as in Source.
        image_shape: (channels, height, width) of the images as stored.
        class_counts: number of training images of every class, before a validation set is held out.
        stored_bytes: of the images in memory; 0 if they are decoded on every access.
    """

    digest: str
    image_shape: tuple[int, int, int]
    class_counts: tuple[int, ...]
    stored_bytes: int

    @property
    def images(self) -> int:
        """Number of training images, before a validation set is held out."""
        return sum(self.class_counts)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_counts)

    def smallest_class(self, validation_size: int) -> int:
        """Return the number of training images of the rarest class, without the validation set."""
        counts = np.array(self.class_counts)
        return int((counts - held_out_counts(counts, validation_size)).min())


def held_out_counts(counts: NDArray[np.int64], held_out: int) -> NDArray[np.int64]:
    """Return how many of each class are held out, in proportion, when so many are in all."""
    share = counts * (held_out / counts.sum())
    out: NDArray[np.int64] = np.floor(share).astype(int)
    out[np.argsort(out - share, kind="stable")[: held_out - out.sum()]] += 1
    return out


def needs_download(data: DataConfig, data_dir: Path) -> bool:
    """Return whether reading the data set would download it first."""
    files = DOWNLOADED_FILES.get(data.name, [])
    return bool(files) and not any((data_dir / file).exists() for file in files)


def digits_file() -> Path:
    """Return scikit-learn's file of digits; importing it would take seconds in every process."""
    return Path(
        str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz"))
    )


def recall_facts(data: DataConfig, data_dir: Path) -> DataFacts | None:
    """Return the facts of a data set none of whose files has changed since they were remembered."""
    known = recall(*_identity(data, data_dir))
    return _FACTS.validate_json(known) if known else None


def remember_facts(facts: DataFacts, data: DataConfig, data_dir: Path) -> None:
    """Remember the facts of a data set that was read and checked."""
    remember(_FACTS.dump_json(facts), *_identity(data, data_dir))


_FACTS = TypeAdapter(DataFacts)


def _identity(data: DataConfig, data_dir: Path) -> tuple[object, ...]:
    """Return what changes whenever the data set is prepared in another way, or a file is written.

    The memory of the machine decides which images are stored.
    """
    state = hashlib.sha256()
    for folder, file in _files(data, data_dir):
        if file.is_file():
            fact, name = file.stat(), file.relative_to(folder)
            place = f"{fact.st_dev} {fact.st_ino}"
            state.update(f"{name} {place} {fact.st_size} {fact.st_mtime_ns}\n".encode())
    return "data", data.content(), memory_bytes(), state.hexdigest()


def _files(data: DataConfig, data_dir: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a data set, each after the folder that its name is relative to."""
    kind, _, below = data.name.partition(":")
    if kind == "digits":
        yield digits_file().parent, digits_file()
    elif kind in DOWNLOADED_FILES:
        yield from ((data_dir, data_dir / file) for file in DOWNLOADED_FILES[kind])
    else:
        folder = data_dir / below
        yield from ((folder, file) for file in sorted(folder.rglob("*")))
