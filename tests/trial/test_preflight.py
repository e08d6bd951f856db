"""The memory of the estimator is checked before anything is trained, and changes no key."""

import re

import numpy as np
import pytest

from mint.config.estimate import EstimateConfig
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError
from mint.gmi.estimator import gmi_scores
from mint.gmi.memory import least_memory
from mint.machine import memory_bytes
from mint.models.layers import chosen_pairs
from mint.trial.preflight import check_data, estimator_bytes, trace_network


def _with(config: TrialConfig, **estimate: object) -> TrialConfig:
    settings = EstimateConfig(**{**config.estimate.model_dump(), **estimate})
    experiment = config.experiment.model_copy(update={"estimate": settings})
    return config.model_copy(update={"experiment": experiment})


def test_scores_that_do_not_fit_are_refused(quick_trial: TrialConfig, digits: Source) -> None:
    traced = trace_network(quick_trial.experiment, (1, 8, 8))
    check_data([quick_trial], digits.facts, traced)
    rows = digits.classes * quick_trial.samples_per_class
    needed = 0
    for pair in chosen_pairs(traced, quick_trial.experiment):
        filters = pair.child_filters, pair.parent_filters
        groups = quick_trial.groups, quick_trial.groups
        needed = max(needed, least_memory(rows, filters, groups))
    check_data([_with(quick_trial, memory_gb=(needed + 1) / 1e9)], digits.facts, traced)
    with pytest.raises(InputError, match=r"raise estimate.memory_gb") as error:
        check_data([_with(quick_trial, memory_gb=(needed - 1) / 1e9)], digits.facts, traced)
    assert error.value.parameter == "samples_per_class"
    with pytest.raises(InputError, match=r"estimate.memory_gb \S+: allowed are at most"):
        check_data([_with(quick_trial, memory_gb=1e6)], digits.facts, traced)
    at_once = memory_bytes() // needed  # each has half of its share
    with pytest.raises(InputError, match="take fewer samples or trials at a time"):
        check_data([quick_trial], digits.facts, traced, at_once)


@pytest.mark.parametrize("groups", [(2, 3), (7, 1)])
def test_least_memory_is_what_the_estimator_needs(groups: tuple[int, int]) -> None:
    layers = (np.random.default_rng(0).normal(size=(100, filters)) for filters in (9, 20))
    child, parent = layers
    least = least_memory(100, (9, 20), groups)
    gmi_scores(child, parent, *groups, memory_limit=least)
    with pytest.raises(ValueError, match=re.escape(f"at least {least} bytes")):
        gmi_scores(child, parent, *groups, memory_limit=least - 1)


def test_memory_of_the_estimator_belongs_to_no_key(quick_trial: TrialConfig) -> None:
    more = _with(quick_trial, memory_gb=3.0)
    assert estimator_bytes(more, 5) == 3_000_000_000
    assert estimator_bytes(quick_trial, 4) == memory_bytes() // 8
    assert (more.key, more.protocol) == (quick_trial.key, quick_trial.protocol)
    assert more.scores_key("fc2") == quick_trial.scores_key("fc2")
