"""Seed groups: trials that differ only in their seed, and their figures as text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mint.config.schema import CRITERIA, DEFAULT_CRITERION
from mint.reporting.trials_csv import AXES, Row, records

NOT_RUN, NO_RESULT = "not run", "no result"


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Trials that differ only in their seed: the columns that they share, and their rows."""

    experiment: str
    protocol: str
    upper_limit: str
    groups: int
    samples_per_class: int
    fraction: str
    criterion: str
    bootstraps: int
    rows: Sequence[Row]

    @property
    def searched_axes(self) -> tuple[str, int, int] | None:
        """Limit, groups and samples of a search with the scores of MINT; None for other trials."""
        if (self.fraction, self.criterion) != ("none", DEFAULT_CRITERION):
            return None
        return self.upper_limit, self.groups, self.samples_per_class

    @cached_property
    def finished(self) -> list[Row]:
        """The trials that have a result."""
        return [row for row in self.rows if row["status"] == "finished"]

    def values(self, column: str) -> NDArray[np.float64]:
        """Return a column of the finished trials."""
        return np.array([row[column] for row in self.finished], np.float64)

    def mean(self, column: str) -> str:
        """Return the mean and standard deviation of a column as text."""
        return format_mean(self.values(column)) if self.finished else NO_RESULT

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
        known = known[~np.isnan(known)]
        return format_mean(known) if len(known) else "N/A" if self.finished else NO_RESULT

    @property
    def summary(self) -> str:
        """The axes but the criterion, in one line."""
        parts = [
            self.groups and f"{self.groups} groups",
            self.samples_per_class and f"{self.samples_per_class} samples per class",
            self.bootstraps and format_count(self.bootstraps, "bootstrap"),
            "no limit" if self.upper_limit == "none" else f"limit {self.upper_limit}",
            "fraction searched" if self.fraction == "none" else f"fraction {self.fraction}",
        ]
        return ", ".join(part for part in parts if part)


def seed_groups(trials: pd.DataFrame) -> list[SeedGroup]:
    """Return the seed groups of a table with lines, in the order of their first rows."""
    shared = ["experiment", "protocol", *AXES]
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in records(trials):
        found[tuple(row[column] for column in shared)].append(row)
    return [
        SeedGroup(**dict(zip(shared, key, strict=True)), rows=own) for key, own in found.items()
    ]


def order_of_tables(group: SeedGroup) -> tuple[Any, ...]:
    """Return the sort key of seed groups in tables: the largest limit and fraction first."""
    return (
        *(-float(text.replace("none", "inf")) for text in (group.upper_limit, group.fraction)),
        *(group.samples_per_class, group.groups, order_of_criteria(group.criterion)),
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


def format_mean(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Return mean and standard deviation, or a single value alone."""
    if len(values) == 1:
        return f"{values[0]:z.2f}"
    return f"{np.mean(values):z.2f} ± {np.std(values, ddof=1):.2f}"


def format_axis(value: object) -> str:
    """Return the value of an axis as a cell of a table; N/A for 0 and none."""
    return "N/A" if value in (0, "none") else str(value)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' if number != 1 else ''}"
