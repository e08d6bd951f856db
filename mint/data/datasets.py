"""Data sets as they are published: digits, MNIST, CIFAR-10, Parquet files, folders of images."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mint.config.schema import DataConfig
from mint.data.images import DecodedImages, Form, Images, Pictures, StoredImages
from mint.data.parquet import ParquetPictures
from mint.errors import InputError, first_line

# Files that are larger together are told apart by their names and sizes.
_HASHED_BYTES = 2 * 2**30
KNOWN_SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
"""(channels, height, width) of data sets that are the same everywhere."""

_CIFAR10_FOLDER = "cifar-10-batches-py"


@dataclass(frozen=True)
class Source:
    """A data set as it is published, before a validation set is held out.

    Attributes:
        train: n images.
        train_labels: (n,) int64, from 0.
        test: m images.
        test_labels: (m,) int64.
        digest: sixteen hex digits of the content; of more than 2 GiB, of names and sizes of files.
        classes: number of them.
    """

    train: Images
    train_labels: NDArray[np.int64]
    test: Images
    test_labels: NDArray[np.int64]
    digest: str
    classes: int


def is_absent(data: DataConfig, data_dir: Path) -> bool:
    """Tell whether reading a data set would have to download it first."""
    if data.name == "mnist":
        return not any(file.exists() for file in _mnist_files(data_dir))
    return data.name == "cifar10" and not (data_dir / _CIFAR10_FOLDER).exists()


def load_source(data: DataConfig, data_dir: Path, *, memory_limit: int | None = None) -> Source:
    """Read a data set, downloading it where it is absent and can be had.

    Images that take more memory than the limit are decoded whenever they are asked for; the
    batches are the same.

    Args:
        data: its name, and the size that images are brought to.
        data_dir: where it is, or is downloaded to.
        memory_limit: bytes of decoded images; None for a quarter of the machine's memory.

    Raises:
        InputError: the data cannot be read or fetched.
    """
    kind, _, folder = data.name.partition(":")
    limit = memory_limit if memory_limit is not None else machine_memory() // 4
    if kind == "parquet":
        published = _parquet(data_dir / folder, limit)
    elif kind == "imagefolder":
        published = _imagefolder(data_dir / folder)
    else:
        published = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}[kind](data_dir)
    form = Form.of(published.train, data)
    bytes_decoded = form.bytes * (len(published.train) + len(published.test))

    def images(pictures: Pictures) -> Images:
        if isinstance(pictures, _Arrays) and not form.resized and data.channels is None:
            return pictures.as_images()
        decoded = DecodedImages(pictures, form)
        if bytes_decoded > limit:
            return decoded
        return StoredImages(decoded.take(np.arange(len(pictures))))

    return Source(
        images(published.train),
        published.train_labels,
        images(published.test),
        published.test_labels,
        published.digest,
        published.classes,
    )


def stratified_rows(
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


@dataclass(frozen=True)
class _Published:
    """A data set whose images are still as they are stored."""

    train: Pictures
    train_labels: NDArray[np.int64]
    test: Pictures
    test_labels: NDArray[np.int64]
    digest: str
    classes: int


def machine_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# Arrays


@dataclass(frozen=True)
class _Arrays:
    """Pictures (n, H, W) or (n, H, W, 3) uint8."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, row: int) -> str:
        return f"image {row}"

    def open(self, row: int) -> Image.Image:
        return Image.fromarray(self.pixels[row])

    def as_images(self) -> StoredImages:
        count, height, width = self.pixels.shape[:3]
        last = torch.from_numpy(self.pixels).view(count, height, width, -1)
        return StoredImages(last.permute(0, 3, 1, 2).contiguous())


