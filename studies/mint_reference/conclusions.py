"""Differences in words: what their intervals allow to say, and no more."""

from collections.abc import Sequence

import numpy as np

from mint.reporting.aggregate import NOT_RUN, SeedGroup, format_count
from mint.reporting.statistics import (
    MARGIN_OF_ACCURACY,
    MARGIN_OF_SHARE,
    DeviationRatio,
    Difference,
    holm,
)

PRUNED, ACCURACY = "params_pruned", "accuracy"
NOTHING = "Not run: the trial table has no trials of it."
_CERTAIN = "a difference"


def by_seed(group: SeedGroup, column: str) -> dict[int, float]:
    """Return a column of the finished trials by their seed."""
    return {row["seed"]: row[column] for row in group.finished}


def paired(group: SeedGroup | None, reference: SeedGroup | None, column: str) -> Difference | None:
    """Return the difference of two seed groups; None without one of them."""
    if not group or not reference:
        return None
    own, others = by_seed(group, column), by_seed(reference, column)
    shared = sorted(own.keys() & others.keys())
    of_accuracy = column == ACCURACY
    return Difference.of(
        [own[seed] - others[seed] for seed in shared],
        group.resolution if of_accuracy else 0.0,
        MARGIN_OF_ACCURACY if of_accuracy else MARGIN_OF_SHARE,
    )


def against_line(
    group: SeedGroup, low: SeedGroup, high: SeedGroup, weight: float
) -> Difference | None:
    """Return the difference of params pruned to the line between two groups, by common seeds."""
    own, first, last = (by_seed(each, PRUNED) for each in (group, low, high))
    shared = sorted(own.keys() & first.keys() & last.keys())
    return Difference.of(
        [own[seed] - (1 - weight) * first[seed] - weight * last[seed] for seed in shared],
        margin=MARGIN_OF_SHARE,
    )


def outcomes(differences: Sequence[Difference | None]) -> list[str]:
    """Return better, worse or even for each difference, after Holm's correction for all."""
    differing = iter(holm([each for each in differences if each]))
    return [
        each.verdict(True, ("better", "worse")) if each and next(differing) else "even"
        for each in differences
    ]


def describe(difference: Difference | None, than: str = "") -> str:
    """Return a difference of percentage points in words."""
    if difference is None:
        return NOT_RUN
    mean = float(np.round(difference.mean, 2))
    words = f"{abs(mean):.2f} points {'more' if mean >= 0 else 'less'} {than}".strip()
    if not difference.interval:
        return f"{words} ({format_count(difference.seeds, 'seed')}: no interval)"
    verdict = difference.verdict(holm([difference])[0], (_CERTAIN, _CERTAIN))
    return f"{words} {difference.interval}, {verdict}"


def compare_deviations(group: SeedGroup, reference: SeedGroup) -> list[str]:
    """Return a sentence on the standard deviations of test accuracy; nothing for too few seeds."""
    own, others = by_seed(group, ACCURACY), by_seed(reference, ACCURACY)
    shared = sorted(own.keys() & others.keys())
    ratio = DeviationRatio.of([own[seed] for seed in shared], [others[seed] for seed in shared])
    if ratio is None:
        return []
    certain = "not settled" if ratio.low <= 1 <= ratio.high else _CERTAIN
    return [
        f"Its standard deviation over seeds is {ratio.value:.2f} times as large "
        f"[{ratio.low:.2f}, {ratio.high:.2f}], {certain}."
    ]


def section(question: str, background: str, answer: Sequence[str]) -> list[str]:
    """Return a section of PUZZLES.md; without an answer it says that nothing was run."""
    return ["", f"## {question}", "", background, *(answer or ["", NOTHING])]
