"""Data sets as published. To add a format, write a reader and enter it in READERS."""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mint.config.keys import content_key
from mint.config.schema import DataConfig
from mint.data.checks import OnCheck, checked_modes, no_report
from mint.data.facts import DOWNLOADED_FILES, DataFacts, digits_file, held_out_counts
from mint.data.images import (
    DecodedImages,
    EncodedImages,
    Images,
    all_grey,
    any_16_bit,
    open_image,
    opened,
)
from mint.data.parquet import open_parquet
from mint.errors import InputError, WorkFailedError, error_line, first_line
from mint.machine import memory_bytes
from mint.store.atomic import sync_to_disk

# The digest of larger data sets covers the names and sizes of their files, not their content.
_HASHED_BYTES = 2 * 2**30

# Files in the folders of images that are no images; so are files whose name starts with a dot.
_NO_IMAGES = (".csv", ".db", ".ini", ".json", ".md", ".txt", ".xml")


class _Published(NamedTuple):
    """A data set as a reader finds it."""

    train: EncodedImages
    test: EncodedImages
    digest: str
    state: str | None = None  # changes when a file is written; None for images in memory


@dataclass(frozen=True)
class Source:
    """A data set before a validation set is held out; labels (n,) count from 0.

    The digest is sixteen hex digits of the content; above 2 GiB, of the files' names and sizes.
    """

    train: Images
    train_labels: NDArray[np.int64]
    test: Images
    test_labels: NDArray[np.int64]
    digest: str
    class_names: tuple[str, ...]  # in the order of the labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def facts(self) -> DataFacts:
        """What a plan needs to know."""
        _, channels, height, width = self.train.shape
        stored = [images for images in (self.train, self.test) if isinstance(images, Tensor)]
        return DataFacts(
            digest=self.digest,
            image_shape=(channels, height, width),
            class_counts=tuple(np.bincount(self.train_labels, minlength=self.classes).tolist()),
            stored_bytes=sum(images.nbytes for images in stored),
        )


def load_source(
    data: DataConfig,
    data_dir: Path,
    *,
    memory_limit: int | None = None,
    cache: Path | None = None,
    on_check: OnCheck = no_report,
) -> Source:
    """Read a data set; download it first if it is absent and public.

    Images are grey if all are. Above the memory limit (bytes; by default a quarter of the machine's
    memory), they are decoded on every access; their batches are the same.

    Args:
        data: name of the data set, and the preparation of its images.
        data_dir: folder of the data sets.
        memory_limit: for decoded images.
        cache: folder of finished stages. It keeps what the check of the images found: files that
            have not changed are checked once. None checks them now.
        on_check: reports the progress of that check.

    Raises:
        InputError: the data set is absent and cannot be downloaded, or has images that cannot be
            read.
        WorkFailedError: the download broke off.
    """
    kind, _, folder = data.name.partition(":")
    limit = memory_bytes() // 4 if memory_limit is None else memory_limit
    published = READERS[kind](data_dir / folder, limit)
    train, test = published.train, published.test
    with opened(train, 0) as first:
        size, modes = first.size, frozenset([first.mode])
    if published.state:
        one_size = size if data.size is None else None
        modes = checked_modes([train, test], one_size, published.state, cache, on_check)
    mode = "L" if all_grey(modes) and data.channels is None else "RGB"
    bytes_of_image = len(mode) * (data.size**2 if data.size else size[0] * size[1])
    fits = (len(train.labels) + len(test.labels)) * bytes_of_image <= limit

    def images(part: EncodedImages) -> Images:
        if part.pixels is not None and data.size is None and data.channels is None:
            pixels = torch.from_numpy(part.pixels).reshape(len(part.labels), *size[::-1], len(mode))
            return pixels.permute(0, 3, 1, 2).contiguous()
        square = data.size and (data.size, data.size)
        decoded = DecodedImages(part, mode, square or size, resized=square is not None)
        return decoded[np.arange(len(part.labels))] if fits else decoded

    return Source(
        images(train),
        train.labels,
        images(test),
        test.labels,
        # 16-bit images used to be read as other pixels.
        content_key(published.digest, "16 bits") if any_16_bit(modes) else published.digest,
        _class_names(train),
    )


