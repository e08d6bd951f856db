"""Criteria at the same pruned fraction, and paired differences with their intervals."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mint.reporting.aggregate import NOT_RUN, SeedGroup, order_of_criteria

CONFIDENCE = 0.95
CONTROL = "random"


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences with half its interval of Student's t, in percentage points."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Difference | None":
        """Return the difference of values, one per seed; None if there are none."""
        return cls(float(np.mean(values)), half_width(values)) if len(values) else None

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width

    @property
    def interval(self) -> str:
        """The interval as text; empty for a single pair."""
        if math.isnan(self.half_width):
            return ""
        low, high = (self.mean + side * self.half_width for side in (-1, 1))
        return f"[{low:+z.2f}, {high:+z.2f}]"


def format_difference(difference: Difference | None) -> str:
    """Return mean and interval as a cell of a table, with a star if the interval excludes 0."""
    if difference is None:
        return NOT_RUN
    star = r" \*" if difference.excludes_zero else ""
    return f"{difference.mean:+z.2f} {difference.interval}".strip() + star


def half_width(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return half the width of Student's interval of a mean; nan for a single value."""
    count = len(values)
    if count == 1:
        return math.nan
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)


class SharedAxes(NamedTuple):
    """The axes that compared criteria share; 0 for an axis that none of them uses."""

    upper_limit: str
    groups: int
    samples_per_class: int
    bootstraps: int


@dataclass(frozen=True)
class ComparedCriterion:
    """The trials of a criterion at one fraction, among those that share axes with them.

    against_random is their accuracy minus that of random blocks with the same seed; None without
    such, and for random blocks themselves.
    """

    axes: SharedAxes
    trials: SeedGroup
    against_random: Difference | None


def compare_criteria(groups: Iterable[SeedGroup]) -> list[ComparedCriterion]:
    """Compare the criteria of one protocol at every given fraction; nothing for one criterion.

    A criterion that does not use an axis is compared at all values of the axis.
    """
    given = [group for group in groups if group.finished and group.fraction != "none"]
    if len({group.criterion for group in given}) < 2:
        return []
    compared = []
    for axes, own in _comparable(given):
        control = [group for group in own if group.criterion == CONTROL]
        for group in sorted(own, key=lambda group: order_of_criteria(group.criterion)):
            against = None if group.criterion == CONTROL else paired_difference(group, control)
            compared.append(ComparedCriterion(axes, group, against))
    return compared


def paired_difference(
    trials: SeedGroup, reference: Iterable[SeedGroup], column: str = "accuracy"
) -> Difference | None:
    """Return the difference of a column to groups with the same seeds; None without such."""
    of_reference = {row["seed"]: row[column] for group in reference for row in group.finished}
    shared = [row for row in trials.finished if row["seed"] in of_reference]
    return Difference.of([row[column] - of_reference[row["seed"]] for row in shared])


def _comparable(groups: Iterable[SeedGroup]) -> Iterator[tuple[SharedAxes, list[SeedGroup]]]:
    """Yield shared axes with the seed groups of one fraction that can be compared at them."""
    budgets: dict[tuple[float, float], list[SeedGroup]] = defaultdict(list)
    for group in groups:
        limit = float(group.upper_limit.replace("none", "-inf"))
        budgets[limit, float(group.fraction)].append(group)
    for _, of_budget in sorted(budgets.items()):
        by_point: dict[tuple[int, int, int], list[SeedGroup]] = defaultdict(list)
        for group in of_budget:
            by_point[group.groups, group.samples_per_class, group.bootstraps].append(group)
        points = sorted(by_point)
        for point in points:
            # The axes that random blocks use are some of MINT's: no comparison of their own.
            if any(wider != point and point in _narrowed(wider) for wider in points):
                continue
            sharing = _narrowed(point)
            own = [group for other in points if other in sharing for group in by_point[other]]
            yield SharedAxes(of_budget[0].upper_limit, *point), own


def _narrowed(point: tuple[int, int, int]) -> set[tuple[int, ...]]:
    """Return the point, and those at which some of its axes are not used."""
    return set(product(*({value, 0} for value in point)))
