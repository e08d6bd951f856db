"""Functions that a trial calls while it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mint.data.checks import OnCheck
from mint.models.layers import LayerPair
from mint.training.epoch import Epoch
from mint.trial.result import LayerScoring, SearchStep


def _ignore(*_: object) -> None:
    """Ignore a report."""


@dataclass(frozen=True)
class TrialCallbacks:
    """Functions that report a trial's progress.

    Attributes:
        on_epoch: gets the stage (baseline or retraining), the epoch and the number of epochs.
        on_layer_scores: the scores of every layer, new or found finished.
        on_bootstrap: a pair, the number of its bootstraps so far (from 0) and of all, and the work
            of the pairs after it, as a multiple of its own.
        on_search_step: every step of a search.
        on_check: the number of images checked so far, and of all.
    """

    on_epoch: Callable[[str, Epoch, int], None] = _ignore
    on_layer_scores: Callable[[LayerScoring], None] = _ignore
    on_bootstrap: Callable[[LayerPair, int, int, float], None] = _ignore
    on_search_step: Callable[[SearchStep], None] = _ignore
    on_check: OnCheck = _ignore


def work_after(
    pair: LayerPair, pairs: Sequence[LayerPair], groups_of: Callable[[str, int], int]
) -> float:
    """Return the number of blocks of the pairs after one, as a multiple of its own."""
    blocks = [
        groups_of(each.child, each.child_filters) * groups_of(each.parent, each.parent_filters)
        for each in pairs
    ]
    at = pairs.index(pair)
    return sum(blocks[at + 1 :]) / blocks[at]
