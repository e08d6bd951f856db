"""Seeds of one setting are nested below a run with their mean."""

from statistics import fmean, stdev

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.seed_runs import SETTING_TAG
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult

PARENT = "mlflow.parentRunId"


@pytest.fixture(scope="module")
def trials(
    quick_trial: TrialConfig,
    digits: Source,
    provenance: Provenance,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[StageCache, list[TrialResult]]:
    """Three seeds of one setting, and one trial of another."""
    cache = StageCache(tmp_path_factory.mktemp("seeds"))
    points = [{"seed": seed, "fraction": 0.5} for seed in (0, 1, 2)]
    points.append({"seed": 0, "fraction": 0.8})
    folders = []
    for point in points:
        axes = {"criterion": "random", "retraining": "none"} | point
        config = quick_trial.model_copy(update=axes)
        folders.append(run_trial(TrialPipeline(config, digits, cache=cache, provenance=provenance)))
    return cache, [TrialResult.load(folder) for folder in folders]


def _finish(store: MlflowStore, cache: StageCache, result: TrialResult) -> str:
    run_id = store.begin(result.config, result.keys, result.provenance, cache.identity)
    assert run_id
    store.finish(run_id, result, cache.folder("trials", result.keys.key))
    return run_id


def _all(store: MlflowStore) -> dict[str, Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


def test_seeds_are_nested_below_their_mean(
    store: MlflowStore, trials: tuple[StageCache, list[TrialResult]]
) -> None:
    cache, (first, second, third, other) = trials
    ids = [_finish(store, cache, result) for result in (first, other)]
    store.nest_seeds("digits_mlp")
    assert set(_all(store)) == set(ids)  # one seed has no mean

    ids.append(_finish(store, cache, second))
    store.nest_seeds("digits_mlp")
    (parent,) = _all(store).keys() - set(ids)
    runs = _all(store)
    assert [runs[each].data.tags.get(PARENT) for each in ids] == [parent, None, parent]
    metrics = runs[parent].data.metrics
    accuracies = [result.accuracy for result in (first, second)]
    assert metrics["accuracy"] == pytest.approx(fmean(accuracies), abs=6e-4)
    assert metrics["accuracy_sd"] == pytest.approx(stdev(accuracies), abs=6e-4)
    assert metrics["seeds"] == 2
    assert runs[parent].info.run_name == first.config.name.removesuffix("-seed0")
    assert runs[parent].data.params["criterion"] == "random"
    assert "seed" not in runs[parent].data.params

    ids.append(_finish(store, cache, third))
    store.nest_seeds("digits_mlp")
    store.nest_seeds("digits_mlp")  # the second time finds nothing to do
    runs = _all(store)
    assert set(runs) == {parent, *ids}
    assert runs[parent].data.metrics["seeds"] == 3
    assert len(MlflowClient(store.uri).get_metric_history(parent, "accuracy")) == 2
    # It is no trial.
    assert set(store.finished_runs("digits_mlp").values()) == set(ids)
    assert {run_id for run_id, _ in store.results().read} == set(ids)


def test_two_runs_of_a_setting_become_one(
    store: MlflowStore, trials: tuple[StageCache, list[TrialResult]]
) -> None:
    cache, (first, second, *_) = trials
    ids = [_finish(store, cache, result) for result in (first, second)]
    store.nest_seeds("digits_mlp")
    runs = _all(store)
    (parent,) = runs.keys() - set(ids)
    tags = {SETTING_TAG: runs[parent].data.tags[SETTING_TAG]}
    MlflowClient(store.uri).create_run(runs[parent].info.experiment_id, None, tags)
    store.nest_seeds("digits_mlp")
    assert set(_all(store)) == {parent, *ids}
