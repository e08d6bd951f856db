"""Data sets of every format are read as published, and errors name the damaged file or row."""

import gzip
import hashlib
import pickle
import shutil
import struct
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch
import torchvision.datasets
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from mint.config.schema import DataConfig
from mint.data.datasets import Source, load_source
from mint.data.facts import needs_download
from mint.errors import InputError, WorkFailedError

MNIST = DataConfig(name="mnist", validation_size=10)
CIFAR10 = DataConfig(name="cifar10", validation_size=10)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def _all(source: Source, part: str = "train") -> NDArray[np.uint8]:
    images = getattr(source, part)
    pixels: NDArray[np.uint8] = images[np.arange(images.shape[0])].numpy()
    return pixels


def _folder_of(kind: str, folder: Path, **settings: Any) -> DataConfig:
    return DataConfig(name=f"{kind}:{folder}", validation_size=10, **settings)


# Digits and MNIST


def test_digits_are_complete(digits: Source) -> None:
    assert digits.train.shape == (1437, 1, 8, 8)
    assert digits.test.shape == (360, 1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    # The keys of finished trials depend on it.
    assert digits.digest == "4f5be3a9f8102146"


def test_mnist_as_published(mnist_dir: Path) -> None:
    source = load_source(MNIST, mnist_dir)
    assert source.train.shape == (60000, 1, 28, 28)
    assert source.test.shape == (10000, 1, 28, 28)
    assert np.bincount(source.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_arrays_can_be_resized_and_decoded_on_access(digits: Source) -> None:
    data = DataConfig(name="digits", validation_size=280, size=12)
    stored, streamed = (load_source(data, Path(), memory_limit=limit) for limit in (None, 1000))
    assert isinstance(stored.train, torch.Tensor)
    assert not isinstance(streamed.train, torch.Tensor)
    assert streamed.train.shape == (1437, 1, 12, 12)
    assert np.array_equal(_all(stored), _all(streamed))
    assert stored.digest == digits.digest


@pytest.mark.parametrize("data", [MNIST, CIFAR10], ids=lambda data: data.name)
def test_failed_download_names_remedies_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: DataConfig
) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar")
    assert needs_download(data, tmp_path / "data")
    with pytest.raises(InputError) as raised:
        load_source(data, tmp_path / "data")
    assert raised.value.parameter == "data_dir"
    for remedy in ("Try again", "MINT_DATA_DIR", "digits_mlp"):
        assert remedy in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["truncated", "full disk"])
def test_download_that_breaks_off_is_failed_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    mirror, dataset = tmp_path / "mirror", torchvision.datasets.CIFAR10
    mirror.mkdir()
    (mirror / "cifar.tar.gz").write_bytes(b"the first bytes")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failure == "full disk":
        monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", fail)
    with _served(mirror) as address:
        monkeypatch.setattr(dataset, "url", f"{address}cifar.tar.gz")
        with pytest.raises(WorkFailedError, match=r"CIFAR10 .* broke off"):
            load_source(CIFAR10, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [mirror]


@contextmanager
def _watched(folder: Path) -> Iterator[set[int]]:
    """Yield the numbers of files that the folder holds whenever this process opens a file."""
    numbers: set[int] = set()
    watching = True

    def look(event: str, _: Any) -> None:
        if event == "open" and watching:
            numbers.add(len(list(folder.glob("*"))))

    sys.addaudithook(look)
    try:
        yield numbers
    finally:
        watching = False


def test_download_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Source) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    resources = []
    for part, images, labels in (
        ("train", _all(digits)[:, 0], digits.train_labels),
        ("t10k", _all(digits, "test")[:, 0], digits.test_labels),
    ):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim])
            header += b"".join(size.to_bytes(4, "big") for size in values.shape)
            name = f"{part}-{kind}-ubyte.gz"
            (mirror / name).write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))
            resources.append((name, None))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    folder = tmp_path / "new" / "data"
    (folder / "MNIST").mkdir(parents=True)  # left after a user removed MNIST/raw
    with _served(mirror) as address, _watched(folder / "MNIST" / "raw") as numbers:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        downloaded = load_source(MNIST, folder)
    assert numbers == {0, 8}, "another process sees a part of the files"
    assert downloaded.digest == digits.digest
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert not needs_download(MNIST, folder)
    assert load_source(MNIST, folder).digest == digits.digest


