"""Criteria at the same budget: their accuracy, and how far it is from that of random blocks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import stdtrit

from mint.reporting.aggregate import NOT_RUN, Cell, criterion_order

REFERENCE = "random"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its interval of Student's t.

    Attributes:
        mean: percentage points.
        half_width: of the interval, percentage points; nan for a single pair.
    """

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Difference | None":
        """Return that of differences of one seed each; None of none."""
        return cls(float(np.mean(values)), half_width(values)) if len(values) else None

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width

    @property
    def interval(self) -> str:
        """The interval in words; empty for a single pair."""
        if math.isnan(self.half_width):
            return ""
        low, high = (self.mean + side * self.half_width for side in (-1, 1))
        return f"[{low:+z.2f}, {high:+z.2f}]"

    @property
    def told(self) -> str:
        """Mean and interval, starred where that leaves out 0."""
        mark = r" \*" if self.excludes_zero else ""
        return f"{self.mean:+z.2f} {self.interval}".strip() + mark


@dataclass(frozen=True)
class SpreadRatio:
    """How many times as large the standard deviation of one of two paired figures is.

    Attributes:
        value: the ratio.
        low: of its interval, that of the variances of two normal variables with any correlation
            (Pitman 1939, Morgan 1939).
        high: likewise.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> "SpreadRatio | None":
        """Return that of the first to the second.

        Args:
            first: figures of one seed each.
            second: of the same seeds.

        Returns:
            None for fewer than three seeds, or where all have the same figure.
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

    @property
    def excludes_one(self) -> bool:
        return not self.low <= 1 <= self.high


def told(difference: Difference | None) -> str:
    """Return a difference in words, or that it was not run."""
    return NOT_RUN if difference is None else difference.told


@dataclass(frozen=True)
class Setting:
    """What the criteria of one panel and its rows share, but for the share that is pruned.

    Of groups, samples_per_class and bootstraps a cell has 0 where its criterion does not depend on
    one, and then it stands beside those of every value.

    Attributes:
        upper_limit: as in the records.
        groups: of filters; 0 where no criterion depends on them, and so on.
        samples_per_class: likewise.
        bootstraps: that were asked for; likewise.
    """

    upper_limit: str
    groups: int
    samples_per_class: int
    bootstraps: int


@dataclass(frozen=True)
class Compared:
    """One criterion in one setting and at one budget.

    Attributes:
        setting: that it shares with others.
        fraction: of the counted weights that was asked for.
        criterion: its name.
        trials: their cell.
        against_random: accuracy less that of random blocks with the same seed; None where there
            are none, and for random blocks themselves.
    """

    setting: Setting
    fraction: str
    criterion: str
    trials: Cell
    against_random: Difference | None


def compare(cells: Sequence[Cell]) -> list[Compared]:
    """Hold the criteria of one protocol against each other.

    Args:
        cells: that prune a share that was given; those with no finished trial are left out.
    """
    return [
        Compared(
            setting=setting,
            fraction=fraction,
            criterion=cell.criterion,
            trials=cell,
            against_random=None
            if cell.criterion == REFERENCE
            else paired_difference(cell, [other for other in own if other.criterion == REFERENCE]),
        )
        for setting, fraction, own in _settings([cell for cell in cells if cell.finished])
        for cell in sorted(own, key=lambda cell: criterion_order(cell.criterion))
    ]


def paired_difference(
    trials: Cell, reference: Iterable[Cell], column: str = "accuracy"
) -> Difference | None:
    """Return how far a figure is from that of a reference with the same seed.

    Args:
        trials: a cell.
        reference: cells that hold the reference, a seed once.
        column: of the records, in percent.

    Returns:
        None where no seed is in both.
    """
    of_reference = {row["seed"]: row[column] for cell in reference for row in cell.finished}
    return Difference.of(
        [
            row[column] - of_reference[row["seed"]]
            for row in trials.finished
            if row["seed"] in of_reference
        ]
    )


def half_width(values: Sequence[float]) -> float:
    """Return that of the interval of Student's t of a mean; nan for a single value."""
    count = len(values)
    if count == 1:
        return math.nan
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)


def _settings(cells: Iterable[Cell]) -> Iterator[tuple[Setting, str, list[Cell]]]:
    """Yield the settings and budgets with the cells that belong to each."""
    budgets: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        budgets.setdefault((cell.upper_limit, cell.fraction), []).append(cell)
    for limit, fraction in sorted(budgets, key=lambda budget: tuple(map(_number, budget))):
        by_point: dict[tuple[int, ...], list[Cell]] = {}
        for cell in budgets[limit, fraction]:
            axes = (cell.groups, cell.samples_per_class, cell.bootstraps)
            by_point.setdefault(axes, []).append(cell)
        points = sorted(by_point)
        for point in points:
            # The axes of random blocks are some of MINT's: they make no setting of their own.
            if 0 in point and any(wider != point and _covers(wider, point) for wider in points):
                continue
            sharing = product(*({value, 0} for value in point))
            belongs = [cell for other in sharing for cell in by_point.get(other, [])]
            yield Setting(limit, *point), fraction, belongs


def _covers(wider: tuple[int, ...], point: tuple[int, ...]) -> bool:
    return all(own in (0, other) for own, other in zip(point, wider, strict=True))


def _number(limit: str) -> float:
    return -math.inf if limit == "none" else float(limit)
