"""Cells: trials that differ in their seed alone, and how a table tells their figures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mint.config.schema import CRITERIA, DEFAULT_CRITERION
from mint.trial.table_row import AXES, UNKNOWN_LAYERS

Row = Mapping[str, Any]
"""A record by column, and under `line` the line of records.csv that it stands in."""

NOT_RUN, NO_RESULT = "not run", "no result"


@dataclass(frozen=True, eq=False)
class Cell:
    """Trials of one experiment and protocol that differ in their seed alone.

    Attributes:
        experiment: and all others but rows as in the records.
        rows: the records, in the order of records.csv.
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
    def searched(self) -> bool:
        """Whether a search by MINT found how much is pruned, as in the record."""
        return (self.fraction, self.criterion) == ("none", DEFAULT_CRITERION)

    @cached_property
    def finished(self) -> list[Row]:
        """The trials that have a result."""
        return [row for row in self.rows if row["status"] == "finished"]

    def values(self, column: str) -> NDArray[np.float64]:
        """Return a column of the finished trials."""
        return np.array([row[column] for row in self.finished], np.float64)

    def spread(self, column: str) -> str:
        """Return a column's mean and standard deviation in words."""
        return spread(self.values(column)) if self.finished else NO_RESULT

    @property
    def seeds(self) -> str:
        """How many trials are finished and how many are not, with a link to their records."""
        lost = Counter(row["status"] for row in self.rows if row["status"] != "finished")
        # A row whose seeds are not all there says so: a mean over those that are left is not the
        # same.
        without = "".join(f", {count} {status}" for status, count in sorted(lost.items()))
        return link(f"{len(self.finished)}{without}", [row["line"] for row in self.rows])

    @property
    def bootstraps_drawn(self) -> str:
        """The bootstraps that scores are the mean of."""
        drawn = [row["bootstraps_drawn"] for row in self.finished]
        if not drawn:
            return NO_RESULT
        if not any(drawn):
            return "N/A"
        least, most = min(drawn), max(drawn)
        return str(least) if least == most else f"{least} to {most}"

    @property
    def reliability(self) -> str:
        """The reliability of the scores, over the seeds that have one."""
        if not self.finished:
            return NO_RESULT
        known = self.values("reliability")
        known = known[~np.isnan(known)]
        return spread(known) if len(known) else "N/A"

    @property
    def known_layers(self) -> list[str]:
        """The layers of the finished trials, of all that have them."""
        return [row["layers"] for row in self.finished if row["layers"] != UNKNOWN_LAYERS]

    @property
    def axes(self) -> list[str]:
        """The axes but bootstraps, in words."""
        return [
            "N/A" if self.upper_limit == "none" else self.upper_limit,
            used(self.groups),
            used(self.samples_per_class),
            asked(self.fraction),
            self.criterion,
        ]

    @property
    def sentence(self) -> str:
        """The axes but the criterion, in a sentence."""
        parts = [f"{self.groups} groups"] if self.groups else []
        if self.samples_per_class:
            parts.append(f"{self.samples_per_class} samples per class")
        if self.bootstraps:
            parts.append(f"{count(self.bootstraps, 'bootstrap')}")
        limit = "no limit" if self.upper_limit == "none" else f"limit {self.upper_limit}"
        share = "searched" if self.fraction == "none" else f"{self.fraction} asked"
        return ", ".join([*parts, limit, share])


def numbered(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records of records.csv, in its order, with the line of each as a column."""
    return records.assign(line=range(2, len(records) + 2))  # behind the header


def cells_of(records: pd.DataFrame) -> list[Cell]:
    """Gather numbered records into cells, in the order in which each is first met."""
    shared = ["experiment", "protocol", *AXES]
    found: dict[tuple[Any, ...], list[Row]] = {}
    rows: list[dict[str, Any]] = records.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        found.setdefault(tuple(row[column] for column in shared), []).append(row)
    return [Cell(**dict(zip(shared, key, strict=True)), rows=own) for key, own in found.items()]


def by_groups(cell: Cell) -> tuple[Any, ...]:
    """Return what sorts cells so that groups are compared."""
    return *_budget(cell), cell.samples_per_class, cell.groups, criterion_order(cell.criterion)


def _budget(cell: Cell) -> tuple[float, float]:
    limit, fraction = (
        float("-inf") if text == "none" else -float(text)
        for text in (cell.upper_limit, cell.fraction)
    )
    return limit, fraction


def criterion_order(criterion: str) -> tuple[int, str]:
    """Return what sorts criteria as mint.config.schema names them, others behind."""
    names = list(CRITERIA)
    return (names.index(criterion) if criterion in names else len(names), criterion)


def link(text: str, lines: Iterable[int]) -> str:
    """Return a link to lines of records.csv: several, where they do not stand side by side."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    places = [f"L{first}" if first == last else f"L{first}-L{last}" for first, last in runs]
    return ", ".join(
        f"[{'and' if at else text}](records.csv?plain=1#{place})" for at, place in enumerate(places)
    )


def spread(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Return mean and standard deviation, or the value where there is one alone."""
    if len(values) == 1:
        return f"{values[0]:z.2f}"
    return f"{np.mean(values):z.2f} ± {np.std(values, ddof=1):.2f}"


def asked(fraction: str) -> str:
    """Return a fraction in words."""
    return "searched" if fraction == "none" else fraction


def used(value: int) -> str:
    """Return an axis's value; the scores of some criteria do not depend on it."""
    return str(value) if value else "N/A"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' if number != 1 else ''}"