def _class_names(train: EncodedImages) -> tuple[str, ...]:
    """Return the published names of the classes; their labels if not all have a name."""
    classes = int(train.labels.max()) + 1
    named = len(train.class_names) >= classes
    return tuple(train.class_names[:classes] if named else map(str, range(classes)))


def stratified_rows(
    labels: NDArray[np.int64], held_out: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows kept and the rows held out, classes in proportion, both ascending."""
    counts = held_out_counts(np.bincount(labels), held_out)
    out = np.zeros(len(labels), np.bool_)
    for label, count in enumerate(counts):
        out[generator.choice(np.flatnonzero(labels == label), count, replace=False)] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def _publish_arrays(
    *parts: tuple[NDArray[np.uint8], NDArray[np.int64]], class_names: Sequence[str] = ()
) -> _Published:
    """Publish the pixels and labels of a training and a test part."""
    content = hashlib.sha256()

    def publish(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> EncodedImages:
        for array in (pixels, labels):
            content.update(str(array.shape).encode())
            content.update(np.ascontiguousarray(array).data)
        return EncodedImages(
            labels, lambda row: Image.fromarray(pixels[row]), str, pixels, class_names
        )

    train, test = (publish(*part) for part in parts)
    return _Published(train, test, content.hexdigest()[:16])


def _read_digits(_: Path, __: int) -> _Published:
    """Read the 1797 handwritten digits of scikit-learn; 360 of them become the test set."""
    table = np.loadtxt(str(digits_file()), np.int64, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8).astype(np.uint8), table[:, -1]
    rows = stratified_rows(labels, 360, np.random.default_rng(0))
    return _publish_arrays(*((images[part], labels[part]) for part in rows))


def _read_torchvision(name: str, data_dir: Path, _: int) -> _Published:
    """Read MNIST or CIFAR-10, downloading it if none of its files is there."""
    # CIFAR-10 consists of pickles: torchvision opens them only if their checksums are right.
    import torchvision.datasets  # takes seconds, and few data sets need it

    dataset = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}[name]
    files = [data_dir / file for file in DOWNLOADED_FILES[name]]
    if not any(file.exists() for file in files):
        _download(dataset, files, data_dir)
    try:
        parts = [dataset(str(data_dir), train=train) for train in (True, False)]
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        missing = ", ".join(file.name for file in files if not file.exists())
        problem = f"lacks {missing}" if missing else f"cannot be read ({first_line(error)})"
        raise InputError(
            f"{files[0].parent}: {name} {problem}; remove this folder to download it again"
        ) from error
    return _publish_arrays(
        *((np.asarray(part.data), np.asarray(part.targets, np.int64)) for part in parts),
        class_names=parts[0].classes,
    )


def _download(dataset: Any, files: Sequence[Path], data_dir: Path) -> None:
    """Download into a temporary folder, and give it its name when it is complete.

    A failure leaves the data folder unchanged, and no process ever sees a part of the files.
    """
    target = files[0].parent
    anchor = next(folder for folder in target.parents if folder.exists())
    begun = False
    try:
        with tempfile.TemporaryDirectory(prefix=".mint-download-", dir=anchor) as folder:
            try:
                dataset(folder, train=True, download=True)
                made = Path(folder) / target.relative_to(data_dir)
                for path in (*made.iterdir(), made):
                    sync_to_disk(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    made.rename(target)
                except OSError:  # another process may have been faster
                    if not all(file.exists() for file in files):
                        raise
            finally:
                begun = any(path.is_file() for path in Path(folder).rglob("*"))
    except Exception as error:  # torchvision passes on errors of many libraries
        if begun or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            problem = f"the download of {dataset.__name__} into {data_dir} broke off"
            raise WorkFailedError(f"{problem} ({error_line(error)})") from error
        raise InputError(
            f"does not hold {dataset.__name__}, and the download failed ({first_line(error)}). "
            f"Try again with a network; put {', '.join(file.name for file in files)} into "
            f"{files[0].parent}; set data_dir or MINT_DATA_DIR to another folder; or use the "
            "experiment digits_mlp, which needs no download",
            parameter="data_dir",
            value=data_dir,
        ) from error


def _read_parquet(folder: Path, kept_bytes: int) -> _Published:
    found = {
        part: sorted([*folder.glob(f"{part}-*.parquet"), *folder.glob(f"data/{part}-*.parquet")])
        for part in ("train", "test", "validation", "val")
    }
    for part, files in found.items():
        # Publishers number the files of a part: train-00000-of-00002.parquet.
        totals = {int(total) for file in files for total in re.findall(r"-of-(\d+)", file.name)}
        for total in totals - {len(files)}:
            raise InputError(f"{folder}: must hold all {total} {part} files, but has {len(files)}")
    train_files = found.pop("train")
    if not train_files:
        raise InputError(f"{folder}: must hold files train-*.parquet or data/train-*.parquet")
    train = open_parquet(train_files, kept_bytes)
    for test_files in filter(None, found.values()):
        test = open_parquet(test_files, kept_bytes)
        if test.labels.max() >= 0:  # publishers often withhold test labels: all are -1
            break
    else:
        raise InputError(
            f"{folder}: must hold labelled files test-*.parquet, validation-*.parquet or "
            "val-*.parquet"
        )
    largest = train.labels.max()
    for images in (train, test):
        for row in np.flatnonzero((images.labels < 0) | (images.labels > largest))[:1]:
            raise InputError(
                f"{images.name(row)}: label {images.labels[row]} must be from 0 to {largest}, the "
                "largest label of the training images"
            )
    return _Published(train, test, *_digests(folder, [*train_files, *test_files]))


def _read_image_folder(folder: Path, _: int) -> _Published:
    from torchvision.datasets import ImageFolder  # takes seconds, and few data sets need it

    def read(part: str) -> tuple[EncodedImages, list[str], list[str]]:
        try:
            found = ImageFolder(str(folder / part), is_valid_file=_may_be_image)
            beside = [entry.path for entry in os.scandir(folder / part) if entry.is_file()]
        except OSError as error:
            raise InputError(f"{folder / part}: must hold a folder a class ({error})") from error
        for file in filter(_may_be_image, sorted(beside)):
            raise InputError(f"{file}: must be in the folder of its class")
        paths = [path for path, _ in found.samples]
        labels = np.array(found.targets, np.int64)
        images = EncodedImages(
            labels,
            lambda row: open_image(paths[row]),
            paths.__getitem__,
            class_names=found.classes,
        )
        return images, found.classes, paths

    test_part = next((part for part in ("test", "val") if (folder / part).is_dir()), None)
    if test_part is None:
        raise InputError(f"{folder}: must hold a folder test or val")
    train, classes, train_files = read("train")
    test, test_classes, test_files = read(test_part)
    if differing := sorted(set(classes) ^ set(test_classes)):
        raise InputError(
            f"{folder}: train and {test_part} must have the same class folders; only one of them "
            f"has {', '.join(differing[:5])}{', ...' if len(differing) > 5 else ''}"
        )
    files = [Path(file) for file in train_files + test_files]
    return _Published(train, test, *_digests(folder, files))


def _may_be_image(path: str) -> bool:
    """Return whether a file is read as an image, and refused if it is none."""
    name = Path(path).name
    return not name.startswith(".") and not name.lower().endswith(_NO_IMAGES)


def _digests(folder: Path, files: Sequence[Path]) -> tuple[str, str]:
    """Return the digest of files, and one that changes whenever a file is written."""
    facts = [file.stat() for file in files]
    hash_content = sum(fact.st_size for fact in facts) < _HASHED_BYTES
    content, state = hashlib.sha256(), hashlib.sha256()
    for file, fact in zip(files, facts, strict=True):
        line = f"{file.relative_to(folder)} {fact.st_size}\n"
        content.update(line.encode())
        state.update(f"{fact.st_ino} {fact.st_mtime_ns} {line}".encode())
        if hash_content:
            content.update(file.read_bytes())
    return content.hexdigest()[:16], state.hexdigest()[:16]


# A reader takes the data folder, or the folder that the data set's name gives below it, and the
# bytes that it may keep in memory. DataConfig.name lists the same names.
READERS: Mapping[str, Callable[[Path, int], _Published]] = {
    "digits": _read_digits,
    "mnist": partial(_read_torchvision, "mnist"),
    "cifar10": partial(_read_torchvision, "cifar10"),
    "parquet": _read_parquet,
    "imagefolder": _read_image_folder,
}
