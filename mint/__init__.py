"""Mutual-information-based neuron trimming (MINT), and sweeps whose results can be trusted."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mint.config.loading import load_experiment
    from mint.config.schema import Experiment
    from mint.errors import InputError, TrainingDivergedError
    from mint.gmi.estimator import conditional_gmi, gmi_scores
    from mint.pruning.masks import Masks, apply_masks
    from mint.pruning.scores import BlockScores
    from mint.reporting.trials_csv import read_trials
    from mint.trial.api import FinishedTrial, run_experiment
    from mint.trial.in_memory import prune, score_network

# Torch and pandas take seconds to import: each name is imported when it is first used.
_MODULES = {
    "BlockScores": "pruning.scores",
    "Experiment": "config.schema",
    "FinishedTrial": "trial.api",
    "InputError": "errors",
    "Masks": "pruning.masks",
    "TrainingDivergedError": "errors",
    "apply_masks": "pruning.masks",
    "conditional_gmi": "gmi.estimator",
    "gmi_scores": "gmi.estimator",
    "load_experiment": "config.loading",
    "prune": "trial.in_memory",
    "read_trials": "reporting.trials_csv",
    "run_experiment": "trial.api",
    "score_network": "trial.in_memory",
}
__all__ = [
    "BlockScores",
    "Experiment",
    "FinishedTrial",
    "InputError",
    "Masks",
    "TrainingDivergedError",
    "apply_masks",
    "conditional_gmi",
    "gmi_scores",
    "load_experiment",
    "prune",
    "read_trials",
    "run_experiment",
    "score_network",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mint.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