def _of_arrays(
    train: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> _Published:
    content = hashlib.sha256()
    for part in (train, train_labels, test, test_labels):
        content.update(str(part.shape).encode())
        content.update(np.ascontiguousarray(part).data)
    digest = content.hexdigest()[:16]
    classes = int(train_labels.max()) + 1
    return _Published(_Arrays(train), train_labels, _Arrays(test), test_labels, digest, classes)


def _digits(_: Path) -> _Published:
    """The 1797 handwritten digits that scikit-learn carries; 360 of them are the test set."""
    # Its file alone: to import scikit-learn for it would take every process seconds.
    carrier = find_spec("sklearn")
    assert carrier is not None
    assert carrier.origin is not None
    table = np.loadtxt(
        Path(carrier.origin).parent / "datasets" / "data" / "digits.csv.gz", np.int64, delimiter=","
    )
    images, labels = table[:, :-1].reshape(-1, 8, 8).astype(np.uint8), table[:, -1]
    train, test = stratified_rows(labels, 360, np.random.default_rng(0))
    return _of_arrays(images[train], labels[train], images[test], labels[test])


def _mnist(data_dir: Path) -> _Published:
    from torchvision.datasets import MNIST  # takes seconds, and only this data set needs it

    files = _mnist_files(data_dir)
    if not any(file.exists() for file in files):
        _download(MNIST, "MNIST", "the four files *-ubyte into MNIST/raw of", data_dir)
    train, test = _torchvision_parts(MNIST, "MNIST", files, data_dir)
    return _of_arrays(
        train.data.numpy(),
        train.targets.numpy().astype(np.int64),
        test.data.numpy(),
        test.targets.numpy().astype(np.int64),
    )


def _mnist_files(data_dir: Path) -> list[Path]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [data_dir / "MNIST" / "raw" / f"{name}-ubyte" for name in names]


def _cifar10(data_dir: Path) -> _Published:
    # Its files are pickles: torchvision opens them only if their checksums are the published ones.
    from torchvision.datasets import CIFAR10

    folder = data_dir / _CIFAR10_FOLDER
    files = [folder / name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
    if not folder.exists():
        _download(CIFAR10, "CIFAR-10", f"the folder {_CIFAR10_FOLDER} into", data_dir)
    train, test = _torchvision_parts(CIFAR10, "CIFAR-10", files, data_dir)
    return _of_arrays(
        train.data,
        np.array(train.targets, np.int64),
        test.data,
        np.array(test.targets, np.int64),
    )


def _torchvision_parts(dataset: Any, name: str, files: list[Path], data_dir: Path) -> list[Any]:
    try:
        return [dataset(str(data_dir), train=train) for train in (True, False)]
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        missing = ", ".join(file.name for file in files if not file.exists())
        detail = f"without {missing}" if missing else f"that cannot be read ({error})"
        raise InputError(
            f"data folder {data_dir}: holds {name} {detail}; remove {files[0].parent} "
            "to have it downloaded again"
        ) from error


def _download(dataset: Any, name: str, by_hand: str, data_dir: Path) -> None:
    def refusal(reason: str) -> InputError:
        return InputError(
            f"{name} is not in the data folder {data_dir} and could not be downloaded ({reason}). "
            f"Three ways out: try again with a network; put {by_hand} a folder and name it with "
            "--data-dir or MINT_DATA_DIR; or run --experiment digits_mlp, whose data needs no "
            "download."
        )

    # Into a folder of its own first: a broken download leaves the data folder as it was.
    anchor = data_dir
    while not anchor.exists():
        anchor = anchor.parent
    if not os.access(anchor, os.W_OK):
        raise refusal(f"{anchor} is not writable")
    with tempfile.TemporaryDirectory(prefix=".mint-download-", dir=anchor) as partial:
        try:
            dataset(partial, train=True, download=True)
        except Exception as error:  # torchvision lets errors of many libraries through here
            raise refusal(first_line(error)) from error
        data_dir.mkdir(parents=True, exist_ok=True)
        (made,) = (entry for entry in Path(partial).iterdir() if entry.is_dir())
        shutil.copytree(made, data_dir / made.name, dirs_exist_ok=True)


# Files


def _parquet(folder: Path, kept_bytes: int) -> _Published:
    found = {
        part: sorted([*folder.glob(f"{part}-*.parquet"), *folder.glob(f"data/{part}-*.parquet")])
        for part in ("train", "test", "validation", "val")
    }
    if not found["train"]:
        raise InputError(f"{folder}: holds no files train-*.parquet, nor does its folder data")
    train = ParquetPictures(found["train"], kept_bytes)
    for part in ("test", "validation", "val"):
        # The labels of a test part are often kept back, all of them -1.
        if found[part] and (test := ParquetPictures(found[part], kept_bytes)).labels.max() >= 0:
            break
    else:
        raise InputError(
            f"{folder}: holds no labelled files test-*.parquet, validation-*.parquet or "
            "val-*.parquet"
        )
    classes = int(train.labels.max()) + 1
    for pictures in (train, test):
        wrong = (pictures.labels < 0) | (pictures.labels >= classes)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"{pictures.name(row)}: label {pictures.labels[row]} must be from 0 to "
                f"{classes - 1}, the largest of the training images"
            )
    digest = _digest(folder, [*found["train"], *found[part]])
    return _Published(train, train.labels, test, test.labels, digest, classes)


@dataclass(frozen=True)
class _Files:
    """Pictures in a file each."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        return str(self.paths[row])

    def open(self, row: int) -> Image.Image:
        return Image.open(self.paths[row])


def _imagefolder(folder: Path) -> _Published:
    from torchvision.datasets import ImageFolder  # takes seconds, and only these need it

    def read(part: str) -> tuple[_Files, NDArray[np.int64], list[str]]:
        try:
            found = ImageFolder(str(folder / part))
        except OSError as error:
            raise InputError(f"{folder / part}: is no folder of classes ({error})") from error
        paths = [Path(path) for path, _ in found.samples]
        return _Files(paths), np.array(found.targets, np.int64), found.classes

    part = next((part for part in ("test", "val") if (folder / part).is_dir()), None)
    if part is None:
        raise InputError(f"{folder}: holds no folder test or val")
    train, train_labels, classes = read("train")
    test, test_labels, test_classes = read(part)
    if differing := sorted(set(classes) ^ set(test_classes)):
        raise InputError(
            f"{folder}: train and {part} must have the same class folders, but only one of them "
            f"has {', '.join(differing[:5])}{', ...' if len(differing) > 5 else ''}"
        )
    digest = _digest(folder, [*train.paths, *test.paths])
    return _Published(train, train_labels, test, test_labels, digest, len(classes))


def _digest(folder: Path, files: Sequence[Path]) -> str:
    sizes = [file.stat().st_size for file in files]
    whole = sum(sizes) < _HASHED_BYTES
    content = hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        content.update(f"{file.relative_to(folder)} {size}\n".encode())
        if whole:
            content.update(file.read_bytes())
    return content.hexdigest()[:16]
