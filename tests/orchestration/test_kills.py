"""Kill -9 at random moments: no result is lost, no trial runs twice, and the tables are equal."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from services import environment

from mint.reporting.trials_csv import read_trials

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = "--groups 5 10 20 --samples-per-class 30 50 --upper-limits none 0.8 --seeds 0 1"
TRIALS = 24
KILLS = 20
SEED = int(os.environ.get("MINT_KILL_SEED", "0"))
LONGEST_WAIT = 45.0
# A worker, the command, all of its processes at once, Ray's own server.
VICTIMS = ("worker", "driver", "group", "ray")


class Sweep:
    """A sweep in a folder, started as often as it is killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.output = folder / "output.txt"
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        # A session of its own, so that all of it can be killed without the test.
        with self.output.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *AXES.split()],
                cwd=self.folder,
                env=environment(),
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        return self.process

    def kill(self, victim: str) -> bool:
        """Kill and return whether there was anything to kill."""
        if victim == "driver":
            self.process.kill()
        elif victim == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            found = self._processes("ray::Implicit" if victim == "worker" else "raylet")
            if not found:
                return False
            found[0].kill()
        return True

    def _processes(self, title: str) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            first = [(child, (child.cmdline() or [""])[0]) for child in children]
        except psutil.Error:
            return []
        return [child for child, word in first if title in word.rsplit("/", 1)[-1]]


def _check(folder: Path, undisturbed: Path) -> None:
    runs = _runs(folder)
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
    assert len({run.data.tags["mint.key"] for run in runs}) == TRIALS
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    for run in runs:
        for metric in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            assert len(steps) == len(set(steps))
    tables = [(place / "my-results" / "RESULTS.md").read_bytes() for place in (folder, undisturbed)]
    assert tables[0] == tables[1]
    ours, theirs = (
        read_trials(place / "my-results" / "trials.csv").drop(columns="run_id")
        for place in (folder, undisturbed)
    )
    assert ours.equals(theirs)
    assert not list((folder / ".mint").rglob(".damaged-*"))


def _runs(folder: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_twenty_kills_lose_nothing_and_make_nothing_twice(tmp_path: Path) -> None:
    undisturbed = Sweep(tmp_path / "undisturbed")
    assert undisturbed.process.wait() == 0
    moments = random.Random(SEED)
    print(f"kills of seed {SEED}:")
    kills = sweeps = 0
    while kills < KILLS:
        sweep = Sweep(tmp_path / f"killed-{sweeps}")
        sweeps += 1
        finished: set[str] = set()
        ends = kills
        while True:
            try:
                code = sweep.process.wait(
                    moments.uniform(0, LONGEST_WAIT) if kills < KILLS else None
                )
            except subprocess.TimeoutExpired:
                victim = moments.choice(VICTIMS)
                done = sweep.kill(victim)
                kills += done
                last = sweep.output.read_text().splitlines()[-1:]
                print(f"{kills}: {victim} {'killed' if done else 'not there'} at {last}")
                continue
            # A trial that finished never runs again.
            ended = [
                line.split("] ")[1].split()[0]
                for line in sweep.output.read_text().splitlines()
                if "accuracy" in line
            ]
            assert len(ended) == len(set(ended))
            finished |= set(ended)
            if code == 0:
                break
            assert kills > ends, f"it ended by itself: {sweep.output.read_text()}"
            ends = kills
            sweep.start()
        assert len(finished) <= TRIALS
        _check(sweep.folder, undisturbed.folder)
    time.sleep(5)
    commands = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    assert not [command for command in commands if str(tmp_path) in command]
