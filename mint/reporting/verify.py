"""Checks that a results folder agrees with its trial table, and this with the trials at hand."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mint.errors import InputError
from mint.pruning.layer_table import parse_layers
from mint.pruning.masks import Masks
from mint.reporting.aggregate import Row
from mint.reporting.pages import RESULTS_FILE, make_report, read_references
from mint.reporting.trial_page import TRIAL_PAGES, page_name, trial_page
from mint.reporting.trial_table import COLUMNS, ORIGIN, TRIALS_FILE, parse_trials, trial_table
from mint.store.stage_cache import StageCache
from mint.trial.result import MASKS_FILE, TrialResult

Place = tuple[str, ...]
"""A place in a page: its headings, and a line or the row and column of a table."""

_SHOWN = 100  # characters of a value


@dataclass
class Verified:
    """The outcome of a verification.

    Attributes:
        differences: one line each, with the place and both values.
        cells: number of cells of tables that were compared.
        trials: number of rows that were compared with a result and masks on disk.
        runs: number of rows that were compared with the tracking store.
    """

    differences: list[str] = field(default_factory=list)
    cells: int = 0
    trials: int = 0
    runs: int = 0


def verify(output: Path, cache: StageCache, of_store: pd.DataFrame | None) -> Verified:
    """Make the report of a results folder again, and compare its trial table with the trials.

    Args:
        output: results folder.
        cache: finished trials; the weights of their masks are counted again.
        of_store: trials of a tracking store; None to leave it out.

    Raises:
        InputError: trials.csv, RESULTS.md or a reference file cannot be read.
    """
    found = Verified()
    content, page = _read(output / TRIALS_FILE), _read(output / RESULTS_FILE)
    references = read_references(output)
    try:
        trials = parse_trials(content)
    except ValueError as error:
        found.differences.append(f"{TRIALS_FILE}: {error}")
        return found
    report = make_report(trials, references)
    found.cells, differences = compare_pages(
        RESULTS_FILE, page.decode(errors="replace"), report.text
    )
    found.differences += differences
    found.differences += [
        f"{name}: is missing" for name in report.plots if not (output / name).is_file()
    ]
    rows: list[Row] = trials.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        folder = cache.find("trials", row["key"])
        if folder and row["status"] == "finished":
            try:
                result = TrialResult.load(folder)
            except ValueError:  # written by another version of mint
                continue
            found.trials += 1
            found.differences += _compare_trial(row, result, folder, output / TRIAL_PAGES)
    if of_store is not None:
        stored: list[Row] = of_store.to_dict("records")  # type: ignore[assignment]
        runs = {row["key"]: row for row in stored}
        for row in rows:
            if row["key"] in runs:
                found.runs += 1
                found.differences += _compare_rows(row, runs[row["key"]], "its run")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def compare_pages(name: str, there: str, made: str) -> tuple[int, list[str]]:
    """Compare a page with the one made again.

    Args:
        name: of the page's file.
        there: content of the file.
        made: the content it should have.

    Returns:
        The number of cells of its tables, and a line for each difference.
    """
    old, new = _places(there), _places(made)
    differences = [
        f"{name}, {', '.join(place)}: {_quoted(old.get(place))}, should be "
        f"{_quoted(new.get(place))}"
        for place in {**new, **old}
        if old.get(place) != new.get(place)
    ]
    if not differences and there != made:
        differences.append(f"{name}: has the right cells, but other spaces or lines")
    return sum(place[-1].startswith("column") for place in new), differences


def _quoted(value: str | None) -> str:
    return "nothing" if value is None else repr(textwrap.shorten(value, _SHOWN))


def _places(page: str) -> dict[Place, str]:
    """Return the text of a page by its place: cells of tables by row and column, other lines."""
    headings: list[str] = []
    header: list[str] = []
    found: dict[Place, str] = {}
    number = row = 0  # since the heading
    for line in page.splitlines():
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            headings = [*headings[: level - 1], line.lstrip("# ")]
            number = row = 0
        section = " > ".join(headings[1:] or headings)
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if header and cells:
            row += not set(line) <= set("|:-")  # the rule below the header is not a row
            for column, cell in zip(header, cells, strict=False):
                found[(section, f"row {row}", f"column {column}")] = cell
            continue
        header = cells
        number += 1
        found[(section, f"line {number}")] = line
    return found


def _compare_trial(row: Row, result: TrialResult, folder: Path, pages: Path) -> Iterator[str]:
    """Yield how a row and a trial's page differ from its result, and the row from its masks."""
    (own,) = trial_table([("", result)]).to_dict("records")
    yield from _compare_rows(row, own, "its result")  # type: ignore[arg-type]
    page = pages / page_name(result)
    if page.exists() and _read(page).decode(errors="replace") != trial_page(result):
        yield f"{page.name}: differs from the trial's result"
    masks = Masks.load(folder / MASKS_FILE)
    counted = {name.removesuffix(".weight"): int(masks[name].sum()) for name in masks}
    for layer in parse_layers(str(row["layers"])):
        kept = counted.get(layer.name, layer.weights)
        if kept != layer.kept:
            yield (
                f"{TRIALS_FILE}, trial {row['key']}, column layers: {layer.name} keeps "
                f"{layer.kept}, its mask {kept}"
            )


def _compare_rows(row: Row, other: Row, source: str) -> Iterator[str]:
    for column in COLUMNS:
        both_nan = row[column] != row[column] and other[column] != other[column]
        if column not in ORIGIN and row[column] != other[column] and not both_nan:
            yield (
                f"{TRIALS_FILE}, trial {row['key']}, column {column}: {row[column]}, but {source} "
                f"has {other[column]}"
            )
