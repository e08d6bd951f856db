"""What a study runs in its budget of time, from trials that were measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mint.config.axes import Retraining
from mint.config.grid import Grid
from mint.trial.result import Baseline, TrialResult

SEEDS = range(5)
_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)  # of the weights that can be pruned
_FEW_SHARES = (0.5, 0.8, 0.95)
# The first that leaves time for an interval, that is for three seeds, is taken.
_CHOICES: Sequence[tuple[Retraining, Sequence[float]]] = (
    ("full", _SHARES),
    ("light", _SHARES),
    ("light", _FEW_SHARES),
)
_FEWEST_SEEDS = 3
# Seconds on two cores: Ray and MLflow start for each round of trials, and the tables are made.
_ROUND_SECONDS = 12
_EXPORT_SECONDS = 1.5  # of a network: tracing it, and timing it twice
_NOISE = 1.15  # trials are slower side by side, and beside other work


@dataclass(frozen=True)
class StudyPlan:
    """Trials that a study runs for each of its seeds.

    Attributes:
        retraining: of the pruned networks.
        shares: of the counted weights.
        left_out: what the budget does not allow.
        seeds: their number; 1 until the first one was measured.
    """

    retraining: Retraining
    shares: tuple[float, ...]
    left_out: tuple[str, ...] = ()
    seeds: int = 1

    def grid(self, shared: Grid) -> Grid:
        """Return the trials, with the other axes of another grid."""
        return shared.model_copy(
            update={"fractions": self.shares, "retraining": (self.retraining,)}
        )


def choose_plan(
    measured: TrialResult, baseline: Baseline, criteria: int, at_once: int, budget: float
) -> StudyPlan:
    """Return the largest plan of which three seeds fit a budget; the least if none does.

    Args:
        measured: the dense control, retrained lightly, with scores.
        baseline: of that trial.
        criteria: number that are compared; their scores are taken to cost the same.
        at_once: trials that run side by side.
        budget: of the whole study, in seconds.
    """
    largest = _largest_share(measured)
    retraining = measured.search_steps[-1].retraining
    epoch = retraining.seconds / max(1, len(retraining.training))
    experiment = measured.config.experiment
    rest = measured.seconds - baseline.seconds - measured.score_seconds - retraining.seconds

    def seconds(kind: Retraining, shares: Sequence[float]) -> float:
        retrained = experiment.retraining_settings(kind).epochs * epoch
        trials = criteria * len(shares)
        seed = baseline.seconds + retrained + criteria * measured.score_seconds
        seed += trials * (retrained + max(0.3, rest))
        exports = trials * _EXPORT_SECONDS
        spent = measured.seconds + 3 * _ROUND_SECONDS
        return spent + _FEWEST_SEEDS * seed * _NOISE / at_once + exports

    fitting = (choice for choice in _CHOICES if seconds(*choice) <= budget)
    return _plan(*next(fitting, _CHOICES[-1]), largest)


def affordable_seeds(plan: StudyPlan, criteria: int, seed: float, left: float) -> int:
    """Return how many seeds fit a budget in all.

    Args:
        plan: of the trials of a seed.
        criteria: number that are compared.
        seed: seconds that the first one took.
        left: of the budget, in seconds.
    """
    exports = criteria * len(plan.shares) * _EXPORT_SECONDS
    return min(len(SEEDS), 1 + max(0, int((left - _ROUND_SECONDS - exports) / (seed * _NOISE))))


def _largest_share(measured: TrialResult) -> float:
    """Return the share of the counted weights that the upper limits allow to prune."""
    allowed = 0.0
    for layer in measured.layers:
        if layer.reason is None:
            limit = measured.config.limit_of(layer.name)
            allowed += layer.weights * (1.0 if limit is None else limit)
    return allowed / measured.counted_weights


def _plan(kind: Retraining, shares: Sequence[float], largest: float) -> StudyPlan:
    left_out = []
    if kind != "full":
        left_out.append("full retraining")
    if len(shares) < len(_SHARES):
        left_out.append(f"{len(_SHARES) - len(shares)} of {len(_SHARES)} shares")
    return StudyPlan(
        kind, tuple(math.floor(1e4 * share * largest) / 1e4 for share in shares), tuple(left_out)
    )
