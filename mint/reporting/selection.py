"""Selections of trials, such as mint or groups=5: one as a list, or two side by side."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mint.config.schema import CRITERIA, is_criterion
from mint.errors import InputError, allowed
from mint.reporting.aggregate import ACCURACY, NOT_RUN, SHARE, SeedGroup, format_axis, format_count
from mint.reporting.comparison import differences, paired_groups
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol, protocols_of
from mint.reporting.statistics import Cell, marked
from mint.reporting.tables import group_cells
from mint.reporting.trials_csv import COLUMNS, Row

_FIGURES = {ACCURACY: "test accuracy (%)", SHARE: "share at the margin (%)"}
_Selection = Mapping[str, str]
_COLUMNS: Mapping[str, Callable[[SeedGroup, Protocol], str]] = {
    "experiment": lambda group, _: group.experiment,
    "protocol": lambda _, protocol: protocol.name,
    "retraining": lambda group, _: group.retraining,
    "compensate": lambda group, _: group.compensate,
    "criterion": lambda group, _: group.criterion,
    "upper_limit": lambda group, _: group.upper_limit,
    "groups": lambda group, _: format_axis(group.groups),
    "grouping": lambda group, _: group.grouping,
    "samples_per_class": lambda group, _: format_axis(group.samples_per_class),
    "bootstraps": lambda group, _: format_axis(group.bootstraps),
    "fraction": lambda group, _: group.fraction,
    "margin": lambda group, _: "none" if group.margin is None else f"{group.margin:g}",
}


def parse_selection(text: str, parameter: str) -> _Selection:
    """Return the columns and values of a selection such as mint or groups=20,retraining=light.

    An empty one selects all trials.

    Raises:
        InputError: a column is unknown or given twice, or a criterion is unknown.
    """
    found: dict[str, str] = {}
    column = ""
    for part in text.split(",") if text else ():
        named, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and column == "protocol" and not is_criterion(named):
            found[column] += f", {named}"  # names of protocols have commas
            continue
        column, value = (named, value) if equals else ("criterion", named)
        problem = ""
        if column not in _COLUMNS:
            problem = f"there is no column {column}; {allowed(column, _COLUMNS)}"
        elif column in found:
            problem = f"{column} must be given once"
        elif column == "criterion" and not is_criterion(value):
            problem = f"there is no criterion {value}; {allowed(value, CRITERIA)}"
        if problem:
            raise InputError(problem, parameter=parameter, value=text)
        found[column] = value
    return found


def compare(trials: pd.DataFrame, first: str, second: str) -> list[str]:
    """Return a table of two selections: trials that share all but what both selections name.

    Args:
        trials: sorted trial table.
        first: selection, as parse_selection() reads it.
        second: another one.

    Raises:
        InputError: a selection is malformed or selects no trial, or no two trials share the rest.
    """
    sides = [parse_selection(first, "first"), parse_selection(second, "second")]
    known = [(group, each) for each in protocols_of(trials) for group in each.groups]
    known = [(group, protocol) for group, protocol in known if group.comparable]
    cells = {
        group: {name: read(group, protocol) for name, read in _COLUMNS.items()}
        for group, protocol in known
    }
    of_first, of_second = (
        _selected(cells, side, text, name)
        for side, text, name in zip(sides, (first, second), ("first", "second"), strict=True)
    )
    free = sides[0].keys() & sides[1].keys()
    pairs = [pair for pair in paired_groups(of_first, of_second, free) if pair[0] is not pair[1]]
    rows: list[list[Cell]] = []
    for one, other in pairs:
        of = differences([(one, other)])
        column = ACCURACY if of.accuracy else SHARE
        shared = [cells[one][name] for name in _COLUMNS if name not in free]
        difference = of.accuracy or of.share
        if difference:
            seeds = str(difference.seeds)
            figures: list[Cell] = [one.mean(column), other.mean(column), difference, seeds]
            rows.append([*shared, _FIGURES[column], *figures])
    if not rows:
        problem = f"no trial of {first} and one of {second} share the seed and everything else"
        raise InputError(problem)
    header = [*(name for name in _COLUMNS if name not in free), "figure"]
    constant = [name for at, name in enumerate(header) if len({str(row[at]) for row in rows}) == 1]
    equal = ", ".join(f"{name} {rows[0][header.index(name)]}" for name in constant)
    header += [first, second, "Difference", "Seeds"]
    over_all = differences(pairs)
    means = [
        f"{name} {each}" for name, each in zip(("share", ACCURACY), over_all, strict=True) if each
    ]
    return [
        *table(header, marked(rows, NOT_RUN), left=(0, 1), without=constant),
        *("", f"Shared: {equal}.", "", f"Mean difference over all rows: {'; '.join(means)}."),
    ]


def list_trials(trials: pd.DataFrame, selection: str, sort: str | None) -> list[str]:
    """Return a table of the finished trials of a selection, with the columns of the pages.

    Args:
        trials: sorted trial table.
        selection: as parse_selection() reads it; "" selects all.
        sort: column of figures in trials.csv, the largest first; None keeps the table's order.

    Raises:
        InputError: the selection is malformed or selects no trial, or sort is no such column.
    """
    figures = [name for name, kind in COLUMNS.items() if kind is not str]
    if sort is not None and sort not in figures:
        raise InputError(allowed(sort, figures), parameter="sort", value=sort)
    side = parse_selection(selection, "selection")
    known = [(group, each) for each in protocols_of(trials) for group in each.groups]
    cells = {
        group: {name: read(group, protocol) for name, read in _COLUMNS.items()}
        for group, protocol in known
        if group.finished
    }
    found = [
        (row, _cells_of_trial(row, cells[group], group))
        for group in _selected(cells, side, selection, "selection")
        for row in group.finished
    ]
    if not found:
        raise InputError("the trial table has no finished trial")
    if sort is not None:
        found.sort(key=lambda each: math.inf if math.isnan(each[0][sort]) else -each[0][sort])
    rows = [shown for _, shown in found]
    shared = [name for name in rows[0] if len({row[name] for row in rows}) == 1]
    equal = "; ".join(f"{name} {rows[0][name]}" for name in shared)
    texts = [[*shown.values(), row["key"]] for row, shown in found]
    return [
        *table([*rows[0], "Trial"], texts, left=(0, 1), without=shared),
        *("", f"{format_count(len(rows), 'trial')}. Shared: {equal or 'nothing'}."),
    ]


def _cells_of_trial(row: Row, settings: Mapping[str, str], group: SeedGroup) -> dict[str, str]:
    """Return the cells of one trial by column, as the pages have them for its seed group."""
    cells = group_cells(replace(group, rows=[row]))
    del cells["Seeds"]
    names = {"Experiment": settings["experiment"], "Protocol": settings["protocol"]}
    return {**names, **cells, "Seed": str(row["seed"])}


def _selected(
    cells: Mapping[SeedGroup, Mapping[str, str]], side: _Selection, text: str, parameter: str
) -> Sequence[SeedGroup]:
    """Return the seed groups of a selection."""
    found = list(cells)
    for column, value in side.items():
        values = list(dict.fromkeys(cells[group][column] for group in found))
        found = [group for group in found if cells[group][column] == value]
        if not found:
            problem = f"no trial has {column} {value}; {allowed(value, sorted(values))}"
            raise InputError(problem, parameter=parameter, value=text)
    return found
