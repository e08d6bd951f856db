"""What the figures of a few seeds allow to say: intervals, differences and equivalence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
FEWEST_SEEDS = 3  # of an interval
FEWEST_SEEDS_OF_RATIO = 8  # of an interval of a ratio of spreads
# Half-widths within which figures count as equal, in percentage points.
MARGIN_OF_ACCURACY, MARGIN_OF_SHARE = 0.2, 0.5


def spread(values: Sequence[float] | NDArray[np.float64], resolution: float = 0.0) -> float:
    """Return the standard deviation of values, at least their resolution; nan for one value."""
    if len(values) < 2:
        return math.nan
    return max(float(np.std(values, ddof=1)), resolution)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, one for each seed, in percentage points.

    Attributes:
        mean: over the seeds.
        error: standard error of the mean; nan for fewer than three seeds or equal values.
        seeds: number of pairs.
        margin: differences within it, on either side of 0, count as none.
    """

    mean: float
    error: float
    seeds: int
    margin: float = MARGIN_OF_ACCURACY

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        resolution: float = 0.0,
        margin: float = MARGIN_OF_ACCURACY,
    ) -> "Difference | None":
        """Return the difference of values, one for each seed; None if there are none.

        Args:
            values: differences of paired figures (percentage points).
            resolution: least standard deviation (percentage points), one image of the test set.
            margin: of equivalence, raised to twice the resolution.
        """
        if not len(values):
            return None
        deviation = spread(values, resolution) if len(values) >= FEWEST_SEEDS else math.nan
        error = deviation / math.sqrt(len(values)) if deviation > 0 else math.nan
        return cls(float(np.mean(values)), error, len(values), max(margin, 2 * resolution))

    def half_width(self, confidence: float = CONFIDENCE) -> float:
        """Return half the width of Student's interval of the mean; nan without an error."""
        return float(stdtrit(self.seeds - 1, (1 + confidence) / 2)) * self.error

    @property
    def p_value(self) -> float:
        """The p-value of Student's two-sided test against 0; nan without an error."""
        if math.isnan(self.error):
            return math.nan
        return 2 * float(stdtr(self.seeds - 1, -abs(self.mean) / self.error))

    @property
    def is_equivalent(self) -> bool:
        """Whether two one-sided tests, at 5% each, place the mean within the margin."""
        return abs(self.mean) + self.half_width(2 * CONFIDENCE - 1) < self.margin

    @property
    def interval(self) -> str:
        """The interval as text; empty without an error."""
        if math.isnan(self.error):
            return ""
        low, high = (self.mean + side * self.half_width() for side in (-1, 1))
        return f"[{low:+z.2f}, {high:+z.2f}]"

    def __str__(self) -> str:
        return f"{self.mean:+z.2f} {self.interval}".strip()

    def verdict(self, differs: bool, words: tuple[str, str]) -> str:
        """Return what may be said: the word for more or less, an equivalence, or not settled.

        differs comes from holm().
        """
        if differs:
            return words[self.mean < 0]
        if self.is_equivalent:
            return f"equivalent within {self.margin:.2g}"
        return "not settled"


Cell = str | Difference | None
"""Of a table: text, a difference, or None for what was not run."""


def holm(differences: Sequence[Difference]) -> list[bool]:
    """Return which differences are not 0, after Holm's correction for their number."""
    known = [each for each in differences if not math.isnan(each.p_value)]
    ordered = sorted(each.p_value for each in known)
    least = math.inf  # the smallest p-value that fails, with all above it
    for at, p_value in enumerate(ordered):
        if p_value > (1 - CONFIDENCE) / (len(ordered) - at):
            least = p_value
            break
    return [each.p_value < least for each in differences]


def differing(rows: Sequence[Sequence[Cell]]) -> dict[Difference, bool]:
    """Return for the differences of a table whether they are not 0, by Holm's correction within it.

    A comparison that stands in several rows counts once.
    """
    cells = (cell for row in rows for cell in row if isinstance(cell, Difference))
    differences = list(dict.fromkeys(cells))
    return dict(zip(differences, holm(differences), strict=True))


def marked(rows: Sequence[Sequence[Cell]], not_run: str) -> list[list[str]]:
    r"""Return the cells of a table as text, its differences with a mark where one is due.

    A star (\*) is a difference after Holm's correction within the table, = an equivalence.
    """
    differs = differing(rows)

    def text(cell: Cell) -> str:
        if not isinstance(cell, Difference):
            return not_run if cell is None else cell
        star = r" \*" if differs[cell] else ""
        return f"{cell}{star}{' =' if cell.is_equivalent else ''}"

    return [[text(cell) for cell in row] for row in rows]


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
        """Return the ratio of the first to the second, figures of the same seeds.

        None for fewer than eight seeds, or if all figures of one are equal.
        """
        if len(first) < FEWEST_SEEDS_OF_RATIO or 0 in (np.ptp(first), np.ptp(second)):
            return None
        free = len(first) - 2
        ratio = float(np.std(first) / np.std(second))
        correlation = float(np.corrcoef(first, second)[0, 1])
        quantile = float(stdtrit(free, (1 + CONFIDENCE) / 2))
        middle = 1 + 2 * (1 - correlation**2) * quantile**2 / free
        factor = math.sqrt(middle + math.sqrt(middle**2 - 1))
        return cls(ratio, ratio / factor, ratio * factor)
