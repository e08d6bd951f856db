"""A search draws the same trials whatever ends first, so one that was stopped carries on."""

import random
from typing import Any

from mint.config.schema import TrialConfig
from mint.orchestration.search_spaces import (
    PARAMS_PRUNED,
    VALIDATION_ACCURACY,
    Plan,
    config_of,
    optuna_plan,
)

AXES: dict[str, list[Any]] = {
    "groups": [5, 10, 20],
    "samples_per_class": [30, 50],
    "upper_limit": ["none", "0.99"],
    "bootstraps": [None],
}


def _plan(quick_trial: TrialConfig) -> Plan:
    return optuna_plan(quick_trial, AXES, (0.8, 0.98), trials=12, at_once=3)


def _drawn(plan: Plan, order: random.Random, failing: int | None = None) -> list[dict[str, Any]]:
    """Play Ray Tune: start what is drawn, and end the running trials in a random order."""
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
            fraction = drawn[ended]["fraction"]
            result = {VALIDATION_ACCURACY: 100 - 50 * fraction**8, PARAMS_PRUNED: 100 * fraction}
            told = {"failed": "no"} if ended == failing else result
            plan.searcher.on_trial_complete(str(ended), told)
    return drawn


def test_same_trials_whatever_ends_first(quick_trial: TrialConfig) -> None:
    drawn = [_drawn(_plan(quick_trial), random.Random(seed), failing=4) for seed in range(4)]
    assert all(other == drawn[0] for other in drawn)
    assert len({tuple(parameters.items()) for parameters in drawn[0]}) > 6


def test_other_seed_draws_other_trials(quick_trial: TrialConfig) -> None:
    other = quick_trial.model_copy(update={"seed": 1})
    assert _drawn(_plan(quick_trial), random.Random(0)) != _drawn(_plan(other), random.Random(0))


def test_what_is_drawn_is_a_trial(quick_trial: TrialConfig) -> None:
    plan = _plan(quick_trial)
    assert plan.searcher is not None
    parameters = plan.searcher.suggest("0")
    assert parameters is not None
    config = config_of(parameters, plan.base)
    assert config.groups in AXES["groups"]
    assert config.fraction is not None
    assert 0.8 <= config.fraction <= 0.98
    assert config.upper_limit in (None, 0.99)
    assert config.protocol == quick_trial.model_copy(update={"fraction": 0.5}).protocol
