"""What runs hold, and what is read from them."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from services import environment, free_port, postgresql, server_of

from mint.cli.app import main
from mint.config.schema import TrialConfig
from mint.errors import InputError
from mint.reporting.trials_csv import read_trials, records
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import TrialKeys, TrialResult


def _runs(store: MlflowStore) -> list[Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _finish(store: MlflowStore, cache: StageCache, key: str) -> str:
    folder = cache.folder("trials", key)
    result = TrialResult.load(folder)
    run_id = store.begin(result.config, result.keys, result.provenance, cache.identity)
    assert run_id
    store.finish(run_id, result, folder)
    return run_id


def _failed(config: TrialConfig, provenance: Provenance) -> FailedTrial:
    return FailedTrial(
        keys=TrialKeys.of(config),
        config=config,
        status="failed",
        reason="ValueError: no | not so",
        details="Traceback",
        history=((1, 20.0), (2, 30.0)),
        provenance=provenance,
    )


def _fail(store: MlflowStore, config: TrialConfig, provenance: Provenance) -> FailedTrial:
    failed = _failed(config, provenance)
    run_id = store.begin(config, failed.keys, provenance, "me")
    assert run_id
    store.close_failed(run_id, failed)
    return failed


def test_results_are_the_files_of_the_trials(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    run_id = _finish(store, finished, quick_trial.key)
    failed = _fail(store, quick_trial.model_copy(update={"seed": 1}), provenance)
    results = dict(store.results().read)
    result = results.pop(run_id)
    assert result == TrialResult.load(finished.folder("trials", quick_trial.key))
    assert list(results.values()) == [failed]
    assert store.finished_runs("digits_mlp") == {quick_trial.key: run_id}


def test_results_of_a_server_are_downloaded_or_taken_from_the_cache(
    finished: StageCache,
    quick_trial: TrialConfig,
    provenance: Provenance,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    with server_of(tmp_path, port):
        store = MlflowStore(f"http://127.0.0.1:{port}")
        store.prepare("digits_mlp")
        run_id = _finish(store, finished, quick_trial.key)
        failed = _fail(store, quick_trial.model_copy(update={"seed": 1}), provenance)
        result = TrialResult.load(finished.folder("trials", quick_trial.key))
        downloaded = dict(store.results().read)
        assert downloaded.pop(run_id) == result
        assert list(downloaded.values()) == [failed]
        (artifact,) = (tmp_path / "artifacts").rglob("result.json")
        artifact.unlink()
        assert dict(store.results(finished).read)[run_id] == result
        partly = store.results()
        assert [each for _, each in partly.read] == [failed]
        assert [line.split(" (")[0] for line in partly.unread] == [
            f"run {run_id}: result.json cannot be read"
        ]
        output = tmp_path / "results"
        report = ["report", "--output", str(output), "--tracking-uri"]
        assert main([*report, store.uri]) == 1
        written = capsys.readouterr()
        assert f"run {run_id}: result.json cannot be read" in written.out
        assert "failed: 1 trials could not be read from the tracking store" in written.err
    (row,) = records(read_trials(output / "trials.csv"))
    assert row["key"] == failed.keys.key
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    # The server's own database knows the runs, but not where their files are.
    database = f"sqlite:///{tmp_path / 'server.db'}"
    assert main([*report, database]) == 2
    error = capsys.readouterr().err
    assert f"--tracking-uri {database}: none of its 2 trials can be read here" in error
    assert "give the server's address, http(s)://HOST:PORT" in error
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match=r"digits_mlp has files that an MLflow server keeps"):
        MlflowStore(database).prepare("digits_mlp")


def test_result_keeps_the_key_and_the_protocol_that_it_was_written_with(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig, tmp_path: Path
) -> None:
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    keys = TrialKeys(key="an older key", protocol="01234567", method_version=0)
    older = result.model_copy(update={"keys": keys})
    cache = StageCache(tmp_path / "cache")
    folder = cache.folder("trials", keys.key)
    folder.mkdir(parents=True)
    for file in finished.folder("trials", quick_trial.key).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    older.save(folder)
    run_id = _finish(store, cache, keys.key)
    assert dict(store.results().read) == {run_id: older}
    assert store.finished_runs("digits_mlp") == {keys.key: run_id}
    assert _runs(store)[0].data.params["protocol"] == keys.protocol


def test_result_beside_a_database_is_read_without_a_download(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig
) -> None:
    run_id = _finish(store, finished, quick_trial.key)
    downloads: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mint.tracking.mlflow_store.download_artifacts", downloads.append)
        assert [identifier for identifier, _ in store.results().read] == [run_id]
    assert not downloads


def test_runs_show_their_origin_and_no_secret(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    _finish(store, finished, quick_trial.key)
    (run,) = _runs(store)
    tags = run.data.tags
    assert tags["mint.command"] == "a_sweep.py --tracking-uri 'postgresql://***@host/db'"
    assert tags["mint.sweep"] == "a_sweep"
    assert tags["mint.device"] == "cpu"
    assert tags["mint.seed"] == "0"
    assert tags["mint.git_dirty"] in ("true", "false")
    assert tags["mlflow.source.git.commit"] == provenance.git_commit
    assert tags["mint.version.torch"].startswith("2.")
    assert "secret" not in str(run.to_dictionary())


def test_orphaned_run_is_closed_and_the_trial_resumes_it(
    finished: StageCache, store: MlflowStore, quick_trial: TrialConfig, provenance: Provenance
) -> None:
    result = TrialResult.load(finished.folder("trials", quick_trial.key))
    owner = finished.identity
    run_id = store.begin(quick_trial, result.keys, provenance, owner)
    assert run_id
    store.log_search_steps(run_id, result.search_steps[:1])
    other = MlflowStore(store.uri)  # of a driver that starts after the first was killed
    assert other.close_orphans("digits_mlp", "elsewhere", "died") == 0
    assert other.close_orphans("digits_mlp", owner, "died", "b_sweep") == 0
    assert other.close_orphans("digits_mlp", owner, "died", "a_sweep") == 1
    (run,) = _runs(store)
    assert (run.info.status, run.data.tags["mint.failure"]) == ("KILLED", "died")
    assert _finish(other, finished, quick_trial.key) == run_id
    (run,) = _runs(store)
    assert run.info.status == "FINISHED"
    assert "mint.failure" not in run.data.tags
    client = MlflowClient(store.uri)
    for metric, count in (("search/passed", len(result.search_steps)), ("accuracy", 1)):
        steps = [point.step for point in client.get_metric_history(run_id, metric)]
        assert sorted(steps) == list(range(1, count + 1)) if count > 1 else [0]


def test_deleted_experiment_is_refused(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(store.uri)
    client.delete_experiment(store.experiments()["digits_mlp"])
    with pytest.raises(Exception, match="its experiment digits_mlp was deleted"):
        store.prepare("digits_mlp")


@pytest.mark.slow
def test_machines_that_open_a_new_database_together_all_start() -> None:
    prepare = "from mint.tracking.mlflow_store import MlflowStore; import sys; print(flush=True); "
    prepare += "sys.stdin.read(1); print(MlflowStore(sys.argv[1]).prepare('digits_mlp'))"
    with postgresql() as database:
        machines = [
            subprocess.Popen(
                [sys.executable, "-c", prepare, database.uri()],
                env=environment({"PGPASSWORD": database.password}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for machine in machines:
            assert machine.stdout
            assert machine.stdout.readline() == "\n"
        for machine in machines:
            assert machine.stdin
            machine.stdin.write("!")
            machine.stdin.flush()
        answers = [machine.communicate()[0] for machine in machines]
    assert answers == ["1\n"] * len(machines)


def test_unreachable_store_is_refused_within_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    for uri in ("http://127.0.0.1:9", "postgresql+psycopg2://me:secret@127.0.0.1:9/db"):
        start = time.monotonic()
        assert main(["report", "--tracking-uri", uri]) == 2
        assert time.monotonic() - start < 10
        error = capsys.readouterr().err
        assert "nobody answers there" in error
        assert "secret" not in error


@pytest.mark.usefixtures("empty_folder")
def test_folder_that_cannot_get_the_files_of_runs_is_named_at_the_start(
    store: MlflowStore,
    quick_trial: TrialConfig,
    provenance: Provenance,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "artifacts"
    database = tmp_path / "store" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", [str(folder)])
    cache = tmp_path / "cache"
    FailedTrials(StageCache(cache)).write(_failed(quick_trial, provenance))
    options = ["--cache-dir", str(cache), "--tracking-uri", store.uri]
    for command in ("run --experiment digits_mlp --groups 6 --samples-per-class 30", "sync"):
        assert main([*command.split(), *options]) == 2
        error = capsys.readouterr().err
        assert f"its experiment digits_mlp keeps files in {folder}" in error
        assert "make that folder writable here, or use another store" in error
