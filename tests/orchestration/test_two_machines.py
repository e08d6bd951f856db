"""Two drivers with caches of their own run one sweep on a shared store; one of them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from services import environment, group, postgresql, run_python

from mint.reporting.trials_csv import read_trials

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = (
    "--groups 5 10 20 --samples-per-class 30 50 --upper-limits none 0.8 --seeds 0 "
    "--set training.epochs=3"
)
TRIALS = 12
SECONDS = 1800  # that a sweep may take


def _start(folder: Path, options: list[str], settings: dict[str, str]) -> subprocess.Popen[str]:
    """Start the sweep with a cache, a results folder and a Ray of its own."""
    folder.mkdir()
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *AXES.split(), *options],
            cwd=folder,
            env=environment(settings),
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )


def _finished(folder: Path) -> int:
    lines = (folder / "output.txt").read_text().splitlines()
    return sum(line.startswith("[") and "accuracy" in line for line in lines)


def test_two_machines_with_one_store_finish_every_trial_once_though_one_is_killed(
    tmp_path: Path,
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    sweep = run_python(alone, str(SCRIPT), *AXES.split())
    assert sweep.returncode == 0, sweep.stderr
    with postgresql() as database:
        # Artifacts go where both machines find them.
        client = MlflowClient(database.uri(database.password))
        client.create_experiment("digits_mlp", (tmp_path / "artifacts").as_uri())
        options = ["--storage", str(tmp_path / "storage"), "--tracking-uri", database.uri()]
        settings = {"PGPASSWORD": database.password}
        folders = [tmp_path / "first", tmp_path / "second"]
        first, second = (_start(folder, options, settings) for folder in folders)
        try:
            end = time.monotonic() + SECONDS
            while not all(map(_finished, folders)) and time.monotonic() < end:
                assert first.poll() is None, (folders[0] / "output.txt").read_text()
                assert second.poll() is None, (folders[1] / "output.txt").read_text()
                time.sleep(0.2)
            assert _finished(folders[0]) < TRIALS, "it was over before it could be killed"
            os.killpg(first.pid, signal.SIGKILL)
            assert second.wait(SECONDS) == 0, (folders[1] / "output.txt").read_text()
        finally:
            for process in (first, second):
                if process.poll() is None:
                    process.kill()
        again = [sys.executable, str(SCRIPT), *AXES.split(), *options]
        with group(again, environment(settings), cwd=folders[0], stdout=subprocess.PIPE) as process:
            assert process.wait(SECONDS) == 0, "the killed machine cannot go on"
        (identifier,) = (
            experiment.experiment_id
            for experiment in client.search_experiments()
            if experiment.name == "digits_mlp"
        )
        runs = client.search_runs([identifier])
        assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
        assert len({run.data.tags["mint.key"] for run in runs}) == TRIALS
        for run in runs:
            assert not {"mint.failure", "mint.status"} & run.data.tags.keys()
            for metric in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, metric)
                assert len(history) == len({point.step for point in history}), metric
    for folder in folders:
        page = folder / "my-results" / "RESULTS.md"
        assert page.read_bytes() == (alone / "my-results" / "RESULTS.md").read_bytes()
        ours, theirs = (
            read_trials(place / "my-results" / "trials.csv").drop(columns="run_id")
            for place in (folder, alone)
        )
        assert ours.equals(theirs)
