"""Real parts for the tests: digits, MNIST where it is at hand, and an experiment that is quick."""

import os
import sys
from pathlib import Path

# Before Ray is imported, as in mint.orchestration.ray_setup: else Ray packs the working folder.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# As in mint.orchestration.sweep_driver: Ray's servers listen on loopback only.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import pytest
import torch
from pyarrow import parquet

from mint.config.loading import load_experiment
from mint.config.schema import DataConfig, Experiment, TrialConfig
from mint.data.datasets import Source, load_source
from mint.data.loading import Dataset, split_source

DIGITS = DataConfig(name="digits", validation_size=280)


@pytest.fixture(scope="session")
def digits() -> Source:
    return load_source(DIGITS, Path("not needed"))


@pytest.fixture(scope="session")
def digits_dataset(digits: Source) -> Dataset:
    return split_source(digits, DIGITS, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    folder = Path(os.environ.get("MINT_DATA_DIR", "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("MNIST is not at hand: set MINT_DATA_DIR to the folder that holds MNIST/raw")
    return folder


@pytest.fixture(scope="session")
def cifar_dir() -> Path:
    folder = Path(os.environ.get("MINT_DATA_DIR", "data"))
    if not (folder / "cifar10-jpeg").is_dir():
        pytest.skip(
            "CIFAR-10 is not at hand: set MINT_DATA_DIR to the folder that holds cifar10-jpeg"
        )
    return folder


@pytest.fixture(scope="session")
def small_cifar(cifar_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of CIFAR-10's JPEGs in two training files, of several row groups each, and a test."""
    folder = tmp_path_factory.mktemp("cifar")
    for part, file, first, count in (
        ("train", "train-00000-of-00002", 0, 300),
        ("train", "train-00001-of-00002", 300, 150),
        ("test", "test-00000-of-00001", 0, 120),
    ):
        whole = parquet.read_table(cifar_dir / "cifar10-jpeg" / f"{part}-00000-of-00001.parquet")
        parquet.write_table(
            whole.slice(first, count), folder / f"{file}.parquet", row_group_size=70
        )
    return folder


@pytest.fixture(scope="session")
def quick() -> Experiment:
    """The digits experiment, trained for three epochs."""
    experiment = load_experiment("digits_mlp")
    training = experiment.training.model_copy(update={"epochs": 3})
    return experiment.model_copy(update={"training": training})


@pytest.fixture(scope="session")
def quick_trial(quick: Experiment, digits: Source) -> TrialConfig:
    return TrialConfig(
        experiment=quick,
        groups=6,
        samples_per_class=30,
        upper_limit=None,
        seed=0,
        data_digest=digits.digest,
    )


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without the settings of whoever runs the tests."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a network's import appends the folder
    for name in ("MINT_DATA_DIR", "MINT_CACHE_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
