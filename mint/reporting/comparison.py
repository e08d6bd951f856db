"""Criteria at the same pruned fraction, and their distance from random blocks."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from mint.reporting.aggregate import SeedGroup, order_of_criteria
from mint.reporting.statistics import Difference

CONTROL = "random"


@dataclass(frozen=True)
class SharedAxes:
    """The axes that compared criteria share, besides the fraction.

    An axis is 0 if no compared criterion uses it. A criterion that does not use an axis is
    compared at all its values.
    """

    upper_limit: str
    groups: int
    samples_per_class: int
    bootstraps: int


@dataclass(frozen=True)
class ComparedCriterion:
    """One criterion at one fraction.

    Attributes:
        axes: shared with the criteria that it is compared with.
        trials: its seed group.
        against_random: accuracy minus that of random blocks with the same seed; None without
            such, and for random blocks themselves.
    """

    axes: SharedAxes
    trials: SeedGroup
    against_random: Difference | None


def compare_criteria(groups: Iterable[SeedGroup]) -> list[ComparedCriterion]:
    """Compare the criteria of one protocol at every given fraction.

    Searches are left out, for each finds a fraction of its own. One criterion alone is not
    compared.
    """
    given = [group for group in groups if group.finished and group.fraction != "none"]
    if len({group.criterion for group in given}) < 2:
        return []
    return [
        ComparedCriterion(
            axes=axes,
            trials=group,
            against_random=None
            if group.criterion == CONTROL
            else paired_difference(group, [other for other in own if other.criterion == CONTROL]),
        )
        for axes, own in _comparable(given)
        for group in sorted(own, key=lambda group: order_of_criteria(group.criterion))
    ]


def paired_difference(
    trials: SeedGroup, reference: Iterable[SeedGroup], column: str = "accuracy"
) -> Difference | None:
    """Return the difference of a column to a reference with the same seeds.

    Args:
        trials: a seed group.
        reference: seed groups in which each seed is once.
        column: of the trial table, in percent.

    Returns:
        None if no seed is in both.
    """
    of_reference = {row["seed"]: row[column] for group in reference for row in group.finished}
    return Difference.of(
        [
            row[column] - of_reference[row["seed"]]
            for row in trials.finished
            if row["seed"] in of_reference
        ]
    )


def _comparable(groups: Iterable[SeedGroup]) -> Iterator[tuple[SharedAxes, list[SeedGroup]]]:
    """Yield shared axes with the seed groups of one fraction that can be compared at them."""
    budgets: dict[tuple[str, str], list[SeedGroup]] = {}
    for group in groups:
        budgets.setdefault((group.upper_limit, group.fraction), []).append(group)
    for limit, fraction in sorted(budgets, key=lambda budget: tuple(map(_as_number, budget))):
        by_point: dict[tuple[int, int, int], list[SeedGroup]] = {}
        for group in budgets[limit, fraction]:
            point = (group.groups, group.samples_per_class, group.bootstraps)
            by_point.setdefault(point, []).append(group)
        points = sorted(by_point)
        for point in points:
            # The axes that random blocks use are some of MINT's: no comparison of their own.
            if 0 in point and any(wider != point and _covers(wider, point) for wider in points):
                continue
            sharing = set(product(*({value, 0} for value in point)))
            own = [group for other in points if other in sharing for group in by_point[other]]
            yield SharedAxes(limit, *point), own


def _covers(wider: tuple[int, ...], point: tuple[int, ...]) -> bool:
    return all(own in (0, other) for own, other in zip(point, wider, strict=True))


def _as_number(limit: str) -> float:
    return -math.inf if limit == "none" else float(limit)
