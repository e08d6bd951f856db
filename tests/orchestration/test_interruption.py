"""How a sweep ends: stopped by a signal, without its store, on a full disk, refused at once."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from services import environment, free_port, group, run_python, wait_until_open

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition
from mint.store.locks import locked
from mint.store.stage_cache import StageCache

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = "--groups 5 10 --samples-per-class 50 --upper-limits none 0.8 --seeds 0 1 --epochs 5"
TRIALS = 8
SWEEP = SweepDefinition(
    "a_sweep",
    "What?",
    {"digits_mlp": [Grid(groups=(5,), samples_per_class=(50,), upper_limits=("none",))]},
)


@contextmanager
def _sweep(folder: Path, options: str = AXES) -> Iterator[subprocess.Popen[str]]:
    """Start a sweep and yield it once its first trial is finished."""
    command = [sys.executable, "-u", str(SCRIPT), *options.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    folder.mkdir(exist_ok=True)
    with group(command, environment(), cwd=folder, **pipes) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("["):
                break
        else:
            raise AssertionError(said)
        yield process


def _rest(process: subprocess.Popen[str]) -> tuple[int, str]:
    assert process.stdout
    said = process.stdout.read()
    return process.wait(), said


def _again(folder: Path, options: str = AXES) -> subprocess.CompletedProcess[str]:
    return run_python(folder, str(SCRIPT), *options.split())


def _runs(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def _stopped(folder: Path, number: signal.Signals, to: str) -> None:
    with _sweep(folder) as process:
        start = time.monotonic()
        if to == "driver":
            process.send_signal(number)
        else:  # as a terminal does it
            os.killpg(process.pid, number)
        code, said = _rest(process)
        seconds = time.monotonic() - start
    print(f"{number.name} to the {to}: {seconds:.1f} s")
    assert code == 130, said
    assert seconds < 10
    assert re.search(rf"stopped: \d of {TRIALS} trials finished, \d to run", said)
    assert f"python {SCRIPT} {AXES}" in said
    assert "Traceback" not in said
    statuses = [run.info.status for run in _runs(f"sqlite:///{folder / 'mlflow.db'}")]
    assert set(statuses) <= {"FINISHED", "KILLED"}
    assert "FINISHED" in statuses


def test_sigterm_closes_the_runs_within_seconds(tmp_path: Path) -> None:
    _stopped(tmp_path / "sweep", signal.SIGTERM, "driver")


@pytest.mark.slow
def test_ctrl_c_likewise_and_the_same_command_carries_on(tmp_path: Path) -> None:
    # In the background of a shell Ctrl-C is ignored, by what is started from here too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tmp_path / "sweep"
    _stopped(folder, signal.SIGINT, "group")
    done = _again(folder)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{TRIALS} trials, [1-7] already finished", done.stdout)
    runs = _runs(f"sqlite:///{folder / 'mlflow.db'}")
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS


@contextmanager
def _server(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    log = folder / "log"
    settings = environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    with log.open("w") as out, group(command, settings, stdout=out, stderr=out) as process:
        wait_until_open(port, process, log)
        yield


@pytest.mark.slow
def test_server_that_goes_away_stops_no_trial_and_sync_delivers(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "sweep"
    uri = f"http://127.0.0.1:{port}"
    with _server(tmp_path, port):
        sweep = _sweep(folder, f"{AXES} --tracking-uri {uri}")
        process = sweep.__enter__()
    code, said = _rest(process)
    sweep.__exit__(None, None, None)
    assert code == 1
    assert f"[{TRIALS}/{TRIALS}]" in said
    assert "the tracking store cannot be written to" in said
    assert "mint sync delivers them" in said
    tables = (folder / "results" / "RESULTS.md").read_bytes()
    alone = _again_in(tmp_path / "alone")
    assert tables == alone
    refused = _again(folder, f"{AXES} --tracking-uri {uri}")
    assert refused.returncode == 2
    assert f"--tracking-uri {uri}: nobody answers there" in refused.stderr
    with _server(tmp_path, port):
        program = "from mint.cli.app import main; raise SystemExit(main())"
        done = run_python(folder, "-c", program, "sync", "--tracking-uri", uri)
        assert done.returncode == 0, done.stderr
        assert [run.info.status for run in _runs(uri)] == ["FINISHED"] * TRIALS


def _again_in(folder: Path) -> bytes:
    folder.mkdir()
    done = _again(folder)
    assert done.returncode == 0, done.stderr
    return (folder / "results" / "RESULTS.md").read_bytes()


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a disk of its own in a folder."""
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).returncode
    ):
        pytest.skip("this machine mounts no disks for tests: that takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.usefixtures("empty_folder")
def test_read_only_output_folder_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _disk(tmp_path / "disk", "ro"):
        assert sweep_main(SWEEP, ["--output", str(tmp_path / "disk")]) == 2
        assert f"--output {tmp_path / 'disk'}: " in capsys.readouterr().err
        assert sweep_main(SWEEP, ["--cache-dir", str(tmp_path / "disk")]) == 2
        assert "is not writable" in capsys.readouterr().err
    assert not Path(".mint").exists()


@pytest.mark.slow
def test_full_disk_ends_in_a_line_and_the_same_command_carries_on(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "sweep"
    folder.mkdir()
    options = f"{AXES} --cache-dir {disk}"
    with _disk(disk, "size=6m"):
        done = _again(folder, options)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "Traceback" not in said
        assert "No space left on device" in said
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        done = _again(folder, options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / "results" / "RESULTS.md").read_bytes() == _again_in(tmp_path / "alone")


@pytest.mark.usefixtures("empty_folder")
def test_second_driver_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    holds = []

    def hold() -> None:
        with locked(StageCache(Path(".mint")), "a_sweep-digits_mlp", "a_sweep.py --seeds 7"):
            holds.append(True)
            while holds:
                time.sleep(0.1)

    other = Thread(target=hold)
    other.start()
    while not holds:
        time.sleep(0.1)
    try:
        assert sweep_main(SWEEP, []) == 2
    finally:
        holds.clear()
        other.join()
    error = capsys.readouterr().err
    assert f"a_sweep-digits_mlp is being run by process {os.getpid()}" in error
    assert "a_sweep.py --seeds 7" in error
