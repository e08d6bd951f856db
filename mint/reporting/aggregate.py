"""Seed groups: trials that differ only in their seed, and their figures as text."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mint.config.schema import CRITERIA, DEFAULT_CRITERION
from mint.reporting.trial_table import AXES

Row = Mapping[str, Any]
"""A row of the trial table by column; under `line` its line in trials.csv."""

NOT_RUN, NO_RESULT = "not run", "no result"


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Trials of one experiment and protocol that differ only in their seed.

    Attributes:
        rows: in the order of trials.csv; all other attributes are the columns that they share.
    """

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
    def is_mint_search(self) -> bool:
        """Whether a search with the scores of MINT found the pruned fraction."""
        return (self.fraction, self.criterion) == ("none", DEFAULT_CRITERION)

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
    def bootstraps_drawn(self) -> str:
        """The number of bootstraps that the scores average."""
        drawn = [row["bootstraps_drawn"] for row in self.finished]
        if not drawn:
            return NO_RESULT
        least, most = min(drawn), max(drawn)
        return format_axis(most) if least == most else f"{least} to {most}"

    @property
    def reliability(self) -> str:
        """The reliability of the scores, over the seeds that have one."""
        if not self.finished:
            return NO_RESULT
        known = self.values("reliability")
        known = known[~np.isnan(known)]
        return format_mean(known) if len(known) else "N/A"

    @property
    def layers(self) -> list[str]:
        """The layers of each finished trial."""
        return [row["layers"] for row in self.finished]

    @property
    def axes(self) -> list[str]:
        """The axes but bootstraps, as cells of a table."""
        return [
            format_axis(self.upper_limit),
            format_axis(self.groups),
            format_axis(self.samples_per_class),
            "searched" if self.fraction == "none" else self.fraction,
            self.criterion,
        ]

    @property
    def summary(self) -> str:
        """The axes but the criterion, in one line."""
        parts = [f"{self.groups} groups"] if self.groups else []
        if self.samples_per_class:
            parts.append(f"{self.samples_per_class} samples per class")
        if self.bootstraps:
            parts.append(format_count(self.bootstraps, "bootstrap"))
        parts.append("no limit" if self.upper_limit == "none" else f"limit {self.upper_limit}")
        searched = self.fraction == "none"
        parts.append("fraction searched" if searched else f"fraction {self.fraction}")
        return ", ".join(parts)


def number_lines(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a sorted trial table with the line of each row in trials.csv as a column."""
    return trials.assign(line=range(2, len(trials) + 2))  # line 1 is the header


def seed_groups(trials: pd.DataFrame) -> list[SeedGroup]:
    """Return the seed groups of a table with lines, in the order of their first rows."""
    shared = ["experiment", "protocol", *AXES]
    found: dict[tuple[Any, ...], list[Row]] = {}
    rows: list[dict[str, Any]] = trials.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        found.setdefault(tuple(row[column] for column in shared), []).append(row)
    return [
        SeedGroup(**dict(zip(shared, key, strict=True)), rows=own) for key, own in found.items()
    ]


def order_of_tables(group: SeedGroup) -> tuple[Any, ...]:
    """Return the sort key of seed groups in tables: the largest limit and fraction first."""
    limit, fraction = (
        float("-inf") if text == "none" else -float(text)
        for text in (group.upper_limit, group.fraction)
    )
    return (
        limit,
        fraction,
        group.samples_per_class,
        group.groups,
        order_of_criteria(group.criterion),
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


def format_axis(value: int | str) -> str:
    """Return the value of an axis as a cell of a table; N/A for 0 and none."""
    return "N/A" if value in (0, "none") else str(value)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' if number != 1 else ''}"
