"""Runs follow the trials: a store that goes away stops nothing, and gets everything later."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mint.cli.app import main
from mint.config.schema import TrialConfig
from mint.reporting import heat_maps
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.run_writer import RunWriter
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import TrialKeys, TrialResult


def _runs(store: MlflowStore) -> list[Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def writer(
    store: MlflowStore, finished: StageCache, provenance: Provenance, said: list[str]
) -> RunWriter:
    return RunWriter(store, finished, provenance, (), said.append)


def _failed(config: TrialConfig, provenance: Provenance) -> FailedTrial:
    return FailedTrial(
        keys=TrialKeys.of(config),
        config=config,
        status="failed",
        reason="ValueError: no",
        details="Traceback",
        provenance=provenance,
    )


def test_store_that_goes_away_gets_everything_when_it_is_back(
    writer: RunWriter,
    store: MlflowStore,
    quick_trial: TrialConfig,
    tmp_path: Path,
    said: list[str],
) -> None:
    folder, away = tmp_path / "store", tmp_path / "away"
    with writer:
        writer.running(quick_trial)
        _wait_until(lambda: len(_runs(store)) == 1)
        folder.rename(away)
        writer.finished(quick_trial.key)
        _wait_until(lambda: bool(said))
        assert "the tracking store cannot be written to" in said[0]
        assert "their results are written later" in said[0]
        if folder.exists():
            folder.rename(tmp_path / "created meanwhile")
        away.rename(folder)
        _wait_until(lambda: len(said) == 2)
        assert said[1] == "the tracking store is back"
    assert writer.close() == 0
    assert [run.info.status for run in _runs(store)] == ["FINISHED"]


def test_lost_answer_doubles_no_step(
    writer: RunWriter,
    finished: StageCache,
    store: MlflowStore,
    quick_trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_batch: Any = MlflowClient.log_batch
    lost: list[str] = []

    def lose_one(self: MlflowClient, *arguments: object, **named: object) -> object:
        answer = log_batch(self, *arguments, **named)
        if named.get("metrics") and not lost:
            lost.append("answer")
            raise TimeoutError("the answer got lost")
        return answer

    monkeypatch.setattr(MlflowClient, "log_batch", lose_one)
    steps = TrialResult.load(finished.folder("trials", quick_trial.key)).search_steps
    with writer:
        writer.running(quick_trial, steps)
        _wait_until(lambda: bool(lost))
        writer.finished(quick_trial.key)
    (run,) = _runs(store)
    history = MlflowClient(store.uri).get_metric_history(run.info.run_id, "search/params_pruned")
    assert sorted(point.step for point in history) == list(range(1, len(steps) + 1))


def test_run_that_cannot_be_written_blocks_no_other(
    writer: RunWriter, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    other = quick_trial.model_copy(update={"seed": 1})
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    # Somebody else's run of the same key: MLflow lets nobody change its parameters.
    wrong = client.create_run(experiment.experiment_id, tags={"mint.key": other.key})
    client.log_param(wrong.info.run_id, "groups", "not a number")
    with writer:
        writer.failed(_failed(other, provenance))
        writer.finished(quick_trial.key)
        assert writer.close() == 1
    assert "Changing param values" in writer.trouble
    assert quick_trial.key in store.finished_runs("digits_mlp")


def test_failing_answers_at_the_end_of_a_sweep_are_repeated(
    writer: RunWriter,
    store: MlflowStore,
    quick_trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_artifact: Any = MlflowClient.log_artifact
    failures = iter(["502 Bad Gateway", "503 Service Unavailable"])

    def fail_twice(self: MlflowClient, *arguments: object) -> None:
        if failure := next(failures, None):
            raise OSError(failure)
        log_artifact(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", fail_twice)
    monkeypatch.setattr("mint.tracking.run_writer._LAST_PAUSES", (0.01, 0.01))
    with writer:
        writer.finished(quick_trial.key)
        assert writer.close() == 0
    assert quick_trial.key in store.finished_runs("digits_mlp")


def test_store_that_hangs_is_left_in_time(
    writer: RunWriter, quick_trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowStore, "begin", lambda *_: time.sleep(20))
    start = time.monotonic()
    with writer:
        writer.running(quick_trial)
        assert writer.close(0.5) == 1
    assert time.monotonic() - start < 5


def test_run_of_a_trial_that_runs_again_is_opened_again(
    writer: RunWriter, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    with writer:
        writer.failed(_failed(quick_trial, provenance))
        _wait_until(lambda: [run.info.status for run in _runs(store)] == ["FAILED"])
        writer.running(quick_trial)
        _wait_until(lambda: [run.info.status for run in _runs(store)] == ["RUNNING"])
        writer.interrupted(quick_trial.key, "stopped")
    (run,) = _runs(store)
    assert run.info.status == "KILLED"
    assert list(store.results().read) == []


def test_run_is_finished_last_in_few_calls_and_has_its_plot(
    writer: RunWriter,
    store: MlflowStore,
    quick_trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for name in (
        *("search_runs", "create_run", "get_run", "log_param", "log_batch", "log_artifact"),
        *("set_tag", "update_run", "set_terminated"),
    ):
        original: Any = getattr(MlflowClient, name)

        def note(
            self: MlflowClient,
            *arguments: object,
            _name: str = name,
            _original: Any = original,
            **named: object,
        ) -> object:
            calls.append(_name)
            return _original(self, *arguments, **named)

        monkeypatch.setattr(MlflowClient, name, note)
    with writer:
        writer.finished(quick_trial.key)
    assert calls[-1] == "set_terminated"
    files = calls.count("log_artifact")
    assert len(calls) - files <= 10  # how many trials an hour a store takes depends on them
    (run,) = _runs(store)
    client = MlflowClient(store.uri)
    folder = run.data.params["files"]
    masks = {file.path for file in client.list_artifacts(run.info.run_id, f"{folder}/masks")}
    assert f"{folder}/masks/scores.png" in masks
    assert f"{folder}/masks/scores.png" in run.data.tags["mlflow.note.content"]


def test_plot_that_fails_loses_no_trial(
    writer: RunWriter,
    store: MlflowStore,
    quick_trial: TrialConfig,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr(heat_maps, "draw_trial_scores", fail)
    with writer:
        writer.finished(quick_trial.key)
    assert "no font" in said[0]
    assert [result.keys.key for _, result in store.results().read] == [quick_trial.key]


def test_sync_writes_what_a_lost_store_lacks(
    finished: StageCache,
    quick_trial: TrialConfig,
    provenance: Provenance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    other = quick_trial.model_copy(update={"seed": 1})
    FailedTrials(finished).write(_failed(other, provenance))
    command = ["sync", "--cache-dir", str(finished.root), "--tracking-uri", "sqlite:///new.db"]
    assert main(command) == 0
    assert "2 trials" in capsys.readouterr().out
    assert main(command) == 0
    store = MlflowStore("sqlite:///new.db")
    assert {run.info.status for run in _runs(store)} == {"FINISHED", "FAILED"}
    FailedTrials(finished).forget(other.key)


def test_sync_names_the_trials_that_it_cannot_read_and_writes_the_others(
    finished: StageCache,
    quick_trial: TrialConfig,
    store: MlflowStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = tmp_path / "cache" / "trials"
    whole = shutil.copytree(finished.folder("trials", quick_trial.key), trials / quick_trial.key)
    damaged = shutil.copytree(whole, trials / "0123456789abcdef")
    (damaged / "result.json").write_text("{}")
    command = ["sync", "--cache-dir", str(trials.parent), "--tracking-uri", store.uri]
    assert main(command) == 1
    said = capsys.readouterr()
    assert f"trial {damaged.name}: cannot be read" in said.out
    assert "1 trials on the disk, 1 written to the store" in said.out
    assert "1 could not be read" in said.err
    assert quick_trial.key in store.finished_runs("digits_mlp")


def _wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
