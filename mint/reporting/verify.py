"""Checks that a results folder agrees with its trial table, and this with the trials at hand."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mint.errors import InputError, error_line
from mint.pruning.layer_table import parse_layers
from mint.pruning.masks import Masks
from mint.reporting.made import RESULTS_FILE, TRIALS_FILE
from mint.reporting.markdown import cells_of, is_rule
from mint.reporting.pages import make_report, read_references
from mint.reporting.trial_page import page_path, trial_page
from mint.reporting.trials_csv import (
    COLUMNS,
    ORIGIN,
    Row,
    parse_trials,
    records,
    trial_table,
)
from mint.store.stage_cache import StageCache
from mint.trial.result import MASKS_FILE, TrialResult

_SHOWN = 100  # characters of a value


@dataclass
class Verified:
    """The differences, one line each, and numbers of what was compared.

    They count cells of tables, trials with a result on the disk, and runs of the tracking store. A
    trial on the disk that could not be read is not counted; a line says why.
    """

    differences: list[str]
    cells: int = 0
    trials: int = 0
    runs: int = 0
    unread: list[str] = field(default_factory=list)


def verify(output: Path, cache: StageCache, of_store: pd.DataFrame | None) -> Verified:
    """Make the report of a results folder again, and compare its trial table with the trials.

    Those are the trials of the cache, and those of a tracking store if there is one.

    Raises:
        InputError: trials.csv, RESULTS.md or a reference file cannot be read.
    """
    content = _read(output / TRIALS_FILE)
    pages = {RESULTS_FILE: _read(output / RESULTS_FILE)}
    references = read_references(output)
    try:
        trials = parse_trials(content)
    except ValueError as error:
        return Verified([f"{TRIALS_FILE}: {error}"])
    report = make_report(trials, references)
    found = Verified([])
    for name, made in report.pages.items():
        if name not in pages and not (output / name).is_file():
            found.differences.append(f"{name}: is missing")
            continue
        there = pages.get(name) or _read(output / name)
        cells, differences = compare_pages(name, there.decode(errors="replace"), made)
        found.cells += cells
        found.differences += differences
    missing = [name for name in report.plots if not (output / name).is_file()]
    found.differences += [f"{name}: is missing" for name in missing]
    runs = {} if of_store is None else {row["key"]: row for row in records(of_store)}
    on_disk = set(cache.keys("trials"))
    for row in records(trials):
        if row["key"] in runs:
            found.runs += 1
            found.differences += _compare_rows(row, runs[row["key"]], "its run")
        if row["status"] == "finished" and row["key"] in on_disk:
            try:
                folder = cache.find("trials", row["key"])
                if folder is None:
                    raise ValueError("its files have changed")
                result, masks = TrialResult.load(folder), Masks.load(folder / MASKS_FILE)
            except (
                InputError,
                OSError,
                ValueError,
            ) as error:  # or another version of mint wrote it
                found.unread.append(f"trial {row['key']}: cannot be read ({error_line(error)})")
                continue
            found.trials += 1
            found.differences += _compare_trial(row, result, masks, output)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def compare_pages(name: str, there: str, made: str) -> tuple[int, list[str]]:
    """Return the number of cells in the tables of a page, and a line for each difference."""
    old, new = _places(there), _places(made)
    differences = [
        f"{name}, {place}: {_quoted(old.get(place))}, should be {_quoted(new.get(place))}"
        for place in {**new, **old}
        if old.get(place) != new.get(place)
    ]
    if not differences and there != made:
        differences.append(f"{name}: has the right cells, but other spaces or lines")
    return sum(", column " in place for place in new), differences


def _quoted(value: str | None) -> str:
    return "nothing" if value is None else repr(textwrap.shorten(value, _SHOWN))


def _places(page: str) -> dict[str, str]:
    """Return the cells and other lines of a page by their place."""
    headings: list[str] = []
    header: list[str] = []
    found: dict[str, str] = {}
    number = row = 0  # since the heading
    for line in page.splitlines():
        if line.startswith("#"):
            headings = [*headings[: len(line) - len(line.lstrip("#")) - 1], line.lstrip("# ")]
            number = row = 0
        section = " > ".join(headings[1:] or headings)
        cells = cells_of(line)
        if header and cells:
            row += not is_rule(line)  # the rule below the header is not a row
            for column, cell in zip(header, cells, strict=False):
                found[f"{section}, row {row}, column {column}"] = cell
        else:
            header = cells
            number += 1
            found[f"{section}, line {number}"] = line
    return found


def _compare_trial(row: Row, result: TrialResult, masks: Masks, output: Path) -> Iterator[str]:
    """Yield how a row and a trial's page differ from its result, and the row from its masks."""
    (own,) = records(trial_table([("", result)]))
    yield from _compare_rows(row, own, "its result")
    page = page_path(output, result)
    if page.exists() and _read(page).decode(errors="replace") != trial_page(result):
        yield f"{page.name}: differs from the trial's result"
    place = f"{TRIALS_FILE}, trial {row['key']}, column layers"
    for layer in parse_layers(row["layers"]):
        weight = f"{layer.name}.weight"
        kept = int(masks[weight].sum()) if weight in masks else layer.weights
        if kept != layer.kept:
            yield f"{place}: {layer.name} keeps {layer.kept}, its mask {kept}"


def _compare_rows(row: Row, other: Row, source: str) -> Iterator[str]:
    for column in COLUMNS:
        own, there = row[column], other[column]
        both_nan = own != own and there != there
        if column not in ORIGIN and own != there and not both_nan:
            place = f"{TRIALS_FILE}, trial {row['key']}, column {column}"
            yield f"{place}: {own}, but {source} has {there}"
