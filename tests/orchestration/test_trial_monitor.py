"""What fails outside a trial's own work changes no outcome."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune

import mint.trial.pipeline
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError
from mint.orchestration.display import Silent
from mint.orchestration.search_spaces import grid_plan
from mint.orchestration.sweep_settings import SweepSettings
from mint.orchestration.trial_monitor import TrialMonitor
from mint.orchestration.tune import _run_one
from mint.store.locks import locked_exclusively
from mint.store.remote import RemoteStore
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.run_writer import RunWriter
from mint.trial.pipeline import TrialPipeline
from mint.trial.provenance import Provenance


@pytest.fixture
def provenance() -> Provenance:
    return Provenance.of_this_process("a_sweep", ["a_sweep.py"])


@pytest.fixture
def unpruned(quick_trial: TrialConfig) -> TrialConfig:
    changes = {"criterion": "magnitude", "upper_limit": 0.0}
    return TrialConfig.model_validate({**quick_trial.model_dump(), **changes})


def test_trial_of_a_node_is_finished_although_the_storage_fails(
    unpruned: TrialConfig,
    digits: Source,
    provenance: Provenance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mint.store.retry.PAUSES", ())
    monkeypatch.setenv("MINT_CACHE_DIR", str(tmp_path / "node"))
    settings = SweepSettings(
        name="a_sweep-digits_mlp",
        provenance=provenance,
        data_dir=tmp_path,
        cache_root=tmp_path / "driver",
        storage=str(tmp_path / "storage"),
        threads=1,
        ray_address="a.cluster:6379",
    )
    reports: list[dict[str, Any]] = []
    run_trial = mint.trial.pipeline.run_trial

    def run_beside_a_cleanup(pipeline: TrialPipeline) -> Path:
        refused = pytest.raises(InputError, match="used by a trial of a sweep")
        with refused, locked_exclusively(StageCache(tmp_path / "node"), "mint cache prune"):
            pass
        return run_trial(pipeline)

    def no_answer(*_: Any, **__: Any) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(mint.trial.pipeline, "run_trial", run_beside_a_cleanup)
    monkeypatch.setattr(tune, "report", reports.append)
    parameters = {
        name: values["grid_search"][0] for name, values in grid_plan([unpruned]).space.items()
    }
    cache = StageCache(tmp_path / "driver", RemoteStore(str(tmp_path / "storage")))
    store = MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}")
    writer = RunWriter(store, cache, provenance, {}, print)
    monitor = TrialMonitor(writer, Silent(), to_run=1)
    monitor.started(unpruned)
    with monkeypatch.context() as away:
        away.setattr(RemoteStore, "has", no_answer)
        away.setattr(RemoteStore, "fetch", no_answer)
        with pytest.warns(UserWarning, match="does not answer"):
            _run_one(parameters, settings, 1)
        with pytest.warns(UserWarning, match="does not answer"):
            monitor.ended(unpruned, **reports[-1]["end"])
    assert (monitor.finished, monitor.failed, monitor.unread) == (1, 0, [unpruned.key])
    assert not (tmp_path / "storage").exists()
    # The storage is back: the node publishes what it has, and the driver finds it.
    _run_one(parameters, settings, 1)
    assert reports[-1]["end"]["status"] == "finished", reports[-1]
    assert cache.find("trials", unpruned.key)
