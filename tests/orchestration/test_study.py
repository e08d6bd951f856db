"""A real study of digits, and what fits a budget."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from services import environment

from mint.config.schema import TrialConfig
from mint.orchestration.study_plan import SEEDS, affordable_seeds, choose_plan
from mint.pruning.layer_table import LayerCount
from mint.training.epoch import Epoch
from mint.trial.result import Retraining, SearchStep, TrialResult

STUDY = ("-m", "mint.cli.app", "study", "--smoke", "--budget", "20s")


def _study(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *STUDY],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


@pytest.mark.slow
def test_study_answers_with_a_page_a_network_and_runs(tmp_path: Path) -> None:
    done = _study(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    output = tmp_path / "my-study"
    page = (output / "STUDY.md").read_text()
    assert page.startswith("# How much of mlp on digits can be pruned\n\n**")
    assert "Left out, to stay within the budget: full retraining, 4 of 7 shares, " in page
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits_mlp")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    assert len(runs) == 12  # the dense control of three criteria, and three shares of each
    assert {run.data.tags["mint.sweep"] for run in runs} == {"study"}

    network = next(output.glob("network-*"), None)
    assert (network is None) == ("**No measured share" in page)
    if network:
        built = subprocess.run(
            [sys.executable, "-c", "from network import build; build()"], cwd=network, check=False
        )
        assert built.returncode == 0

    files = [output / "plan.json", output / "trials.csv", *(output / "exports").iterdir()]
    before = {file: file.read_bytes() for file in files}
    again = _study(tmp_path)  # the same command runs no trial, and measures nothing twice
    assert again.returncode == 0
    assert "] mint-gaussian" not in again.stdout
    assert {file: file.read_bytes() for file in files} == before


@pytest.fixture
def measured(quick_trial: TrialConfig) -> list[TrialResult]:
    """Dense controls of a network that can lose half of its weights: one second an epoch."""
    count = quick_trial.experiment.retraining_settings("light").epochs
    epochs = [
        Epoch(epoch=number, loss=0.0, validation_accuracy=90.0, seconds=1.0)
        for number in range(1, count + 1)
    ]
    trained: Any = {"training": epochs, "seconds": 1.0 * count}
    step: Any = {"retraining": Retraining.model_construct(**trained)}
    fields: Any = {
        "config": quick_trial,
        "layers": (
            LayerCount(parent="fc1", name="fc2", weights=500, kept=500, reason=None),
            LayerCount(parent="fc2", name="fc3", weights=500, kept=500, reason="left out"),
        ),
        "counted_weights": 1000,
        "search_steps": (SearchStep.model_construct(**step),),
        "score_seconds": 1.0,
        "seconds": 15.0,
    }
    return [TrialResult.model_construct(**fields)] * 3


@pytest.mark.parametrize(
    ("budget", "retraining", "shares"),
    [(1e6, "full", 7), (1, "light", 3)],
)
def test_plan_fits_the_budget(
    measured: list[TrialResult], budget: float, retraining: str, shares: int
) -> None:
    plan = choose_plan(measured, 10.0, at_once=2, budget=budget)
    assert (plan.retraining, len(plan.shares)) == (retraining, shares)
    assert plan.shares[0] == 0.25  # half of what can be pruned
    assert bool(plan.left_out) == (budget == 1)
    assert (plan.seconds > budget) == (budget == 1)


def test_shares_stay_within_the_upper_limit(measured: list[TrialResult]) -> None:
    limited = measured[0].config.model_copy(update={"upper_limit": 0.3})
    result = measured[0].model_copy(update={"config": limited})
    plan = choose_plan([result], 10.0, at_once=2, budget=1e6)
    assert plan.shares[0] == 0.075
    assert max(plan.shares) <= 0.15


def test_longer_budgets_never_give_smaller_plans(measured: list[TrialResult]) -> None:
    sizes = []
    for budget in range(1, 2000, 50):
        plan = choose_plan(measured, 10.0, at_once=2, budget=budget)
        sizes.append((plan.retraining == "full", len(plan.shares)))
    assert sizes[0] < sizes[-1]
    assert all(one <= later for one, later in pairwise(sizes))


def test_seeds_fill_what_is_left_of_the_budget() -> None:
    counts = [affordable_seeds(3, seed=10.0, left=left) for left in (-5, 0, 30, 60, 1e4)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, len(SEEDS))
