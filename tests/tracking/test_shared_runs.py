"""Two machines that write the run of one trial: whatever the order, it is one run and finished."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mint.config.schema import TrialConfig
from mint.store.manifest import Manifest
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.trial.failed_trials import FailedTrial
from mint.trial.provenance import Provenance
from mint.trial.result import MASKS_FILE, TrialKeys, TrialResult

CALLS = (
    *("search_runs", "create_run", "get_run", "log_param", "log_batch", "update_run"),
    *("set_tag", "delete_tag", "delete_run", "log_text", "log_artifact", "set_terminated"),
)


class _Pause:
    """Halts one machine before one of its calls of the store, until another is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.at = 0
        self.other: Callable[[], None] | None = None
        for name in CALLS:
            monkeypatch.setattr(MlflowClient, name, self._halting(getattr(MlflowClient, name)))

    def _halting(self, call: Any) -> Callable[..., object]:
        def halted(*arguments: object, **named: object) -> object:
            other = self.other
            if other:
                self.calls += 1
                if self.calls == self.at:
                    self.other = None
                    other()
                    self.other = other
            return call(*arguments, **named)

        return halted

    def run(self, at: int, first: Callable[[], None], other: Callable[[], None]) -> bool:
        """Run the first machine, halted before a call; return False if it made fewer calls."""
        self.calls, self.at, self.other = 0, at, other
        first()
        self.other = None
        return self.calls >= at


@pytest.mark.parametrize("event", ["begins", "logs", "fails", "is stopped", "finishes", "died"])
def test_finished_run_stays_finished_whoever_writes(
    event: str,
    finished: StageCache,
    store: MlflowStore,
    quick_trial: TrialConfig,
    provenance: Provenance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = finished.folder("trials", quick_trial.key)
    result = TrialResult.load(folder)
    client = MlflowClient(store.uri)
    (identifier,) = store.experiments().values()
    pause = _Pause(monkeypatch)

    def one_machine_is_halted(at: int) -> bool:
        config = quick_trial.model_copy(update={"seed": at})
        keys = TrialKeys.of(config)
        own = result.model_copy(update={"config": config, "keys": keys})

        def finish() -> None:
            if run_id := store.begin(config, keys, provenance, "A"):
                store.finish(run_id, own, folder)

        run_id = None if event == "begins" else store.begin(config, keys, provenance, "B")

        def write() -> None:
            if event == "died":
                store.close_orphans(config.experiment.name, "B", "the driver died")
            elif run_id is None:
                store.begin(config, keys, provenance, "B")
            elif event == "logs":
                store.log_search_steps(run_id, result.search_steps)
            elif event == "fails":
                failed = FailedTrial(
                    keys=keys, config=config, status="failed", reason="no", provenance=provenance
                )
                store.close_failed(run_id, failed)
            elif event == "is stopped":
                store.close(run_id, "KILLED", "stopped")
            else:
                store.finish(run_id, own, folder)

        halted = pause.run(at, write, finish)
        if not halted:
            finish()
        (run,) = client.search_runs([identifier], f"tags.`mint.key` = '{keys.key}'")
        assert run.info.status == "FINISHED", f"halted before call {at}"
        assert not {"mint.failure", "mint.status"} & run.data.tags.keys()
        steps = client.get_metric_history(run.info.run_id, "retrain/loss")
        assert len(steps) == len({point.step for point in steps})
        write()
        assert client.get_run(run.info.run_id).info.status == "FINISHED"
        return halted

    at = 1
    while one_machine_is_halted(at):
        at += 1
    assert at > 2
    assert len(store.finished_runs("digits_mlp")) == at


def test_files_of_two_machines_that_found_other_figures_never_mix(
    finished: StageCache,
    store: MlflowStore,
    quick_trial: TrialConfig,
    provenance: Provenance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines = []
    for name in ("A", "B"):
        folder = tmp_path / name
        folder.mkdir()
        found = TrialResult.load(finished.folder("trials", quick_trial.key))
        (folder / MASKS_FILE).write_text(name)
        found.model_copy(update={"device": name}).save(folder)
        Manifest.of(folder, name).save(folder)
        machines.append(folder)
    first, second = machines
    client = MlflowClient(store.uri)
    pause = _Pause(monkeypatch)

    def one_machine_is_halted(at: int, *, the_other_dies: bool) -> bool:
        config = quick_trial.model_copy(update={"seed": at, "groups": 6 + the_other_dies})
        keys = TrialKeys.of(config)
        run_id = store.begin(config, keys, provenance, "A")
        assert run_id

        def finish(folder: Path) -> None:
            own = TrialResult.load(folder).model_copy(update={"config": config, "keys": keys})
            store.finish(run_id, own, folder)

        def finish_or_die() -> None:
            with monkeypatch.context() as patch:
                if the_other_dies:  # with its files uploaded, and the run not yet finished
                    patch.setattr("mint.tracking.mlflow_store.log_series", lambda *_: 1 / 0)
                with suppress(ZeroDivisionError):
                    finish(second)

        halted = pause.run(at, lambda: finish(first), finish_or_die)
        run = client.get_run(run_id)
        files = Path(run.info.artifact_uri.removeprefix("file://")) / run.data.params["files"]
        device = (files / "masks" / MASKS_FILE).read_text()
        assert TrialResult.load(files).device == device == run.data.tags["mint.device"]
        assert run.info.status == "FINISHED"
        return halted

    for the_other_dies in (False, True):
        at = 1
        while one_machine_is_halted(at, the_other_dies=the_other_dies):
            at += 1
        assert at > 5


def test_machine_that_dies_after_it_closed_a_finished_run_loses_nothing(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    folder = finished.folder("trials", quick_trial.key)
    result = TrialResult.load(folder)
    run_id = store.begin(quick_trial, result.keys, provenance, "A")
    assert run_id
    store.finish(run_id, result, folder)
    client = MlflowClient(store.uri)
    client.set_terminated(run_id, "FAILED")
    assert store.finished_runs("digits_mlp") == {quick_trial.key: run_id}
    assert dict(store.results().read) == {run_id: result}
    assert store.close_orphans("digits_mlp", "A", "died") == 0
    assert client.get_run(run_id).info.status == "FINISHED"
