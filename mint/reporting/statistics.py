"""Means of paired differences, and their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from mint.reporting.aggregate import NOT_RUN

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences with its interval of Student's t.

    Attributes:
        mean: percentage points.
        half_width: of the interval, percentage points; nan for a single pair.
    """

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


def half_width(values: Sequence[float]) -> float:
    """Return half the width of Student's interval of a mean; nan for a single value."""
    count = len(values)
    if count == 1:
        return math.nan
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
