"""Optuna draws the same trials whatever ends first, so that a search can resume."""

import random
from typing import Any

import pytest

from mint.config.grid import Grid
from mint.config.schema import TrialConfig
from mint.orchestration.search_spaces import (
    PARAMS_PRUNED,
    VALIDATION_ACCURACY,
    TunePlan,
    asha_plan,
    optuna_plan,
    trial_config,
)

SPACE = Grid(
    groups=(5, 10, 20),
    samples_per_class=(30, 50),
    upper_limits=("none", "0.99"),
    fractions=(0.8, 0.98),
)


def _plan(base: TrialConfig) -> TunePlan:
    return optuna_plan(base, SPACE, draws=12, max_concurrent_trials=3)


def _drawn(
    plan: TunePlan, order: random.Random, failing: int | None = None
) -> list[dict[str, Any]]:
    """Start trials as Ray Tune does, and end the running ones in a random order."""
    assert plan.searcher is not None
    drawn: list[dict[str, Any]] = []
    running: list[int] = []
    while len(drawn) < plan.samples or running:
        parameters = plan.searcher.suggest(str(len(drawn))) if len(drawn) < plan.samples else None
        if parameters is not None:
            running.append(len(drawn))
            drawn.append(parameters)
        elif running:
            ended = running.pop(order.randrange(len(running)))
            fraction = trial_config(drawn[ended]).fraction or 0
            result = {VALIDATION_ACCURACY: 100 - 50 * fraction**8, PARAMS_PRUNED: 100 * fraction}
            plan.searcher.on_trial_complete(
                str(ended), {"failed": "no"} if ended == failing else result
            )
    return drawn


def test_same_trials_whatever_ends_first(quick_trial: TrialConfig) -> None:
    drawn = [_drawn(_plan(quick_trial), random.Random(seed), failing=4) for seed in range(4)]
    assert all(other == drawn[0] for other in drawn)
    assert len({tuple(parameters.items()) for parameters in drawn[0]}) > 6


def test_other_seed_draws_other_trials(quick_trial: TrialConfig) -> None:
    other = quick_trial.model_copy(update={"seed": 1})
    assert _drawn(_plan(quick_trial), random.Random(0)) != _drawn(_plan(other), random.Random(0))


def test_parameters_describe_a_trial_of_the_space(quick_trial: TrialConfig) -> None:
    plan = _plan(quick_trial)
    assert plan.searcher is not None
    parameters = plan.searcher.suggest("0")
    assert parameters is not None
    config = trial_config(parameters)
    assert config.groups in SPACE.groups
    assert config.fraction is not None
    assert 0.8 <= config.fraction <= 0.98
    assert config.upper_limit in (None, 0.99)
    assert config.protocol == quick_trial.model_copy(update={"fraction": 0.5}).protocol


@pytest.mark.parametrize(("epochs", "first"), [(3, 1), (40, 4), (200, 20)])
def test_asha_stops_no_trial_before_a_tenth_of_its_epochs(
    quick_trial: TrialConfig, epochs: int, first: int
) -> None:
    best = [(epoch, 99.0) for epoch in range(1, epochs)]
    plan = asha_plan([quick_trial], epochs, [(f"known-{i}", best) for i in range(6)])
    assert plan.scheduler is not None
    trial: Any = type("Trial", (), {"trial_id": "new"})()
    controller: Any = None
    plan.scheduler.on_trial_add(controller, trial)
    decisions = [
        plan.scheduler.on_trial_result(
            controller, trial, {"epoch": epoch, VALIDATION_ACCURACY: 10.0}
        )
        for epoch in range(1, first + 1)
    ]
    assert decisions == ["CONTINUE"] * (first - 1) + ["STOP"]