def test_download_of_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    labels = [0, 1, 2, 0, 1, 2]
    made = tmp_path / "mirror" / "cifar-10-batches-py"
    made.mkdir(parents=True)
    sums = {}
    for name, content in (
        ("data_batch_1", {"data": pixels[:4].reshape(4, -1), "labels": labels[:4]}),
        ("test_batch", {"data": pixels[4:].reshape(2, -1), "labels": labels[4:]}),
        ("batches.meta", {"label_names": ["cat", "dog", "frog"]}),
    ):
        (made / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((made / name).read_bytes()).hexdigest()
    archive = tmp_path / "mirror" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made, made.name)
    dataset = torchvision.datasets.CIFAR10
    with _served(tmp_path / "mirror") as address:
        monkeypatch.setattr(dataset, "url", address + archive.name)
        monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        monkeypatch.setattr(dataset, "train_list", [["data_batch_1", sums["data_batch_1"]]])
        monkeypatch.setattr(dataset, "test_list", [["test_batch", sums["test_batch"]]])
        meta = {**dataset.meta, "md5": sums["batches.meta"]}
        monkeypatch.setattr(dataset, "meta", meta)
        source = load_source(CIFAR10, tmp_path / "data")
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [made.name]
    assert not needs_download(CIFAR10, tmp_path / "data")
    assert np.array_equal(_all(source), pixels[:4])
    assert np.array_equal(_all(source, "test"), pixels[4:])
    assert source.test_labels.tolist() == labels[4:]
    assert load_source(CIFAR10, tmp_path / "data").digest == source.digest
    # Pickles with another checksum are never opened.
    (tmp_path / "data" / made.name / "test_batch").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="cifar-10-batches-py: cifar10"):
        load_source(CIFAR10, tmp_path / "data")


