"""Records in, RESULTS.md, records.csv and plots out: same records, same bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mint.atomic import write_whole
from mint.comparison import CONFIDENCE, REFERENCE, Compared, compare, criterion_order
from mint.config import DEFAULT_CRITERION
from mint.markdown import table
from mint.plots import draw_criteria, draw_tradeoff
from mint.records import parse_records, records_bytes, sort_records

_CELL = ["upper_limit", "groups", "samples_per_class", "fraction", "criterion"]
_Cell = tuple[str, int, int, str, str]
_FRACTION, _CRITERION = "Fraction asked", "Criterion"
_HEADER = [
    *("Upper limit", "Groups", "Samples per class", _FRACTION, _CRITERION, "Params pruned"),
    *("Performance", "Drop", "Seeds", "Bootstraps", "Reliability"),
]
_NOT_RUN = ["not run", "not run", "not run", "0", "not run", "not run"]


def write_report(output: Path, records: pd.DataFrame) -> None:
    """Write records.csv, and from it RESULTS.md and a plot for every experiment.

    Args:
        output: the folder; other files in it are left alone.
        records: with the columns of mint.records.
    """
    content = records_bytes(sort_records(records))
    # From the content, so that what is written does not depend on where the records came from.
    records = parse_records(content)
    made = {"records.csv": content}
    published = yaml.safe_load(files("mint").joinpath("published.yaml").read_text("utf-8"))
    text = [
        "# Results",
        "",
        "Made by `mint report` from [records.csv](records.csv); do not edit. Params pruned are "
        "percent of the counted weights, performance is test accuracy in percent of the network "
        "after the last epoch of retraining; mean ± standard deviation over seeds. Drop is the "
        "baseline's test accuracy less that of the pruned network, in percentage points. "
        "Reliability is the rank correlation to expect between the scores and those of as many "
        "other bootstraps.",
    ]
    for (experiment, protocol), own in records.groupby(["experiment", "protocol"]):
        plot = f"{experiment}-{protocol}.png"
        quoted = published.get(experiment, {})
        buffer = io.BytesIO()
        finished = own[own["status"] == "finished"]
        compared = _compared(finished)
        if compared:
            draw_criteria(buffer, compared)
        else:
            draw_tradeoff(buffer, finished, quoted.get("methods", []))
        made[plot] = buffer.getvalue()
        text += _section(str(experiment), str(protocol), own, compared, quoted, plot)
    made["RESULTS.md"] = ("\n".join(text) + "\n").encode()
    for name, written in made.items():
        write_whole(output / name, written)


def _compared(finished: pd.DataFrame) -> list[Compared]:
    """Return the criteria side by side, if there are several.

    Where a search found how much to prune, each is at a budget of its own.
    """
    given = finished[finished["fraction"] != "none"]
    return compare(given) if given["criterion"].nunique() > 1 else []


def _section(
    experiment: str,
    protocol: str,
    records: pd.DataFrame,
    compared: Sequence[Compared],
    quoted: dict[str, Any],
    plot: str,
) -> list[str]:
    finished = records[records["status"] == "finished"]
    text = [
        "",
        f"## {experiment}",
        "",
        f"{records['setting'].iloc[0]} Protocol {protocol}.",
        "",
        _baseline(finished, quoted),
        "",
        f"![accuracy against params pruned]({plot})",
    ]
    cells: dict[_Cell, list[pd.DataFrame]] = {}
    for key, cell in records.groupby([*_CELL, "bootstraps"]):
        cells.setdefault(key[:5], []).append(cell)  # type: ignore[arg-type]
    if compared:
        text += _criteria(compared)
    if quoted:
        shown: set[_Cell] = set()
        searched = (records["fraction"] == "none").any()  # as what is quoted
        for title, rows in (
            ("Group variations", quoted.get("groups", [])),
            ("Sample variations", quoted.get("samples", [])),
        ):
            if not (rows and searched):
                continue
            keys = [(*(row[name] for name in _CELL[:3]), "none", DEFAULT_CRITERION) for row in rows]
            text += _table(title, keys, cells, rows)
            shown.update(keys)
        others = sorted(set(cells) - shown, key=_by_groups)
        if others:
            text += _table("Others" if shown else "Trials", others, cells)
        text += ["", f"Published figures: {quoted['source']}."]
    elif len(cells) == 1 or compared:
        text += _table("Trials", sorted(cells, key=_by_groups), cells)
    else:
        text += _table("Group variations", sorted(cells, key=_by_groups), cells)
        text += _table("Sample variations", sorted(cells, key=_by_samples), cells)
    return text + _gaps(records[records["status"] != "finished"])


def _baseline(finished: pd.DataFrame, quoted: Mapping[str, Any]) -> str:
    published = f"; published {quoted['baseline_accuracy']:.2f}" if quoted else ""
    if finished.empty:
        return f"Baseline: no trial has finished{published}."
    accuracies = finished.drop_duplicates("seed")["baseline_accuracy"]
    return (
        f"Baseline: {_spread(accuracies)} ({_count(len(accuracies), 'seed')}{published}). "
        f"{int(finished['counted_weights'].iloc[0])} weights counted."
    )


def _criteria(compared: Sequence[Compared]) -> list[str]:
    """Return the table of the criteria at every budget, each against random blocks."""
    header = [
        *("Upper limit", "Groups", "Samples per class", _FRACTION, _CRITERION),
        *("Params pruned", "Performance", "Against random", "Seeds"),
    ]
    rows = []
    for row in compared:
        setting, trials = row.setting, row.trials
        key = (
            *(setting.upper_limit, setting.groups, setting.samples_per_class),
            *(row.fraction, row.criterion),
        )
        spreads = [_spread(trials[name]) for name in ("params_pruned", "accuracy")]
        rows.append([*_axes(key), *spreads, _against_random(row), str(len(trials))])
    return [
        "",
        "### Criteria",
        "",
        *table(header, rows, left=(header.index(_CRITERION),)),
        "",
        "Against random: accuracy less that of random blocks with the same seed and budget, in "
        f"percentage points; the mean over seeds [its {CONFIDENCE:.0%} interval of Student's t], "
        "with an asterisk where that leaves out 0, as it does by chance in one of twenty.",
    ]


def _against_random(row: Compared) -> str:
    difference = row.against_random
    if row.criterion == REFERENCE or difference is None:
        return "N/A"
    if math.isnan(difference.half_width):
        return f"{difference.mean:+z.2f}"
    low, high = (difference.mean + side * difference.half_width for side in (-1, 1))
    mark = " *" if difference.excludes_zero else ""
    return f"{difference.mean:+z.2f} [{low:+z.2f}, {high:+z.2f}]{mark}"


def _gaps(records: pd.DataFrame) -> list[str]:
    """Return the trials that were run and have no figures, with the reasons."""
    if records.empty:
        return []
    header = [*_HEADER[: len(_CELL)], "Bootstraps", "Seed", "Trial", "Reason"]
    rows = []
    for record in records.to_dict("records"):
        key = (
            record["upper_limit"],
            record["groups"],
            record["samples_per_class"],
            record["fraction"],
            record["criterion"],
        )
        reason = str(record["reason"]).replace("|", r"\|")
        what = [_used(record["bootstraps"]), str(record["seed"]), record["status"]]
        rows.append([*_axes(key), *what, reason])
    if (records["criterion"] == DEFAULT_CRITERION).all():
        _drop(_CRITERION, header, rows)
    left = [header.index(name) for name in (_CRITERION, "Trial", "Reason") if name in header]
    return ["", "### Gaps", "", *table(header, rows, left=left)]


def _table(
    title: str,
    keys: Sequence[_Cell],
    cells: Mapping[_Cell, Sequence[pd.DataFrame]],
    quoted: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    header = list(_HEADER)
    if quoted:
        header += ["Published params pruned", "Published performance"]
    rows = []
    for index, key in enumerate(keys):
        for measured in [_measured(cell) for cell in cells.get(key, ())] or [_NOT_RUN]:
            row = [*_axes(key), *measured]
            if quoted:
                row += [_quote(quoted[index][name]) for name in ("params_pruned", "accuracy")]
            rows.append(row)
    if all(fraction == "none" for *_, fraction, _ in keys):  # nobody asked for one: no column
        _drop(_FRACTION, header, rows)
    if all(criterion == DEFAULT_CRITERION for *_, criterion in keys):
        _drop(_CRITERION, header, rows)
    left = [header.index(_CRITERION)] if _CRITERION in header else []
    return ["", f"### {title}", "", *table(header, rows, left=left)]


def _drop(title: str, header: list[str], rows: Sequence[list[str]]) -> None:
    column = header.index(title)
    for row in (header, *rows):
        del row[column]


def _axes(key: _Cell) -> list[str]:
    limit, groups, samples, fraction, criterion = key
    return [
        "N/A" if limit == "none" else limit,
        _used(groups),
        _used(samples),
        "searched" if fraction == "none" else fraction,
        criterion,
    ]


def _used(value: int) -> str:
    """Return an axis's value; the scores of some criteria do not depend on it."""
    return str(value) if value else "N/A"


