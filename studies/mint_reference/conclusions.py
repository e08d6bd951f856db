"""Differences in words: what their intervals allow to say, and no more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from mint.reporting.aggregate import NOT_RUN, SeedGroup
from mint.reporting.comparison import CONFIDENCE, Difference, paired_difference

PRUNED, ACCURACY = "params_pruned", "accuracy"
NOTHING = "Not run: the trial table has no trials of it."
_CERTAIN, _UNCERTAIN = "a difference", "no difference that these seeds can show"


@dataclass(frozen=True)
class DeviationRatio:
    """Ratio of the standard deviations of two paired figures.

    Attributes:
        value: the ratio.
        low: lower end of its interval, for the variances of two normal variables with any
            correlation (Pitman 1939, Morgan 1939).
        high: upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> "DeviationRatio | None":
        """Return the ratio of the first to the second.

        Args:
            first: one figure per seed.
            second: for the same seeds.

        Returns:
            None for fewer than three seeds, or if all figures of one are equal.
        """
        free = len(first) - 2
        if free < 1 or 0 in (np.ptp(first), np.ptp(second)):
            return None
        ratio = float(np.std(first) / np.std(second))
        correlation = float(np.corrcoef(first, second)[0, 1])
        quantile = float(stdtrit(free, (1 + CONFIDENCE) / 2))
        middle = 1 + 2 * (1 - correlation**2) * quantile**2 / free
        factor = math.sqrt(middle + math.sqrt(middle**2 - 1))
        return cls(ratio, ratio / factor, ratio * factor)


def by_seed(group: SeedGroup, column: str) -> dict[int, float]:
    """Return a column of the finished trials by their seed."""
    return {row["seed"]: row[column] for row in group.finished}


def paired(group: SeedGroup | None, reference: SeedGroup | None, column: str) -> Difference | None:
    """Return the difference of two seed groups; None without one of them."""
    return paired_difference(group, [reference], column) if group and reference else None


def against_line(
    group: SeedGroup, low: SeedGroup, high: SeedGroup, weight: float
) -> Difference | None:
    """Return the difference of params pruned to the line between two groups, by common seeds."""
    own, first, last = (by_seed(each, PRUNED) for each in (group, low, high))
    shared = sorted(own.keys() & first.keys() & last.keys())
    return Difference.of(
        [own[seed] - (1 - weight) * first[seed] - weight * last[seed] for seed in shared]
    )


def outcome(difference: Difference | None) -> str:
    """Return better, worse or even."""
    if difference is None or not difference.excludes_zero:  # a comparison with nan is false
        return "even"
    return "better" if difference.mean > 0 else "worse"


def describe(difference: Difference | None, than: str = "") -> str:
    """Return a difference of percentage points in words."""
    if difference is None:
        return NOT_RUN
    mean = float(np.round(difference.mean, 2))
    words = f"{abs(mean):.2f} points {'more' if mean >= 0 else 'less'} {than}".strip()
    if math.isnan(difference.half_width):
        return f"{words} (one seed: no certainty)"
    return f"{words} {difference.interval}, {_CERTAIN if difference.excludes_zero else _UNCERTAIN}"


def compare_deviations(group: SeedGroup, reference: SeedGroup) -> list[str]:
    """Return a sentence on the standard deviations of test accuracy; nothing for too few seeds."""
    own, others = by_seed(group, ACCURACY), by_seed(reference, ACCURACY)
    shared = sorted(own.keys() & others.keys())
    ratio = DeviationRatio.of([own[seed] for seed in shared], [others[seed] for seed in shared])
    if ratio is None:
        return []
    certain = _UNCERTAIN if ratio.low <= 1 <= ratio.high else _CERTAIN
    return [
        f"Its standard deviation over seeds is {ratio.value:.2f} times as large "
        f"[{ratio.low:.2f}, {ratio.high:.2f}], {certain}."
    ]


def section(question: str, background: str, answer: Sequence[str]) -> list[str]:
    """Return a section of PUZZLES.md; without an answer it says that nothing was run."""
    return ["", f"## {question}", "", background, *(answer or ["", NOTHING])]