@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_damaged_mnist_is_refused(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    for name in names[1:] if damage == "missing" else names:
        content = b"" if damage == "empty" else b"\0\0\x08\x01\0\0\0\x09\x01\x02"
        (raw / f"{name}-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=r"MNIST/raw: mnist .*; remove this folder"):
        load_source(MNIST, tmp_path)


# Parquet


@pytest.mark.slow
def test_cifar10_of_jpegs(cifar_dir: Path) -> None:
    source = load_source(_folder_of("parquet", Path("cifar10-jpeg")), cifar_dir)
    assert source.train.shape == (50000, 3, 32, 32)
    assert np.bincount(source.train_labels).tolist() == [5000] * 10
    assert np.bincount(source.test_labels).tolist() == [1000] * 10


def test_images_of_parquet_equal_those_of_its_files(cifar_dir: Path, small_cifar: Path) -> None:
    whole = parquet.read_table(cifar_dir / "cifar10-jpeg" / "train-00000-of-00001.parquet")
    source = load_source(_folder_of("parquet", small_cifar), cifar_dir, memory_limit=0)
    assert source.class_names[:3] == ("airplane", "automobile", "bird")
    rows = np.random.default_rng(0).permutation(450)
    pixels = source.train[rows]
    for row, ours in zip(rows, pixels, strict=True):
        content = whole.column("img")[int(row)]["bytes"].as_buffer()
        with Image.open(BytesIO(content)) as image:
            assert np.array_equal(ours.permute(1, 2, 0), np.asarray(image))
    assert source.train_labels.tolist() == whole.column("label")[:450].to_pylist()


def _png(pixels: NDArray[np.uint8], path: Path) -> bytes:
    Image.fromarray(pixels).save(path / "image.png")
    return (path / "image.png").read_bytes()


def _write_parquet(path: Path, images: list[bytes | None], labels: list[int], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = pa.array([{"bytes": image, "path": "x"} for image in images], kind)
    columns = {"picture": structs, "class": pa.array(labels, pa.int32()), **more}
    parquet.write_table(pa.table(columns), path, row_group_size=2)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """Five grey images of 6 x 4, two classes, below data/; the test part withholds its labels."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, 4, 6)).astype(np.uint8)
    images = [_png(image, tmp_path) for image in pixels]
    folder = tmp_path / "grey"
    _write_parquet(folder / "data" / "train-0.parquet", [*images[:3]], [0, 1, 1])
    _write_parquet(folder / "data" / "validation-0.parquet", [*images[3:]], [1, 0])
    _write_parquet(folder / "data" / "test-0.parquet", [*images[3:]], [-1, -1])
    return folder


def test_grey_parquet(grey: Path) -> None:
    source = load_source(_folder_of("parquet", grey), Path("elsewhere"))
    assert source.train.shape == (3, 1, 4, 6)
    assert source.test_labels.tolist() == [1, 0]
    assert source.class_names == ("0", "1")
    square = load_source(_folder_of("parquet", grey, size=4), Path("elsewhere"))
    # The shorter side is 4 already, so only the longer one is cropped.
    assert np.array_equal(_all(square), _all(source)[..., 1:5])


def test_16_bit_images_keep_their_order_of_grey_values(grey: Path) -> None:
    data = _folder_of("parquet", grey)
    of_8_bits = load_source(data, Path())
    ours = _all(of_8_bits)[:, 0]
    for mode, order in (("I;16", "<u2"), ("I;16B", ">u2")):
        images: list[bytes | None] = []
        for pixels in ours:
            # White is 65535 in a file of 16 bits, as it is 255 in one of 8.
            image = Image.fromarray((pixels * 257.0).astype(order))
            assert image.mode == mode
            image.save(grey / "image.tif")
            images.append((grey / "image.tif").read_bytes())
        _write_parquet(grey / "data" / "train-0.parquet", images, [0, 1, 1])
        source = load_source(data, Path())
        assert np.array_equal(_all(source)[:, 0], ours)
        colour = load_source(data.model_copy(update={"channels": 3}), Path(), memory_limit=0)
        assert np.array_equal(_all(colour)[:, 2], ours)
    # They were read as other pixels before, and no result of those answers for these.
    with patch("mint.data.datasets.any_16_bit", return_value=False):
        assert load_source(data, Path()).digest != source.digest


def test_a_coloured_image_among_grey_ones_keeps_its_colour(tmp_path: Path) -> None:
    grey, red = np.full((4, 6), 9, np.uint8), np.full((4, 6, 3), (200, 10, 0), np.uint8)
    images: list[bytes | None] = [_png(grey, tmp_path) for _ in range(200)]
    images[150] = _png(red, tmp_path)
    folder = tmp_path / "mixed"
    _write_parquet(folder / "train-0.parquet", images, [0, 1] * 100)
    _write_parquet(folder / "test-0.parquet", images[:2], [0, 1])
    source = load_source(_folder_of("parquet", folder), Path())
    assert source.train.shape == (200, 3, 4, 6)
    assert _all(source)[150, :, 0, 0].tolist() == [200, 10, 0]
    assert _all(source)[149, :, 0, 0].tolist() == [9, 9, 9]
    # Neither is a coloured test image turned grey.
    _write_parquet(folder / "train-0.parquet", images[:2], [0, 1])
    _write_parquet(folder / "test-0.parquet", images[150:152], [0, 1])
    source = load_source(_folder_of("parquet", folder), Path())
    assert _all(source, "test")[0, :, 0, 0].tolist() == [200, 10, 0]


def test_parquet_digest_depends_on_content_alone(grey: Path, tmp_path: Path) -> None:
    data = _folder_of("parquet", grey)
    before = load_source(data, tmp_path).digest
    assert load_source(data, tmp_path, memory_limit=0).digest == before
    file = grey / "data" / "train-0.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.slice(0, 2), file)
    assert load_source(data, tmp_path).digest != before


def _garbage(folder: Path) -> None:
    (folder / "data" / "train-0.parquet").write_bytes(b"PAR1 no PAR1")


def _cut(folder: Path) -> None:
    file = folder / "data" / "train-0.parquet"
    file.write_bytes(file.read_bytes()[:-50])


def _no_train(folder: Path) -> None:
    (folder / "data" / "train-0.parquet").unlink()


def _no_labels(folder: Path) -> None:
    (folder / "data" / "validation-0.parquet").unlink()


def _corrupt_image(folder: Path) -> None:
    good = _png(np.zeros((4, 6), np.uint8), folder)
    _write_parquet(folder / "data" / "train-0.parquet", [good, good, good[:-20]], [0, 1, 1])


def _null_image(folder: Path) -> None:
    good = _png(np.zeros((4, 6), np.uint8), folder)
    _write_parquet(folder / "data" / "train-0.parquet", [good, good, None], [0, 1, 1])


def _other_size(folder: Path) -> None:
    images: list[bytes | None] = [
        _png(np.zeros((4, width), np.uint8), folder) for width in (6, 6, 7)
    ]
    _write_parquet(folder / "data" / "train-0.parquet", images, [0, 1, 1])


def _two_labels(folder: Path) -> None:
    good = _png(np.zeros((4, 6), np.uint8), folder)
    coarse = pa.array([0, 0], pa.int64())
    _write_parquet(folder / "data" / "train-0.parquet", [good, good], [0, 1], coarse=coarse)


def _no_rows(folder: Path) -> None:
    for path in sorted((folder / "data").glob("train-*.parquet")):
        parquet.write_table(parquet.read_table(path).slice(0, 0), path)


def _unknown_label(folder: Path) -> None:
    good = _png(np.zeros((4, 6), np.uint8), folder)
    _write_parquet(folder / "data" / "validation-0.parquet", [good, good, good], [0, 1, 2])


def _missing_file(folder: Path) -> None:
    file = folder / "data" / "train-0.parquet"
    file.rename(file.with_name("train-00000-of-00002.parquet"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing_file, r"grey: must hold all 2 train files, but has 1"),
        (_garbage, r"train-0\.parquet: cannot be read as Parquet"),
        (_cut, r"train-0\.parquet: cannot be read as Parquet"),
        (_no_train, r"grey: .*train-\*\.parquet"),
        (_no_labels, r"grey: .*test-\*\.parquet"),
        (_corrupt_image, r"train-0\.parquet, row 2: cannot be decoded"),
        (_null_image, r"train-0\.parquet, row 2: holds no image"),
        (_other_size, r"train-0\.parquet, row 2: .*7 x 4 .*data\.size"),
        (_two_labels, r"train-0\.parquet: .*class \(int32\), coarse \(int64\)"),
        (_no_rows, r"train-0\.parquet: must hold at least one row"),
        (_unknown_label, r"validation-0\.parquet, row 2: label 2 must be from 0 to 1"),
    ],
)
@pytest.mark.parametrize("memory_limit", [None, 0])
def test_damaged_parquet_is_refused(
    grey: Path, damage: Callable[[Path], None], message: str, memory_limit: int | None
) -> None:
    damage(grey)
    with pytest.raises(InputError, match=message) as raised:
        _all(load_source(_folder_of("parquet", grey), Path(), memory_limit=memory_limit))
    assert "\n" not in str(raised.value)


# Folders of images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images of several sizes, modes and formats, in two classes."""
    folder = tmp_path / "tree"
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                shape = (20 + number, 30, 3 + number % 2) if number % 3 else (25, 20)
                image = Image.fromarray(generator.integers(0, 256, shape).astype(np.uint8))
                image.save(folder / part / label / f"{number}.png")
    Image.new("RGB", (22, 40), "red").save(folder / "train" / "cat" / "red.JPEG")
    return folder


def test_folder_of_images(tree: Path) -> None:
    data = _folder_of("imagefolder", Path(tree.name), size=16)
    stored = load_source(data, tree.parent)
    streamed = load_source(data, tree.parent, memory_limit=0)
    assert stored.train.shape == (13, 3, 16, 16)
    assert np.array_equal(_all(stored), _all(streamed))
    assert stored.digest == streamed.digest
    assert stored.train_labels.tolist() == [0] * 7 + [1] * 6
    assert stored.test_labels.tolist() == [0, 0, 1, 1]
    red = _all(stored)[6]
    assert red[0].min() > 250
    assert red[1:].max() < 5
    grey = _all(stored)[0]
    assert np.array_equal(grey[0], grey[2])


def test_all_images_of_a_folder_are_read_whatever_their_format(tree: Path) -> None:
    data = _folder_of("imagefolder", tree, size=16)
    before = load_source(data, Path())
    blue = Image.new("RGB", (30, 20), "blue")
    for name in ("a.gif", "b.avif", "c.jp2", "d.ppm", "e.webp", "f.bmp", "without"):
        kind = Path(name).suffix[1:] or "png"
        kind = {"jp2": "jpeg2000"}.get(kind, kind)
        blue.save(tree / "train" / "dog" / name, kind)
    preview = blue.resize((3, 2))
    blue.save(tree / "train" / "dog" / "h.jpg", "MPO", save_all=True, append_images=[preview])
    for name in (".DS_Store", "._a.gif", "Thumbs.db", "labels.csv", "notes.TXT"):
        (tree / "train" / "dog" / name).write_text("no image")
    (tree / "train" / "classes.txt").write_text("no image")
    after = load_source(data, Path())
    assert len(after.train_labels) == len(before.train_labels) + 8
    assert int(_all(after)[13:, 2].min()) > 240
    # What has been read before is read as before.
    assert np.array_equal(_all(after)[:13], _all(before))


def test_a_folder_is_checked_once_before_anything_is_trained(tree: Path, tmp_path: Path) -> None:
    """A damaged file is named although the images do not fit the memory; so is every other."""
    data, checks = _folder_of("imagefolder", tree, size=16), []

    def load(memory_limit: int = 0) -> Source:
        reports: list[tuple[int, int]] = []
        checks.append(reports)
        return load_source(
            data,
            Path(),
            memory_limit=memory_limit,
            cache=tmp_path / "cache",
            on_check=lambda *report: reports.append(report),
        )

    good = (tree / "train" / "dog" / "2.png").read_bytes()
    for name in ("cat/4", "dog/2"):
        _cut_file(tree / "train" / f"{name}.png")
    with pytest.raises(InputError, match=r"cat/4\.png: cannot .*; .*dog/2\.png: cannot"):
        load()
    for name in ("cat/4", "dog/2"):
        (tree / "train" / f"{name}.png").write_bytes(good)
    first, again, stored = load(), load(), load(10**6)
    # Thirteen training images and four test images.
    assert checks[1:] == [[(13, 17), (17, 17)], [], []]
    assert not isinstance(first.train, torch.Tensor)
    assert np.array_equal(_all(first), _all(stored))
    assert first.digest == again.digest == stored.digest
    _cut_file(tree / "train" / "dog" / "2.png")
    with pytest.raises(InputError, match=r"dog/2\.png: cannot"):
        load()


def _cut_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


def test_resizing_equals_torchvision(tree: Path) -> None:
    from torchvision.transforms import functional

    data = _folder_of("imagefolder", tree, size=16)
    ours = torch.from_numpy(_all(load_source(data, Path())))
    with Image.open(tree / "train" / "cat" / "5.png") as picture:
        resized = functional.resize(picture.convert("RGB"), 16)
    theirs = functional.pil_to_tensor(functional.center_crop(resized, 16))
    assert torch.equal(ours[5], theirs)


def test_folder_digest_depends_on_the_files(tree: Path) -> None:
    data = _folder_of("imagefolder", tree, size=16)
    before = load_source(data, Path()).digest
    assert load_source(data, Path()).digest == before
    (tree / "train" / "cat" / "0.png").rename(tree / "train" / "dog" / "00.png")
    assert load_source(data, Path()).digest != before


def _no_class(folder: Path) -> None:
    for file in (folder / "val" / "dog").iterdir():
        file.unlink()
    (folder / "val" / "dog").rmdir()


def _empty_class(folder: Path) -> None:
    (folder / "train" / "empty").mkdir()


def _no_test(folder: Path) -> None:
    (folder / "val").rename(folder / "other")


def _no_training(folder: Path) -> None:
    (folder / "train").rename(folder / "other")


def _text_file(folder: Path) -> None:
    (folder / "train" / "dog" / "2.png").write_text("not an image\n")


def _truncated_image(folder: Path) -> None:
    _cut_file(folder / "train" / "dog" / "2.png")


def _photo_of_a_phone(folder: Path) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    (folder / "train" / "dog" / "2.HEIC").write_bytes(heic)


def _image_beside_the_classes(folder: Path) -> None:
    shutil.copy(folder / "train" / "dog" / "2.png", folder / "train" / "2.png")


def _film(folder: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "train" / "dog" / "2.gif", save_all=True, append_images=frames[1:])


def _float_pixels(folder: Path) -> None:
    Image.new("F", (20, 20), 1000).save(folder / "train" / "dog" / "2.tif")


def _long_pixels(folder: Path) -> None:
    Image.new("I", (20, 20), 100000).save(folder / "train" / "dog" / "2.tif")


def _pixels_of_12_bits(folder: Path) -> None:
    # Pillow reads such a file, but writes none.
    tags = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, 6)])
    head = struct.pack("<2sHI", b"II", 42, 14)
    content = head + b"\x12\x3f\xff" * 2 + struct.pack("<H", 9) + entries + bytes(4)
    (folder / "train" / "dog" / "2.tif").write_bytes(content)


