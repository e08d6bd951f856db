"""The tables of RESULTS.md: what is published, what was measured, and what was not run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import LayerCount, parse_layers
from mint.reporting.aggregate import (
    NOT_RUN,
    Cell,
    asked,
    by_groups,
    count,
    criterion_order,
    link,
    spread,
    used,
)
from mint.reporting.comparison import CONFIDENCE, REFERENCE, Compared
from mint.reporting.markdown import table

_AXES = ["Upper limit", "Groups", "Samples per class", "Fraction asked", "Criterion"]
_FRACTION, _CRITERION = _AXES[3:]
_FIGURES = ["Params pruned", "Performance", "Drop", "Seeds", "Bootstraps", "Reliability"]
_PUBLISHED = ["Published pruned", "Published performance"]
_DECIMALS = 6  # within which what is published and what is measured stand at the same place
_FOLDED = 60  # rows from which a table is shown on demand

Quoted = Mapping[str, Any]
"""One experiment of the record, as published.yaml has it."""


def baseline(records: pd.DataFrame) -> str:
    """Return a sentence on the baseline of finished trials of one protocol."""
    if records.empty:
        return "Baseline: no trial has finished."
    by_seed = records.drop_duplicates("seed")
    seeds = link(count(len(by_seed), "seed"), by_seed["line"])
    return (
        f"Baseline: {spread(by_seed['baseline_accuracy'].to_numpy())} ({seeds}). "
        f"{int(records['counted_weights'].iloc[0])} weights counted."
    )


def in_comparison(quoted: Quoted, cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that stand beside published rows: those that prune as much, and `searched`.

    Args:
        quoted: the experiment of the record.
        cells: of the project's experiments that belong to it.
    """
    points = _points(quoted)
    return sorted(
        (cell for cell in cells if cell.fraction in points or _is_searched(cell, quoted)),
        key=lambda cell: (_pruned(cell), by_groups(cell)),
    )


def comparison(
    quoted: Quoted, compared: Sequence[Cell], finished: Mapping[str, pd.DataFrame]
) -> list[str]:
    """Return the record's comparison table with what was measured among what is published.

    Args:
        quoted: the experiment of the record.
        compared: the cells of in_comparison.
        finished: by the name of each protocol, its finished trials.
    """
    header = ["Method", "Params pruned", "Performance", "Seeds", "Setting", "Protocol", "Source"]
    published = quoted["baseline"]
    quote = ["N/A"] * 3
    rows = [["Baseline", "N/A", _quote(published["accuracy"]), *quote, _source(published)]]
    for protocol, records in finished.items():
        if len(records):
            by_seed = records.drop_duplicates("seed")
            accuracy = spread(by_seed["baseline_accuracy"].to_numpy())
            seeds = link(str(len(by_seed)), by_seed["line"])
            rows.append(["Baseline", "N/A", accuracy, seeds, "N/A", protocol, _MEASURED])
    if len(rows) == 1:
        rows.append(["Baseline", "N/A", *_not_run("N/A")])
    placed: list[tuple[float, list[str]]] = []
    for row in quoted["methods"]:
        pruned = row.get("quoted") or _quote(row["params_pruned"])
        share = math.inf if row["params_pruned"] is None else row["params_pruned"]
        figures = [pruned, _quote(row["accuracy"]), *quote]
        placed.append((share, [row["method"], *figures, _source(row)]))
    for cell in compared:
        figures = [cell.spread("params_pruned"), cell.spread("accuracy"), cell.seeds]
        where = [cell.sentence, f"{cell.experiment} {cell.protocol}", _MEASURED]
        placed.append((_pruned(cell), [cell.criterion, *figures, *where]))
    missing = set(_points(quoted)) - {cell.fraction for cell in compared}
    for fraction in sorted(missing):
        row = [DEFAULT_CRITERION, NOT_RUN, *_not_run(f"{fraction} asked")]
        placed.append((100 * float(fraction), row))
    if "searched" in quoted and not any(_is_searched(cell, quoted) for cell in compared):
        placed.append((math.inf, [DEFAULT_CRITERION, NOT_RUN, *_not_run("searched")]))
    rows += [row for _, row in sorted(placed, key=lambda item: round(item[0], _DECIMALS))]
    return table(header, rows, left=(0, 4, 5, 6))


_MEASURED = "**measured**"


