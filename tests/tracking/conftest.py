"""A finished trial, and a store for it."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.provenance import Provenance


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    return Provenance.of_this_process(
        "a_sweep", ["a_sweep.py", "--tracking-uri", "postgresql://me:secret@host/db"]
    )


@pytest.fixture(scope="session")
def finished(
    quick_trial: TrialConfig,
    digits: Source,
    provenance: Provenance,
    tmp_path_factory: pytest.TempPathFactory,
) -> StageCache:
    """A stage cache with one finished trial."""
    cache = StageCache(tmp_path_factory.mktemp("finished"))
    run_trial(TrialPipeline(quick_trial, digits, cache=cache, provenance=provenance))
    return cache


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to create."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> MlflowStore:
    """A new store, prepared for digits_mlp."""
    (tmp_path / "store").mkdir()
    database = shutil.copy(empty_database, tmp_path / "store" / "mlflow.db")
    store = MlflowStore(f"sqlite:///{database}")
    store.prepare("digits_mlp")
    return store
