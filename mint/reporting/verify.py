"""Whether a folder of results says what its records say, and these what the trials at hand say."""

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
from mint.reporting.checksums import Checksums
from mint.reporting.measured import Measured
from mint.reporting.pages import RECORDS, SUMS, make_report
from mint.reporting.trial_page import TRIAL_PAGES, page_name, trial_page
from mint.store.stage_cache import StageCache
from mint.trial.result import MASKS_FILE, TrialResult
from mint.trial.table_row import COLUMNS, ORIGIN, parse_records, result_record, written_records

Place = tuple[str, ...]
"""Where something stands in a page: its headings, and in a table the row and the column."""

_FIGURES = [column for column in COLUMNS if column not in ORIGIN]
_SHOWN = 100  # characters of a value


@dataclass
class Verified:
    """What was held against what it was made from.

    Attributes:
        differences: a line each, which names the place and both values.
        cells: of the tables that were compared.
        figures: of the records that were compared with their own arithmetic and checksums.
        trials: records that were compared with the results and masks on the disk.
        runs: records that were compared with the tracking store.
    """

    differences: list[str] = field(default_factory=list)
    cells: int = 0
    figures: int = 0
    trials: int = 0
    runs: int = 0


def verify(output: Path, cache: StageCache, of_store: pd.DataFrame | None) -> Verified:
    """Recompute a folder of results from its records, and these from what is at hand.

    Args:
        output: folder of RESULTS.md, records.csv and its checksums.
        cache: of finished trials; those that are there are counted again from their masks.
        of_store: records of a tracking store; None to leave it out.

    Raises:
        InputError: one of these files cannot be read.
    """
    content, found = _read(output / RECORDS), Verified()
    try:
        written = written_records(content)
        found.figures = written.size
        found.differences += _changed(_text(output / SUMS), written)
        records = parse_records(content)
    except (ValueError, OverflowError) as error:
        found.differences.append(f"{RECORDS}: {error}")
        return found
    report = make_report(records, Measured.beside(output))
    for name, made in report.pages.items():
        if name not in (RECORDS, SUMS if found.differences else ""):  # they tell the same
            cells, differences = _compare(name, _text(output / name), made.decode())
            found.cells += cells
            found.differences += differences
    found.differences += [
        f"{name}: is missing" for name in report.plots if not (output / name).is_file()
    ]
    rows: list[Row] = records.to_dict("records")  # type: ignore[assignment]
    for row in rows:
        folder = cache.find("trials", row["key"])
        if folder and row["status"] == "finished":
            found.trials += 1
            found.differences += _of_trial(row, folder, output / TRIAL_PAGES)
    if of_store is not None:
        stored: list[Row] = of_store.to_dict("records")  # type: ignore[assignment]
        runs = {row["key"]: row for row in stored}
        for row in rows:
            if row["key"] in runs:
                found.runs += 1
                found.differences += _differences(row, runs[row["key"]], "its run")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"--output: {path} cannot be read: {error.strerror}") from error


def _text(path: Path) -> str:
    return _read(path).decode(errors="replace")


def _changed(sums: str, written: pd.DataFrame) -> Iterator[str]:
    """Yield the cells of records that are not as mint wrote them."""
    then, now = Checksums.parse(sums), Checksums.of(written)
    if len(then.lines) != len(now.lines):
        yield f"{RECORDS}: has {len(now.lines)} records, and was written with {len(then.lines)}"
        return
    for line, column in then.changed(now):
        value = _said(written[column].iloc[line - 2])
        yield f"{RECORDS}, line {line}, column {column}: {value} is not what mint wrote"


def _compare(name: str, there: str, made: str) -> tuple[int, list[str]]:
    """Return how many cells of tables a page has, and what differs from the one made anew."""
    old, new = _places(there), _places(made)
    differences = [
        f"{name}, {', '.join(place)}: {_said(old.get(place))}, and the records say "
        f"{_said(new.get(place))}"
        for place in {**new, **old}
        if old.get(place) != new.get(place)
    ]
    if not differences and there != made:
        differences.append(f"{name}: has the cells that it should, and other spaces or lines")
    return sum(place[-1].startswith("column") for place in new), differences


def _said(value: str | None) -> str:
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
            row += not set(line) <= set("|:-")  # the rule below the header is no row
            for column, cell in zip(header, cells, strict=False):
                found[(section, f"row {row}", f"column {column}")] = cell
            continue
        header = cells
        number += 1
        found[(section, f"line {number}")] = line
    return found


def _of_trial(row: Row, folder: Path, pages: Path) -> Iterator[str]:
    """Yield how a record, and a trial's page, differ from its result, and that from its masks."""
    try:
        result = TrialResult.load(folder)
    except ValueError:  # of a version that told other things
        return
    yield from _differences(row, result_record(result, ""), "its result")
    page = pages / page_name(result.config)
    if page.exists() and _text(page) != trial_page(result):
        yield f"{page.name}: is not what the trial's result says"
    masks = Masks.load(folder / MASKS_FILE)
    counted = {name.removesuffix(".weight"): int(masks[name].sum()) for name in masks}
    for layer in parse_layers(str(row["layers"])):
        kept = counted.get(layer.name, layer.weights)
        if kept != layer.kept:
            yield (
                f"{RECORDS}, trial {row['key']}, column layers: {layer.name} keeps {layer.kept}, "
                f"its mask {kept}"
            )


def _differences(row: Row, other: Row, whose: str) -> Iterator[str]:
    for column in _FIGURES:
        # NaN is what it is, and nothing else.
        if row[column] != other[column] and not (
            row[column] != row[column] and other[column] != other[column]
        ):
            yield (
                f"{RECORDS}, trial {row['key']}, column {column}: {row[column]}, and {whose} says "
                f"{other[column]}"
            )