def _not_run(setting: str) -> list[str]:
    return [NOT_RUN, "0", setting, NOT_RUN, NOT_RUN]


def _source(row: Mapping[str, Any]) -> str:
    return f"published, {row['source']}"


def _points(quoted: Quoted) -> list[str]:
    """Return what MINT's published rows prune, as a fraction of the records."""
    return [
        f"{row['params_pruned'] / 100:.4g}"
        for row in quoted["methods"]
        if row["method"] == "MINT" and row["params_pruned"] is not None
    ]


def _is_searched(cell: Cell, quoted: Quoted) -> bool:
    return (
        "searched" in quoted
        and cell.searched
        and all(getattr(cell, axis) == value for axis, value in quoted["searched"].items())
    )


def _pruned(cell: Cell) -> float:
    if cell.finished:
        return float(cell.values("params_pruned").mean())
    return math.inf if cell.fraction == "none" else 100 * float(cell.fraction)


def in_variations(rows: Sequence[Mapping[str, Any]], cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return, for every published row of a variation, the cells that were measured for it."""
    measured: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if cell.searched:
            measured.setdefault(_variation(vars(cell)), []).append(cell)
    return [measured.get(_variation(row), []) for row in rows]


def _variation(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[axis] for axis in ("upper_limit", "groups", "samples_per_class"))


def variations(rows: Sequence[Mapping[str, Any]], measured: Sequence[Sequence[Cell]]) -> list[str]:
    """Return the record's table of a variation, with what was measured beside what is published.

    Args:
        rows: published.
        measured: of in_variations.
    """
    lines = []
    for row, cells in zip(rows, measured, strict=True):
        limit = "N/A" if row["upper_limit"] == "none" else row["upper_limit"]
        axes = [limit, str(row["groups"]), str(row["samples_per_class"])]
        published = [_quote(row["params_pruned"]), _quote(row["accuracy"])]
        for figures in [_figures(cell) for cell in cells] or [_NO_FIGURES]:
            lines.append([*axes, *figures[:4], *published, *figures[4:]])
    return table([*_AXES[:3], *_FIGURES[:4], *_PUBLISHED, *_FIGURES[4:]], lines)


def trials(cells: Iterable[Cell]) -> list[str]:
    """Return a table of cells; columns in which all are alike, and mint's default, are left out."""
    header = [*_AXES, *_FIGURES]
    shown = sorted(cells, key=by_groups)
    rows = [[*cell.axes, *_figures(cell)] for cell in shown]
    if all(cell.fraction == "none" for cell in shown):  # nobody asked for one: no column
        _drop(_FRACTION, header, rows)
    if all(cell.criterion == DEFAULT_CRITERION for cell in shown):
        _drop(_CRITERION, header, rows)
    left = [header.index(_CRITERION)] if _CRITERION in header else []
    return _folded(table(header, rows, left=left), len(rows))


_NO_FIGURES = [*[NOT_RUN] * 3, "0", *[NOT_RUN] * 2]


def _figures(cell: Cell) -> list[str]:
    return [
        *(cell.spread(column) for column in ("params_pruned", "accuracy", "accuracy_drop")),
        cell.seeds,
        cell.bootstraps_drawn,
        cell.reliability,
    ]


def criteria(compared: Sequence[Compared]) -> list[str]:
    """Return the table of the criteria at every budget, each against random blocks."""
    header = [*_AXES, *_FIGURES[:2], "Against random", "Seeds"]
    rows = []
    for row in compared:
        setting, own = row.setting, row.trials
        rows.append(
            [
                "N/A" if setting.upper_limit == "none" else setting.upper_limit,
                used(setting.groups),
                used(setting.samples_per_class),
                asked(row.fraction),
                row.criterion,
                *(own.spread(column) for column in ("params_pruned", "accuracy")),
                _against_random(row),
                own.seeds,
            ]
        )
    return [
        *_folded(table(header, rows, left=(header.index(_CRITERION),)), len(rows)),
        "",
        "Against random: accuracy less that of random blocks with the same seed and budget, in "
        f"percentage points; the mean over seeds [its {CONFIDENCE:.0%} interval of Student's t], "
        "with an asterisk where that leaves out 0, as it does by chance in one of twenty.",
    ]


def _against_random(row: Compared) -> str:
    difference = row.against_random
    return "N/A" if row.criterion == REFERENCE or difference is None else difference.told


def gaps(cells: Iterable[Cell]) -> list[str]:
    """Return the trials that were run and have no figures, with the reasons; empty without any."""
    header = [*_AXES, "Bootstraps", "Seed", "Trial", "Reason"]
    rows = [
        [
            *cell.axes,
            used(cell.bootstraps),
            link(str(row["seed"]), [row["line"]]),
            row["status"],
            str(row["reason"]).replace("|", r"\|"),
        ]
        for cell in cells
        for row in cell.rows
        if row["status"] != "finished"
    ]
    if not rows:
        return []
    criterion = header.index(_CRITERION)
    if all(row[criterion] == DEFAULT_CRITERION for row in rows):
        _drop(_CRITERION, header, rows)
    left = [header.index(name) for name in (_CRITERION, "Trial", "Reason") if name in header]
    return _folded(table(header, rows, left=left), len(rows))


def for_breakdown(compared: Sequence[Cell]) -> Cell | None:
    """Return the cell whose layers are broken down: of most seeds, MINT first, highest up."""
    measured = [cell for cell in compared if cell.finished]
    return min(
        measured,
        key=lambda cell: (-len(cell.finished), criterion_order(cell.criterion)),
        default=None,
    )


def breakdown(
    network: Sequence[LayerCount], reduced: Mapping[str, int], cell: Cell | None
) -> list[str]:
    """Return the record's layer breakdown: pairs that may be pruned are starred.

    Args:
        network: its layers, and which of them may be pruned.
        reduced: what the record has as their reduced weights.
        cell: whose mean over seeds is told as kept; None where nothing was run.
    """
    kept = _kept(network, cell)
    total, left = sum(layer.weights for layer in network), [0.0, *kept]
    header = ["Layer pair", "Total", "Kept", "Kept (%)", "Published reduced", "Untouched, because"]
    rows = []
    for layer, own in zip(network, kept, strict=True):
        star = "" if layer.reason else r"\*"
        rows.append(
            [
                f"{star}{layer.parent} - {layer.name}{star}",
                str(layer.weights),
                *_told(own, layer.weights),
                _open(reduced.get(layer.name)),
                layer.reason or "N/A",
            ]
        )
    unknown = [own for own in left if isinstance(own, str)]
    in_all = unknown[0] if unknown else math.fsum(own for own in left if not isinstance(own, str))
    rows.append(["Total", str(total), *_told(in_all, total), "open", "N/A"])
    if not reduced:
        _drop("Published reduced", header, rows)
    prunable = sum(layer.weights for layer in network if not layer.reason)
    return [
        *table(header, rows, left=(0, len(header) - 1)),
        "",
        f"Untouched weights: {total} - {prunable} = {total - prunable}.",
    ]


def _kept(network: Sequence[LayerCount], cell: Cell | None) -> list[float | str]:
    """Return a number for every layer, or the word why there is none."""
    word, mean = NOT_RUN, None
    if cell is not None:
        word = "unknown"
        seeds = [parse_layers(text) for text in cell.known_layers]
        if seeds and all(_names(layers) == _names(network) for layers in seeds):
            mean = np.mean([[layer.kept or 0 for layer in layers] for layers in seeds], axis=0)
    return [
        float(mean[index]) if mean is not None else layer.weights if layer.reason else word
        for index, layer in enumerate(network)
    ]


def _names(layers: Iterable[LayerCount]) -> list[tuple[str, int]]:
    return [(layer.name, layer.weights) for layer in layers]


def _told(kept: float | str, weights: int) -> list[str]:
    if isinstance(kept, str):
        return [kept, kept]
    return [f"{kept:.1f}".removesuffix(".0"), f"{100 * kept / weights:.1f}"]


def _open(figure: int | None) -> str:
    return "open" if figure is None else str(figure)


def _quote(figure: float | None) -> str:
    return "open" if figure is None else f"{figure:.2f}"


def _drop(title: str, header: list[str], rows: Sequence[list[str]]) -> None:
    column = header.index(title)
    for row in (header, *rows):
        del row[column]


def _folded(lines: list[str], rows: int) -> list[str]:
    if rows <= _FOLDED:
        return lines
    return [
        f"<details><summary>{rows} rows</summary>",
        "",
        *lines,
        "",
        "</details>",
    ]
