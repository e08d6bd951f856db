"""Records in, RESULTS.md, records.csv and plots out: same records, same bytes."""

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mint.atomic import write_whole
from mint.markdown import table
from mint.plots import draw_tradeoff
from mint.records import parse_records, records_bytes

_CELL = ["upper_limit", "groups", "samples_per_class", "fraction"]
_Cell = tuple[str, int, int, str]
_FRACTION = "Fraction asked"
_HEADER = [
    *("Upper limit", "Groups", "Samples per class", _FRACTION, "Params pruned"),
    *("Performance", "Drop", "Seeds", "Bootstraps", "Reliability"),
]
_NOT_RUN = ["not run", "not run", "not run", "0", "not run", "not run"]


def write_report(output: Path, records: pd.DataFrame) -> None:
    """Write records.csv, and from it RESULTS.md and a plot for every experiment.

    Args:
        output: the folder; other files in it are left alone.
        records: with the columns of mint.records.
    """
    content = records_bytes(records)
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
        draw_tradeoff(buffer, own[own["status"] == "finished"], quoted.get("methods", []))
        made[plot] = buffer.getvalue()
        text += _section(str(experiment), str(protocol), own, quoted, plot)
    made["RESULTS.md"] = ("\n".join(text) + "\n").encode()
    for name, written in made.items():
        write_whole(output / name, written)


def _section(
    experiment: str, protocol: str, records: pd.DataFrame, quoted: dict[str, Any], plot: str
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
        cells.setdefault(key[:4], []).append(cell)  # type: ignore[arg-type]
    if quoted:
        shown: set[_Cell] = set()
        for title, rows in (
            ("Group variations", quoted.get("groups", [])),
            ("Sample variations", quoted.get("samples", [])),
        ):
            if not rows:
                continue
            keys = [(*(row[name] for name in _CELL[:3]), "none") for row in rows]
            text += _table(title, keys, cells, rows)
            shown.update(keys)
        others = sorted(set(cells) - shown, key=_by_groups)
        if others:
            text += _table("Others" if shown else "Trials", others, cells)
        text += ["", f"Published figures: {quoted['source']}."]
    elif len(cells) == 1:
        text += _table("Trials", list(cells), cells)
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
        )
        reason = str(record["reason"]).replace("|", r"\|")
        what = [str(record[name]) for name in ("bootstraps", "seed", "status")]
        rows.append([*_axes(key), *what, reason])
    return ["", "### Gaps", "", *table(header, rows, left=(6, 7))]


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
    if all(fraction == "none" for *_, fraction in keys):  # nobody asked for one: no column of it
        column = header.index(_FRACTION)
        for row in (header, *rows):
            del row[column]
    return ["", f"### {title}", "", *table(header, rows)]


def _axes(key: _Cell) -> list[str]:
    limit, groups, samples, fraction = key
    return [
        "N/A" if limit == "none" else limit,
        str(groups),
        str(samples),
        "searched" if fraction == "none" else fraction,
    ]


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
        _range(cell["bootstraps_drawn"]),
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


def _by_groups(key: _Cell) -> tuple[float, float, int, int]:
    limit, groups, samples, fraction = key
    return _limit(limit), _limit(fraction), samples, groups


def _by_samples(key: _Cell) -> tuple[float, float, int, int]:
    limit, groups, samples, fraction = key
    return _limit(limit), _limit(fraction), groups, samples