def _measured(cell: pd.DataFrame) -> list[str]:
    gaps = cell.loc[cell["status"] != "finished", "status"]
    # A row whose seeds are not all there says so: a mean over those that are left is not the same.
    without = "".join(f", {n} {status}" for status, n in gaps.value_counts().sort_index().items())
    cell = cell[cell["status"] == "finished"]
    if cell.empty:
        return [*["no result"] * 3, f"0{without}", *["no result"] * 2]
    return [
        *(_spread(cell[name]) for name in ("params_pruned", "accuracy", "accuracy_drop")),
        f"{len(cell)}{without}",
        _range(cell["bootstraps_drawn"]) if cell["bootstraps_drawn"].any() else "N/A",
        "N/A" if cell["reliability"].isna().all() else _spread(cell["reliability"].dropna()),
    ]


def _spread(values: "pd.Series[float]") -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:z.2f}"
    return f"{values.mean():z.2f} ± {values.std():.2f}"


def _range(counts: "pd.Series[int]") -> str:
    least, most = counts.min(), counts.max()
    return str(least) if least == most else f"{least} to {most}"


def _quote(value: float | None) -> str:
    return "open" if value is None else f"{value:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _limit(text: str) -> float:
    return float("-inf") if text == "none" else -float(text)


_Order = tuple[float, float, int, int, tuple[int, str]]


def _by_groups(key: _Cell) -> _Order:
    limit, groups, samples, fraction, criterion = key
    return _limit(limit), _limit(fraction), samples, groups, criterion_order(criterion)


def _by_samples(key: _Cell) -> _Order:
    limit, groups, samples, fraction, criterion = key
    return _limit(limit), _limit(fraction), groups, samples, criterion_order(criterion)
