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
    from mint.trial.api import FinishedTrial, run_experiment
    from mint.trial.in_memory import prune, score_network
    from mint.trial.table_row import read_records

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
    "read_records",
    "run_experiment",
    "score_network",
]

# Torch and pandas take seconds to import: each name is loaded when it is first asked for.
_HOMES = {
    "trial.api": ("FinishedTrial", "run_experiment"),
    "config.schema": ("Experiment", "load_experiment"),
    "errors": ("InputError", "TrainingDivergedError"),
    "gmi.estimator": ("conditional_gmi", "gmi_scores"),
    "pruning.masks": ("Masks", "apply_masks"),
    "pruning.scores": ("BlockScores",),
    "trial.table_row": ("read_records",),
    "trial.in_memory": ("prune", "score_network"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mint.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
