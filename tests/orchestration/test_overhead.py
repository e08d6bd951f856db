"""What orchestration costs: two hundred short trials, eight at a time, then all of them again."""

import re
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from services import run_python

from mint.reporting.trials_csv import read_trials
from mint.trial.result import TrialResult

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = "--smoke --samples-per-class 20 30 --upper-limits none 0.8 --seeds 0 1 2 3 4"
MANY = f"{AXES} --groups 2 3 4 5 6 7 8 9 10 11"
TRIALS = 200


def _timed(folder: Path, options: str) -> tuple[float, str]:
    folder.mkdir(exist_ok=True)
    start = time.monotonic()
    done = run_python(folder, str(SCRIPT), *options.split())
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start, done.stdout


def _trial_seconds(folder: Path) -> float:
    return sum(
        TrialResult.load(path).seconds for path in (folder / ".mint" / "trials").glob("[!.]*/")
    )


def test_two_hundred_trials_eight_at_a_time_lose_no_write(tmp_path: Path) -> None:
    folder = tmp_path / "eight"
    wall, said = _timed(folder, f"{MANY} --max-concurrent 8 --set threads=1")
    assert f"[{TRIALS}/{TRIALS}]" in said
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
    for run in runs:
        result = TrialResult.load(folder / ".mint" / "trials" / run.data.tags["mint.key"])
        assert run.data.metrics["accuracy"] == round(result.accuracy, 3)
        steps = client.get_metric_history(run.info.run_id, "search/params_pruned")
        assert [step.value for step in steps] == [s.params_pruned for s in result.search_steps]
    assert len(read_trials(folder / "my-results" / "trials.csv")) == TRIALS
    print(f"eight at a time: {wall:.0f} s")

    again, said = _timed(folder, f"{MANY} --max-concurrent 8 --set threads=1")
    print(f"again: {again:.1f} s")
    assert f"{TRIALS} trials, {TRIALS} already finished, 0 to run" in said
    assert again < 15


def test_wall_time_is_that_of_the_trials(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    start_up, _ = _timed(few, f"{AXES.replace('0 1 2 3 4', '0')} --groups 2")
    wall, said = _timed(many, MANY)
    (at_once,) = map(int, re.findall(r"(\d+) at a time", said))
    trials = _trial_seconds(many)
    outside = wall - start_up - (trials - _trial_seconds(few)) / at_once
    print(
        f"{TRIALS} trials of {trials:.0f} s in all, {at_once} at a time: {wall:.0f} s; four: "
        f"{start_up:.0f} s; outside of a trial: {outside / TRIALS:.2f} s"
    )
    assert outside / TRIALS < 1
    # From when the driver takes over; the imports before that, and Python's end, come on top.
    assert _seconds_on_the_clock(said) <= 1.15 * trials / at_once + 20


def _seconds_on_the_clock(said: str) -> int:
    ((minutes, seconds),) = re.findall(r", (?:(\d+) min )?(\d+) s on the clock", said)
    return 60 * int(minutes or 0) + int(seconds)
