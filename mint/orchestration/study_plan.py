"""What a study runs in its budget of time, from trials that were measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mint.config.axes import Retraining
from mint.config.grid import Grid
from mint.trial.result import TrialResult

SEEDS = range(5)
_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)  # of the weights that can be pruned
_FEW_SHARES = (0.5, 0.8, 0.95)
# The first that leaves time for all seeds is taken: intervals of fewer are wide.
_CHOICES: Sequence[tuple[Retraining, Sequence[float]]] = (
    ("full", _SHARES),
    ("light", _SHARES),
    ("light", _FEW_SHARES),
)
# Seconds on two cores: Ray and MLflow start for each round of trials, and the tables are made.
ROUND_SECONDS = 12
_EXPORT_SECONDS = 1.0  # of a network: tracing it, and timing it twice
_TRIAL_SECONDS = 1.0  # of a short trial, beside its training and its scores
_NOISE = 1.15  # trials are slower side by side, and beside other work


@dataclass(frozen=True)
class StudyPlan:
    """Trials that a study runs for each of its seeds.

    Attributes:
        retraining: of the pruned networks.
        shares: of the counted weights.
        seconds: that all seeds are expected to take.
        left_out: what the budget does not allow.
        seeds: their number; 1 until the first one was measured.
    """

    retraining: Retraining
    shares: tuple[float, ...]
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()
    seeds: int = 1

    def grid(self, shared: Grid) -> Grid:
        """Return the trials, with the other axes of another grid."""
        return shared.model_copy(
            update={"fractions": self.shares, "retraining": (self.retraining,)}
        )


def choose_plan(
    measured: Sequence[TrialResult], baseline: float, at_once: int, budget: float
) -> StudyPlan:
    """Return the largest plan that fits a budget with all seeds; the smallest if none does.

    Args:
        measured: the dense control, retrained lightly, with the scores of each criterion.
        baseline: seconds that its training took.
        at_once: trials that run side by side.
        budget: of the whole study, in seconds.
    """
    control = measured[0].search_steps[-1].retraining
    epoch = median([each.seconds for each in control.training] or [0.0])
    scores = sum(result.score_seconds for result in measured)
    trained = baseline + control.seconds
    rest = max(
        _TRIAL_SECONDS,
        *(result.seconds - trained - result.score_seconds for result in measured),
    )
    settings = measured[0].config.experiment.retraining_settings
    spent = trained + scores / at_once + 3 * ROUND_SECONDS

    def seconds(kind: Retraining, shares: Sequence[float]) -> float:
        retrained = settings(kind).epochs * epoch
        trials = len(measured) * len(shares)
        seed = retrained + scores + trials * (retrained + rest)
        # One baseline of each seed, before anything else of it.
        baselines = len(SEEDS) * baseline / min(at_once, len(SEEDS))
        work = baselines + len(SEEDS) * seed / at_once
        return spent + work * _NOISE + trials * _EXPORT_SECONDS

    for kind, shares in _CHOICES:
        if seconds(kind, shares) <= budget:
            break
    left_out = [] if kind == "full" else ["full retraining"]
    if len(shares) < len(_SHARES):
        left_out.append(f"{len(_SHARES) - len(shares)} of {len(_SHARES)} shares")
    # Rounded down: the largest share is a limit.
    largest = _largest_share(measured[0])
    of_counted = tuple(math.floor(1e4 * share * largest) / 1e4 for share in shares)
    return StudyPlan(kind, of_counted, seconds(kind, shares), tuple(left_out))


def affordable_seeds(networks: int, seed: float, left: float) -> int:
    """Return how many seeds fit a budget in all.

    Args:
        networks: number that are exported at the end.
        seed: seconds that a further one takes.
        left: of the budget after the first one, in seconds.
    """
    left -= ROUND_SECONDS + networks * _EXPORT_SECONDS
    return min(len(SEEDS), 1 + max(0, int(left / (seed * _NOISE))))


def _largest_share(measured: TrialResult) -> float:
    """Return the share of the counted weights that the upper limits allow to prune."""
    allowed = 0.0
    for layer in measured.layers:
        if layer.reason is None:
            limit = measured.config.limit_of(layer.name)
            allowed += layer.weights * (1.0 if limit is None else limit)
    return allowed / measured.counted_weights