def _postscript(folder: Path) -> None:
    Image.new("RGB", (20, 20)).save(folder / "train" / "dog" / "2.eps")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_photo_of_a_phone, r"dog/2\.HEIC: cannot be decoded as an image"),
        (_image_beside_the_classes, r"train/2\.png: must be in the folder of its class"),
        (_film, r"dog/2\.gif: holds several images"),
        (_float_pixels, r"dog/2\.tif: has pixels of Pillow's mode F"),
        (_long_pixels, r"dog/2\.tif: has pixels of Pillow's mode I"),
        (_pixels_of_12_bits, r"dog/2\.tif: has pixels of 12 bits"),
        (_postscript, r"dog/2\.eps: cannot be decoded as an image"),
        (_no_class, "train and val must have the same class folders; .* dog"),
        (_empty_class, "train: must hold a folder a class .*empty"),
        (_no_test, "must hold a folder test or val"),
        (_no_training, "train: must hold a folder a class"),
        (_text_file, r"dog/2\.png: cannot be decoded as an image"),
        (_truncated_image, r"dog/2\.png: cannot be decoded as an image"),
    ],
)
@pytest.mark.parametrize("memory_limit", [None, 0])
def test_damaged_image_folder_is_refused(
    tree: Path, damage: Callable[[Path], None], message: str, memory_limit: int | None
) -> None:
    damage(tree)
    data = _folder_of("imagefolder", tree, size=16)
    with pytest.raises(InputError, match=message) as raised:
        _all(load_source(data, Path(), memory_limit=memory_limit))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
def test_missing_folder_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_source(_folder_of(kind, Path("nowhere")), tmp_path)
