"""Real parts for the tests: digits, MNIST where it is at hand, and an experiment that is quick."""

import os
from pathlib import Path

import pytest
import torch

from mint.config import Experiment, TrialConfig, load_experiment
from mint.data import Dataset, Source, load_source, split_source


@pytest.fixture(scope="session")
def digits() -> Source:
    return load_source("digits", Path("not needed"))


@pytest.fixture(scope="session")
def digits_dataset(digits: Source) -> Dataset:
    return split_source(digits, validation_size=280, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    folder = Path(os.environ.get("MINT_DATA_DIR", "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("MNIST is not at hand: set MINT_DATA_DIR to the folder that holds MNIST/raw")
    return folder


@pytest.fixture(scope="session")
def quick() -> Experiment:
    """The digits experiment, trained for three epochs."""
    experiment = load_experiment("digits_mlp")
    training = experiment.training.with_epochs(3)
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
