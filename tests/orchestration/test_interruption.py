"""How a sweep ends: by a signal, without its store, on a full disk, refused before any work."""

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
from services import (
    environment,
    free_port,
    group,
    resize_disk,
    run_python,
    server_of,
    small_disk,
)

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition
from mint.orchestration.interruption import interruptible
from mint.store.locks import locked
from mint.store.stage_cache import StageCache

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = (
    "--groups 5 10 --samples-per-class 50 --upper-limits none 0.8 --seeds 0 1 "
    "--set training.epochs=5"
)
TRIALS = 8
SWEEP = SweepDefinition(
    "a_sweep",
    "What?",
    {"digits_mlp": [Grid(groups=(5,), samples_per_class=(50,), upper_limits=("none",))]},
)


class _Finalised:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)  # Python loses the exception of its handler


def test_a_signal_inside_a_finaliser_is_not_lost() -> None:
    def work() -> None:
        with interruptible():
            _Finalised()
            time.sleep(5)

    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt):
        work()
    assert sys.unraisablehook is hook


@contextmanager
def _sweep(folder: Path, options: str = AXES) -> Iterator[subprocess.Popen[str]]:
    """Start a sweep and yield it once its first trial is finished."""
    command = [sys.executable, "-u", str(SCRIPT), *options.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    folder.mkdir(exist_ok=True)
    with group(command, environment(), cwd=folder, **pipes) as process:
        assert process.stdout
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("["):
                break
        else:
            raise AssertionError(output)
        yield process


def _rest(process: subprocess.Popen[str]) -> tuple[int, str]:
    assert process.stdout
    output = process.stdout.read()
    return process.wait(), output


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
        code, output = _rest(process)
        seconds = time.monotonic() - start
    print(f"{number.name} to the {to}: {seconds:.1f} s")
    assert code == 130, output
    assert seconds < 30
    assert re.search(rf"stopped: \d of {TRIALS} trials finished, \d to run", output)
    assert f"python {SCRIPT} {AXES}" in output
    assert "Traceback" not in output
    statuses = [run.info.status for run in _runs(f"sqlite:///{folder / 'mlflow.db'}")]
    # Writing has a time limit, which a busy machine may reach: then a line says so.
    left_open = {"RUNNING"} if "could not be written to the tracking store" in output else set()
    assert set(statuses) <= {"FINISHED", "KILLED"} | left_open
    assert "FINISHED" in statuses


def test_sigterm_closes_the_runs_within_seconds(tmp_path: Path) -> None:
    _stopped(tmp_path / "sweep", signal.SIGTERM, "driver")


@pytest.mark.slow
def test_ctrl_c_closes_the_runs_and_the_same_command_resumes(tmp_path: Path) -> None:
    # In the background of a shell Ctrl-C is ignored, by what is started from here too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tmp_path / "sweep"
    _stopped(folder, signal.SIGINT, "group")
    done = _again(folder)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{TRIALS} trials, [1-7] already finished", done.stdout)
    runs = _runs(f"sqlite:///{folder / 'mlflow.db'}")
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS


@pytest.mark.slow
def test_server_that_goes_away_stops_no_trial_and_sync_writes_the_runs(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "sweep"
    uri = f"http://127.0.0.1:{port}"
    with server_of(tmp_path, port):
        sweep = _sweep(folder, f"{AXES} --tracking-uri {uri}")
        process = sweep.__enter__()
    code, output = _rest(process)
    sweep.__exit__(None, None, None)
    assert code == 1
    assert f"[{TRIALS}/{TRIALS}]" in output
    assert "the tracking store cannot be written to" in output
    assert "mint sync" in output
    tables = (folder / "my-results" / "RESULTS.md").read_bytes()
    alone = _again_in(tmp_path / "alone")
    assert tables == alone
    refused = _again(folder, f"{AXES} --tracking-uri {uri}")
    assert refused.returncode == 2
    assert f"--tracking-uri {uri}: nobody answers there" in refused.stderr
    with server_of(tmp_path, port):
        program = "from mint.cli.app import main; raise SystemExit(main())"
        done = run_python(folder, "-c", program, "sync", "--tracking-uri", uri)
        assert done.returncode == 0, done.stderr
        assert [run.info.status for run in _runs(uri)] == ["FINISHED"] * TRIALS


def _again_in(folder: Path) -> bytes:
    folder.mkdir()
    done = _again(folder)
    assert done.returncode == 0, done.stderr
    return (folder / "my-results" / "RESULTS.md").read_bytes()


@pytest.mark.usefixtures("empty_folder")
def test_read_only_output_folder_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "ro") as disk:
        assert sweep_main(SWEEP, ["--output", str(disk)]) == 2
        assert f"--output {disk}: " in capsys.readouterr().err
        assert sweep_main(SWEEP, ["--cache-dir", str(disk)]) == 2
        assert "cannot be written: Read-only file system" in capsys.readouterr().err
    assert not Path(".mint").exists()


@pytest.mark.slow
def test_full_disk_ends_with_one_line_and_the_same_command_resumes(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "sweep"
    folder.mkdir()
    options = f"{AXES} --cache-dir {disk}"
    with small_disk(disk, "size=6m"):
        done = _again(folder, options)
        output = done.stdout + done.stderr
        assert done.returncode == 1, output
        assert "Traceback" not in output
        assert "No space left on device" in output
        resize_disk(disk, "size=200m")
        done = _again(folder, options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / "my-results" / "RESULTS.md").read_bytes() == _again_in(tmp_path / "alone")


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
