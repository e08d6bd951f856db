"""Splits are stratified, seeded and apart; rows are balanced; missing data is told plainly."""

import gzip
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from mint.data import Dataset, Source, balanced_rows, load_source, smallest_class, split_source
from mint.errors import InputError

CPU = torch.device("cpu")


def test_digits_are_all_there(digits: Source) -> None:
    assert len(digits.train_labels) == 1437
    assert len(digits.test_labels) == 360
    assert digits.train_images.shape == (1437, 8, 8)


def test_split_keeps_every_image_once_and_classes_in_proportion(
    digits: Source, digits_dataset: Dataset
) -> None:
    assert len(digits_dataset.train) + len(digits_dataset.validation) == 1437
    assert len(digits_dataset.validation) == 280
    share = np.bincount(digits.train_labels) * 280 / 1437
    assert np.abs(np.bincount(digits_dataset.validation.labels.numpy()) - share).max() < 1
    pixels = torch.cat([digits_dataset.train.inputs, digits_dataset.validation.inputs])
    scaled = digits.train_images.astype(np.float64).sum((1, 2))
    ours = pixels.double().sum((1, 2)).numpy()
    # One affine map takes the raw sums to ours, whatever the order.
    assert np.corrcoef(np.sort(scaled), np.sort(ours))[0, 1] > 0.999999


def test_pixels_have_zero_mean_and_unit_variance(digits_dataset: Dataset) -> None:
    pixels = digits_dataset.train.inputs.double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std(unbiased=False)) == pytest.approx(1, abs=1e-5)


def test_split_depends_on_the_seed_alone(digits: Source) -> None:
    splits = [split_source(digits, validation_size=280, seed=s, device=CPU) for s in (0, 0, 1)]
    same, again, other = (split.validation.inputs for split in splits)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert torch.equal(splits[0].test.labels, splits[2].test.labels)


def test_balanced_rows(digits_dataset: Dataset) -> None:
    labels = digits_dataset.train.labels
    rows = balanced_rows(labels, samples_per_class=50, seed=3)
    assert len(set(rows.tolist())) == 500
    assert np.bincount(labels.numpy()[rows]).tolist() == [50] * 10
    assert np.array_equal(rows, balanced_rows(labels, samples_per_class=50, seed=3))
    assert not np.array_equal(rows, balanced_rows(labels, samples_per_class=50, seed=4))


def test_more_rows_than_a_class_has(digits: Source, digits_dataset: Dataset) -> None:
    most = smallest_class(digits, validation_size=280, seed=0)
    balanced_rows(digits_dataset.train.labels, samples_per_class=most, seed=0)
    with pytest.raises(InputError, match=f"samples per class {most + 1}"):
        balanced_rows(digits_dataset.train.labels, samples_per_class=most + 1, seed=0)


def test_digest_tells_images_apart(digits: Source) -> None:
    other = digits.train_images.copy()
    other[0, 0, 0] += 1
    changed = Source(other, digits.train_labels, digits.test_images, digits.test_labels)
    assert changed.digest != digits.digest


def test_mnist_as_published(mnist_dir: Path) -> None:
    source = load_source("mnist", mnist_dir)
    assert source.train_images.shape == (60000, 28, 28)
    assert source.test_images.shape == (10000, 28, 28)
    assert np.bincount(source.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_failed_download_names_the_ways_out_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = ["http://127.0.0.1:9/"]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", closed)
    with pytest.raises(InputError) as raised:
        load_source("mnist", tmp_path / "data")
    for way_out in ("try again", "--data-dir", "MINT_DATA_DIR", "--experiment digits_mlp"):
        assert way_out in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Source) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    resources = []
    for part, images, labels in (
        ("train", digits.train_images, digits.train_labels),
        ("t10k", digits.test_images, digits.test_labels),
    ):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim])
            header += b"".join(size.to_bytes(4, "big") for size in values.shape)
            name = f"{part}-{kind}-ubyte.gz"
            (mirror / name).write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))
            resources.append((name, None))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    handler = partial(SimpleHTTPRequestHandler, directory=str(mirror))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        downloaded = load_source("mnist", tmp_path / "new" / "data")
        server.shutdown()
    assert downloaded.digest == digits.digest
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert load_source("mnist", tmp_path / "new" / "data").digest == digits.digest


@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_damaged_mnist_is_named(tmp_path: Path, damage: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    for name in names[1:] if damage == "missing" else names:
        content = b"" if damage == "empty" else b"\0\0\x08\x01\0\0\0\x09\x01\x02"
        (raw / f"{name}-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="MNIST"):
        load_source("mnist", tmp_path)
