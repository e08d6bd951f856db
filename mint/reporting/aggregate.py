"""Seed groups: trials that differ only in their seed, and their figures as text."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mint.config.axes import Compensate, Grouping
from mint.config.schema import CRITERIA
from mint.reporting.statistics import spread
from mint.reporting.trials_csv import AXES, Row, records

NOT_RUN, NO_RESULT = "not run", "no result"
REGIMES = ("full", "light", "none")
GROUPINGS: tuple[str, ...] = get_args(Grouping)
COMPENSATIONS: tuple[str, ...] = get_args(Compensate)
SHARE, ACCURACY = "share_at_margin", "accuracy"
_OF_TEST_IMAGES = {ACCURACY, "baseline_accuracy", "dense_accuracy", "accuracy_drop"}


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Trials that differ only in their seed: the columns that they share, and their rows.

    margin is None for a given fraction, and for a search without a margin.
    """

    experiment: str
    protocol: str
    margin: float | None
    retraining: str
    upper_limit: str
    groups: int
    grouping: str
    samples_per_class: int
    fraction: str
    criterion: str
    bootstraps: int
    compensate: str
    rows: Sequence[Row]

    @cached_property
    def finished(self) -> list[Row]:
        """The trials that have a result."""
        return [row for row in self.rows if row["status"] == "finished"]

    def values(self, column: str) -> NDArray[np.float64]:
        """Return a column of the finished trials, without missing figures."""
        values = np.array([row[column] for row in self.finished], np.float64)
        return values[~np.isnan(values)]

    @cached_property
    def comparable(self) -> dict[tuple[str, int], float]:
        """The figures to compare, by column and seed.

        They are the accuracies at a given fraction, or the shares that a margin, and no limit, set.
        """
        if self.fraction != "none":
            return {(ACCURACY, row["seed"]): row[ACCURACY] for row in self.finished}
        free = (row for row in self.finished if not row["share_bound"] and not np.isnan(row[SHARE]))
        return {(SHARE, row["seed"]): row[SHARE] for row in free}

    @property
    def resolution(self) -> float:
        """The share of one test image, in percent; 0 if their number is unknown."""
        images = min((row["test_images"] for row in self.finished), default=0)
        return 100 / images if images else 0.0

    def mean(self, column: str) -> str:
        """Return the mean and standard deviation of a column as text."""
        if not self.finished:
            return NO_RESULT
        values = self.values(column)
        if not len(values):
            return NOT_RUN
        text = format_mean(values, self.resolution if column in _OF_TEST_IMAGES else 0.0)
        bound = column == SHARE and any(row["share_bound"] for row in self.finished)
        return f"≥ {text}" if bound else text

    @property
    def share(self) -> str:
        """The share at the margin as text; of one trial, with the interval of its search."""
        text, low, high = self.mean(SHARE), self.values("share_low"), self.values("share_high")
        return f"{text} [{low[0]:.2f}, {high[0]:.2f}]" if len(low) == len(high) == 1 else text

    @property
    def seeds(self) -> str:
        """The number of finished trials and of others, with a link to their rows."""
        others = Counter(row["status"] for row in self.rows if row["status"] != "finished")
        without = "".join(f", {number} {status}" for status, number in sorted(others.items()))
        return link(f"{len(self.finished)}{without}", [row["line"] for row in self.rows])

    @property
    def reliability(self) -> str:
        """The reliability of the scores, over the seeds that have one."""
        known = self.values("reliability")
        return format_mean(known) if len(known) else "N/A" if self.finished else NO_RESULT

    @property
    def summary(self) -> str:
        """The axes but the criterion, in one line."""
        pruned = (
            f"{format_percent(self.fraction)} pruned" if self.fraction != "none" else "searched"
        )
        parts = [
            self.groups and format_groups(self.groups, self.grouping),
            self.samples_per_class and f"{self.samples_per_class} samples per class",
            self.bootstraps and format_count(self.bootstraps, "bootstrap"),
            self.upper_limit != "none" and f"limit {self.upper_limit}",
            self.compensate == "yes" and "compensated",
            f"to a drop of {self.margin:g} points" if self.margin is not None else pruned,
        ]
        return ", ".join(part for part in parts if part)


def seed_groups(trials: pd.DataFrame) -> list[SeedGroup]:
    """Return the seed groups of a table with lines, in the order of their first rows."""
    shared = ["experiment", "protocol", *AXES]
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in records(trials):
        margin = None if math.isnan(row["margin"]) else row["margin"]
        found[(margin, *(row[column] for column in shared))].append(row)
    return [
        SeedGroup(**dict(zip(["margin", *shared], key, strict=True)), rows=own)
        for key, own in found.items()
    ]


def order_of_tables(group: SeedGroup) -> tuple[Any, ...]:
    """Return the sort key of seed groups in tables: the largest limit and fraction first."""
    return (
        REGIMES.index(group.retraining),
        *(-float(text.replace("none", "inf")) for text in (group.upper_limit, group.fraction)),
        *(group.samples_per_class, group.groups, GROUPINGS.index(group.grouping)),
        *(order_of_criteria(group.criterion), group.compensate),
    )


def order_of_criteria(criterion: str) -> tuple[int, str]:
    """Return the sort key of criteria: the order of mint.config.schema, unknown ones last."""
    names = list(CRITERIA)
    return (names.index(criterion) if criterion in names else len(names), criterion)


def link(text: str, lines: Iterable[int]) -> str:
    """Return a link to lines of trials.csv: one for each run of consecutive lines."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    places = [f"L{first}" if first == last else f"L{first}-L{last}" for first, last in runs]
    return ", ".join(
        f"[{'and' if at else text}](trials.csv?plain=1#{place})" for at, place in enumerate(places)
    )


def format_mean(values: Sequence[float] | NDArray[np.float64], resolution: float = 0.0) -> str:
    """Return mean and standard deviation, or a single value alone.

    A standard deviation below the resolution is given as that bound.
    """
    if len(values) == 1:
        return f"{values[0]:z.2f}"
    deviation, below = spread(values, resolution), spread(values) < resolution
    return f"{np.mean(values):z.2f} ± {'< ' if below else ''}{deviation:.2f}"


def format_percent(share: str) -> str:
    """Return a share of the trial table in percent."""
    return f"{100 * float(share):.6g}%"


def format_axis(value: object) -> str:
    """Return the value of an axis as a cell of a table; N/A for 0 and none."""
    return "N/A" if value in (0, "none") else str(value)


def format_groups(number: int, grouping: str) -> str:
    """Return a number of groups, and how they are made if they are not contiguous."""
    return f"{number} groups" if grouping == "contiguous" else f"{number} {grouping} groups"


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' if number != 1 else ''}"
