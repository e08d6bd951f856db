"""Runs follow the records: a store that goes away stops nothing, and gets everything later."""

import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mint.trial.table_row import as_records, gap_record, merge_records, result_record
from mlflow import MlflowClient
from mlflow.entities import Run

from mint.cli.app import main
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError, without_secrets
from mint.store.locks import locked, locked_exclusively
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import Tracker
from mint.tracking.writer import Delivery
from mint.trial.failed_trials import FailedTrial, FailedTrials, missing_trials
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult

PROVENANCE = Provenance.of_this_process(
    "a_sweep", ["a_sweep.py", "--tracking-uri", "postgresql://me:secret@host/db"]
)


@pytest.fixture(scope="module")
def finished(
    quick_trial: TrialConfig, digits: Source, tmp_path_factory: pytest.TempPathFactory
) -> StageCache:
    """A folder of stages with one finished trial."""
    cache = StageCache(tmp_path_factory.mktemp("finished"))
    device = __import__("torch").device("cpu")
    run_trial(TrialPipeline(quick_trial, digits, cache=cache, device=device, provenance=PROVENANCE))
    return cache


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    tracker = Tracker(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    tracker.prepare("digits_mlp")
    return tracker


def _runs(tracker: Tracker) -> list[Run]:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _delivery(tracker: Tracker, cache: StageCache, said: list[str]) -> Delivery:
    return Delivery(tracker, cache, PROVENANCE, (), said.append)


def _gap(config: TrialConfig) -> FailedTrial:
    return FailedTrial(
        config=config,
        status="failed",
        reason="ValueError: no | not so",
        details="Traceback",
        history=((1, 20.0), (2, 30.0)),
        provenance=PROVENANCE,
    )


def test_row_of_the_record_is_that_of_its_run(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    other = quick_trial.model_copy(update={"seed": 1})
    with _delivery(tracker, finished, []) as delivery:
        delivery.finished(quick_trial)
        delivery.gap(_gap(other))
    ids = {run.data.tags["mint.key"]: run.info.run_id for run in _runs(tracker)}
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    rows = [
        result_record(result, ids[quick_trial.key]),
        gap_record(_gap(other), ids[other.key]),
    ]
    assert as_records(rows).equals(tracker.records())
    assert tracker.runs("digits_mlp") == {quick_trial.key: ids[quick_trial.key]}


def test_run_with_the_metric_names_of_an_older_mint(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    folder = finished.folder("trials", quick_trial.key)
    run_id = tracker.begin(quick_trial, PROVENANCE, finished.identity)
    tracker.finish(run_id, TrialResult.load(folder), folder)
    now = tracker.records()
    assert now["bootstraps_drawn"][0] > 1
    with sqlite3.connect(tracker.uri.removeprefix("sqlite:///")) as store:
        for old, new in (
            ("estimate/bootstraps", "bootstraps_drawn"),
            ("estimate/reliability", "reliability"),
        ):
            store.execute("UPDATE latest_metrics SET key = ? WHERE key = ?", (old, new))
    assert "estimate/reliability" in _runs(tracker)[0].data.metrics
    assert tracker.records().equals(now)


def test_run_without_layers_takes_them_from_its_record_or_says_so(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    with _delivery(tracker, finished, []) as delivery:
        delivery.finished(quick_trial)
    (run,) = _runs(tracker)
    layers = tracker.records()["layers"].iloc[0]
    assert re.fullmatch(r".*fc1 > fc2: \d+/150000; fc2 > fc3: 3000/3000 \(left out\)", layers)
    # As runs were before records had layers.
    MlflowClient(tracker.uri).delete_tag(run.info.run_id, "mint.pruning.layer_table")
    assert tracker.records()["layers"].iloc[0] == layers
    (Path(run.info.artifact_uri.removeprefix("file://")) / "result.json").unlink()
    assert tracker.records()["layers"].iloc[0] == "unknown"


def test_runs_tell_where_they_come_from_and_no_secret(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    with _delivery(tracker, finished, []) as delivery:
        delivery.finished(quick_trial)
    (run,) = _runs(tracker)
    tags = run.data.tags
    assert tags["mint.command"] == "a_sweep.py --tracking-uri 'postgresql://***@host/db'"
    assert tags["mint.device"] == "cpu"
    assert tags["mint.seed"] == "0"
    assert tags["mint.git_dirty"] in ("true", "false")
    assert tags["mlflow.source.git.commit"] == PROVENANCE.git_commit
    assert tags["mint.version.torch"].startswith("2.")
    assert "secret" not in str(run.to_dictionary())


def test_delivery_may_be_repeated_and_a_killed_run_is_taken_up_again(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    with _delivery(tracker, finished, []) as delivery:
        delivery.running(quick_trial, result.search_steps[:1])
    with _delivery(tracker, finished, []) as delivery:
        delivery.running(quick_trial)
        delivery.close()
    assert [run.info.status for run in _runs(tracker)] == ["RUNNING"]
    other = Tracker(tracker.uri)  # a driver that starts after the first was killed
    assert other.close_orphans("digits_mlp", "elsewhere", "died") == 0
    assert other.close_orphans("digits_mlp", finished.identity, "died", "b_sweep") == 0
    assert other.close_orphans("digits_mlp", finished.identity, "died", "a_sweep") == 1
    (run,) = _runs(tracker)
    assert (run.info.status, run.data.tags["mint.failure"]) == ("KILLED", "died")
    for _ in range(2):
        with _delivery(other, finished, []) as delivery:
            delivery.finished(quick_trial)
    (run,) = _runs(tracker)
    assert run.info.status == "FINISHED"
    assert "mint.failure" not in run.data.tags
    client = MlflowClient(tracker.uri)
    for metric, count in (("probe/passed", len(result.search_steps)), ("accuracy", 1)):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
        assert len(steps) == len(set(steps)) == count


def test_store_that_goes_away_gets_everything_when_it_is_back(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig, tmp_path: Path
) -> None:
    said: list[str] = []
    store, away = tmp_path / "store", tmp_path / "away"
    delivery = _delivery(tracker, finished, said)
    with delivery:
        delivery.running(quick_trial)
        _until(lambda: len(_runs(tracker)) == 1)
        store.rename(away)
        delivery.finished(quick_trial)
        _until(lambda: bool(said))
        assert "the tracking store cannot be written to" in said[0]
        assert "their records are kept and delivered later" in said[0]
        store.exists() and store.rename(tmp_path / "made meanwhile")
        away.rename(store)
        _until(lambda: len(said) == 2)
        assert said[1] == "the tracking store is back"
    assert delivery.close() == 0
    assert [run.info.status for run in _runs(tracker)] == ["FINISHED"]


def test_answer_that_gets_lost_doubles_no_step(
    finished: StageCache,
    tracker: Tracker,
    quick_trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: Any = MlflowClient.log_batch
    lost: list[str] = []

    def lose_one(self: MlflowClient, *arguments: object, **named: object) -> object:
        answer = written(self, *arguments, **named)
        if named.get("metrics") and not lost:
            lost.append("answer")
            raise TimeoutError("the answer got lost")
        return answer

    monkeypatch.setattr(MlflowClient, "log_batch", lose_one)
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    with _delivery(tracker, finished, []) as delivery:
        delivery.running(quick_trial, result.search_steps)
        _until(lambda: bool(lost))
        delivery.finished(quick_trial)
    (run,) = _runs(tracker)
    history = MlflowClient(tracker.uri).get_metric_history(run.info.run_id, "probe/params_pruned")
    assert [point.step for point in history] == list(range(1, len(result.search_steps) + 1))


def test_run_that_cannot_be_written_keeps_no_other_from_delivery(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    other = quick_trial.model_copy(update={"seed": 1})
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    # Somebody else's run of the same key, whose parameters cannot be what they must.
    wrong = client.create_run(experiment.experiment_id, tags={"mint.key": other.key})
    client.log_param(wrong.info.run_id, "groups", "none of ours")
    delivery = _delivery(tracker, finished, [])
    with delivery:
        delivery.gap(_gap(other))
        delivery.finished(quick_trial)
        assert delivery.close() == 1
    assert "Changing param values" in delivery.trouble
    assert quick_trial.key in tracker.runs("digits_mlp")


def test_store_that_hangs_is_left_in_time(
    finished: StageCache,
    tracker: Tracker,
    quick_trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Tracker, "begin", lambda *_: time.sleep(20))
    start = time.monotonic()
    with _delivery(tracker, finished, []) as delivery:
        delivery.running(quick_trial)
        assert delivery.close(0.5) == 1
    assert time.monotonic() - start < 5


def test_run_of_a_trial_that_is_run_again_is_open_again(
    finished: StageCache, tracker: Tracker, quick_trial: TrialConfig
) -> None:
    with _delivery(tracker, finished, []) as delivery:
        delivery.gap(_gap(quick_trial))
        _until(lambda: [run.info.status for run in _runs(tracker)] == ["FAILED"])
        delivery.running(quick_trial)
        _until(lambda: [run.info.status for run in _runs(tracker)] == ["RUNNING"])
        delivery.killed(quick_trial, "stopped")
    (run,) = _runs(tracker)
    assert run.info.status == "KILLED"
    assert len(tracker.records()) == 0


def test_sync_delivers_what_a_lost_store_lacks(
    finished: StageCache,
    quick_trial: TrialConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    other = quick_trial.model_copy(update={"seed": 1})
    FailedTrials(finished).write(_gap(other))
    command = ["sync", "--cache-dir", str(finished.root), "--tracking-uri", "sqlite:///new.db"]
    assert main(command) == 0
    assert "2 trials on the disk, 2 delivered to the store" in capsys.readouterr().out
    assert main(command) == 0
    tracker = Tracker("sqlite:///new.db")
    assert {run.info.status for run in _runs(tracker)} == {"FINISHED", "FAILED"}
    FailedTrials(finished).forget(other.key)


def test_unreachable_store_is_told_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    for uri in ("http://127.0.0.1:9", "postgresql+psycopg2://me:secret@127.0.0.1:9/db"):
        start = time.monotonic()
        assert main(["report", "--tracking-uri", uri]) == 2
        assert time.monotonic() - start < 10
        error = capsys.readouterr().err
        assert "nobody answers there" in error
        assert "secret" not in error


def test_gap_is_remembered_until_there_is_a_result(
    finished: StageCache, quick_trial: TrialConfig
) -> None:
    gaps = FailedTrials(finished)
    other = quick_trial.model_copy(update={"seed": 1})
    stopped = _gap(other).model_copy(update={"status": "stopped"})
    gaps.write(stopped)
    gaps.write(_gap(quick_trial))  # which has a result
    assert list(gaps.all()) == [stopped]
    assert missing_trials([quick_trial, other], finished, (), stopped=False) == [other]
    assert missing_trials([quick_trial, other], finished, (), stopped=True) == []
    (finished.root / "gaps" / f"{other.key}.json").write_text("{")
    with pytest.warns(UserWarning, match="is no record of a trial"):
        assert gaps.read(other.key) is None
    gaps.forget(other.key)
    gaps.forget(quick_trial.key)


def test_result_is_not_replaced_by_a_gap(finished: StageCache, quick_trial: TrialConfig) -> None:
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    done, gap = result_record(result, "a"), gap_record(_gap(quick_trial), "b")
    assert merge_records(as_records([done]), as_records([gap])).equals(as_records([done]))
    assert merge_records(as_records([gap]), as_records([done])).equals(as_records([done]))


def test_second_driver_is_told_who_holds_the_sweep(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from mint.store.stage_cache import StageCache\n"
            "from mint.store.locks import locked\n"
            "with locked(StageCache(Path(sys.argv[1])), 'a-sweep', 'a_sweep.py --seeds 0'):\n"
            "    print('held', flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    complaint = rf"a-sweep is being run by process {holder.pid} on .*: a_sweep.py --seeds 0"
    with pytest.raises(InputError, match=complaint), locked(cache, "a-sweep", "another"):
        pass
    with pytest.raises(InputError, match=complaint), locked_exclusively(cache, "upkeep"):
        pass
    with locked(cache, "another-sweep", "another"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(cache, "a-sweep", "the next"):
        pass
    busy = pytest.raises(InputError, match=r"the stage cache is locked by .*: mint sync")
    with locked_exclusively(cache, "mint sync"), busy, locked(cache, "a-sweep", "too early"):
        pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host:5432/db", "postgresql://***@host:5432/db"),
        ("https://me:p/a@ss@host/x", "https://***@host/x"),
        ("postgresql://me:p w#d@host/db", "postgresql://***@host/db"),
        ("https://host/x?sv=1&sig=abc", "https://host/x?sv=1&sig=***"),
        ("mssql:///?odbc_connect=PWD%3Dpass", "mssql:///?odbc_connect=***"),
        ("s --tracking-uri http://u:p@h --seeds 0", "s --tracking-uri http://***@h --seeds 0"),
        ("mysql://host/db?user=me&password=pass&a=b", "mysql://host/db?user=me&password=***&a=b"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def _until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
