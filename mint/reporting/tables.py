"""The tables of RESULTS.md: published rows, measured rows, and what was not run."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import LayerCount, parse_layers
from mint.reporting.aggregate import (
    NOT_RUN,
    SeedGroup,
    format_axis,
    format_count,
    format_mean,
    link,
    order_of_criteria,
    order_of_tables,
)
from mint.reporting.comparison import CONTROL, ComparedCriterion
from mint.reporting.markdown import table
from mint.reporting.reference import ReferenceResults, Variation
from mint.reporting.statistics import CONFIDENCE, format_difference

_AXES = ["Upper limit", "Groups", "Samples per class", "Fraction", "Criterion"]
_FRACTION, _CRITERION = _AXES[3:]
_FIGURES = ["Params pruned", "Performance", "Drop", "Seeds", "Bootstraps", "Reliability"]
_NO_FIGURES = [*[NOT_RUN] * 3, "0", *[NOT_RUN] * 2]
_PUBLISHED = ["Published pruned", "Published performance"]
_MEASURED = "**measured**"
_DECIMALS = 6  # of percents that count as equal
_MOST_OPEN_ROWS = 60  # a longer table is folded


def baseline_sentence(finished: pd.DataFrame) -> str:
    """Return the accuracy of the baselines of one protocol's finished trials."""
    if finished.empty:
        return "Baseline: no trial has finished."
    accuracy, seeds = _baseline(finished, "seed")
    counted = int(finished["counted_weights"].iloc[0])
    return f"Baseline: {accuracy} ({seeds}). {counted} weights counted."


def _baseline(finished: pd.DataFrame, noun: str = "") -> tuple[str, str]:
    by_seed = finished.drop_duplicates("seed")
    number = format_count(len(by_seed), noun) if noun else str(len(by_seed))
    accuracy = format_mean(by_seed["baseline_accuracy"].to_numpy())
    return accuracy, link(number, by_seed["line"])


def comparable(reference: ReferenceResults, groups: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return the seed groups that belong beside published methods.

    They prune the fraction of a published row, or are the reference's search.
    """
    published = {_fraction(row.params_pruned) for row in reference.methods}
    return sorted(
        (
            group
            for group in groups
            if group.fraction in published or _is_compared_search(group, reference)
        ),
        key=lambda group: (_percent_pruned(group), order_of_tables(group)),
    )


def comparison_table(
    reference: ReferenceResults,
    compared: Sequence[SeedGroup],
    finished: Iterable[tuple[str, pd.DataFrame]],
) -> list[str]:
    """Return published and measured rows, sorted by params pruned.

    Args:
        reference: the published rows.
        compared: the seed groups of comparable().
        finished: of each protocol its name and its finished trials.
    """
    header = ["Method", "Params pruned", "Performance", "Seeds", "Setting", "Protocol", "Source"]
    published = reference.baseline
    rows = [["Baseline", "N/A", _figure(published.accuracy), *_quote(published.source)]]
    for protocol, trials in finished:
        if len(trials):
            rows.append(["Baseline", "N/A", *_baseline(trials), "N/A", protocol, _MEASURED])
    if len(rows) == 1:
        rows.append(["Baseline", "N/A", *_not_run("N/A")])
    placed: list[tuple[float, list[str]]] = []
    for method in reference.methods:
        pruned = method.quoted or _figure(method.params_pruned)
        place = math.inf if method.params_pruned is None else method.params_pruned
        row = [method.method, pruned, _figure(method.accuracy), *_quote(method.source)]
        placed.append((place, row))
    for group in compared:
        figures = [group.mean("params_pruned"), group.mean("accuracy"), group.seeds]
        protocol = f"{group.experiment} {group.protocol}"
        row = [group.criterion, *figures, group.summary, protocol, _MEASURED]
        placed.append((_percent_pruned(group), row))
    own = {_fraction(row.params_pruned) for row in reference.methods if row.method == "MINT"}
    missing = own - {None} - {group.fraction for group in compared}
    for fraction in sorted(filter(None, missing)):
        row = [DEFAULT_CRITERION, NOT_RUN, *_not_run(f"fraction {fraction}")]
        placed.append((100 * float(fraction), row))
    if reference.searched and not any(_is_compared_search(group, reference) for group in compared):
        row = [DEFAULT_CRITERION, NOT_RUN, *_not_run("fraction searched")]
        placed.append((math.inf, row))
    rows += [row for _, row in sorted(placed, key=lambda item: round(item[0], _DECIMALS))]
    return table(header, rows, left=(0, 4, 5, 6))


def _not_run(setting: str) -> list[str]:
    return [NOT_RUN, "0", setting, NOT_RUN, NOT_RUN]


def _quote(source: str) -> list[str]:
    return ["N/A", "N/A", "N/A", f"published, {source}"]


def _fraction(percent: float | None) -> str | None:
    """Return a published percentage as a fraction of the trial table."""
    return None if percent is None else f"{percent / 100:.4g}"


def _is_compared_search(group: SeedGroup, reference: ReferenceResults) -> bool:
    searched = reference.searched
    return bool(searched) and group.is_mint_search and _point(group) == _point(searched)


def _point(row: Any) -> tuple[Any, ...]:
    return row.upper_limit, row.groups, row.samples_per_class


def _percent_pruned(group: SeedGroup) -> float:
    if group.finished:
        return float(group.values("params_pruned").mean())
    return math.inf if group.fraction == "none" else 100 * float(group.fraction)


def measured_variations(
    published: Sequence[Variation], groups: Iterable[SeedGroup]
) -> list[list[SeedGroup]]:
    """Return for every published row of a variation the seed groups with its axes."""
    measured: dict[tuple[Any, ...], list[SeedGroup]] = {}
    for group in groups:
        if group.is_mint_search:
            measured.setdefault(_point(group), []).append(group)
    return [measured.get(_point(row), []) for row in published]


def variation_table(
    published: Sequence[Variation], measured: Sequence[Sequence[SeedGroup]]
) -> list[str]:
    """Return the table of a variation: measured figures beside the published ones.

    Args:
        published: rows of the variation.
        measured: of measured_variations().
    """
    lines = []
    for row, groups in zip(published, measured, strict=True):
        axes = [format_axis(row.upper_limit), str(row.groups), str(row.samples_per_class)]
        quoted = [_figure(row.params_pruned), _figure(row.accuracy)]
        for figures in [_figures(group) for group in groups] or [_NO_FIGURES]:
            lines.append([*axes, *figures[:4], *quoted, *figures[4:]])
    return table([*_AXES[:3], *_FIGURES[:4], *_PUBLISHED, *_FIGURES[4:]], lines)


def trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a table of seed groups, without columns that have only the default."""
    shown = sorted(groups, key=order_of_tables)
    header = [*_AXES, *_FIGURES]
    rows = [[*group.axes, *_figures(group)] for group in shown]
    if all(group.fraction == "none" for group in shown):
        _drop_column(_FRACTION, header, rows)
    return _with_criterion(header, rows)


def _figures(group: SeedGroup) -> list[str]:
    return [
        *(group.mean(column) for column in ("params_pruned", "accuracy", "accuracy_drop")),
        group.seeds,
        group.bootstraps_drawn,
        group.reliability,
    ]


def criteria_table(compared: Sequence[ComparedCriterion]) -> list[str]:
    """Return the criteria at every fraction, each beside random blocks."""
    header = [*_AXES, *_FIGURES[:2], "Against random", "Seeds"]
    rows = [
        [
            format_axis(row.axes.upper_limit),
            format_axis(row.axes.groups),
            format_axis(row.axes.samples_per_class),
            row.trials.fraction,
            row.trials.criterion,
            *(row.trials.mean(column) for column in ("params_pruned", "accuracy")),
            format_difference(row.against_random) if row.against_random else "N/A",
            row.trials.seeds,
        ]
        for row in compared
    ]
    return [
        *_folded(table(header, rows, left=(header.index(_CRITERION),)), len(rows)),
        "",
        f"Against random: accuracy minus that of {CONTROL} blocks with the same seed and fraction, "
        f"in percentage points. Mean over seeds [{CONFIDENCE:.0%} interval of Student's t]; a star "
        "marks an interval that excludes 0. By chance, one of twenty does.",
    ]


def failed_trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return the failed and stopped trials with their reasons; nothing if there are none."""
    header = [*_AXES, "Bootstraps", "Seed", "Trial", "Reason"]
    rows = [
        [
            *group.axes,
            format_axis(group.bootstraps),
            link(str(row["seed"]), [row["line"]]),
            row["status"],
            str(row["reason"]).replace("|", r"\|"),
        ]
        for group in groups
        for row in group.rows
        if row["status"] != "finished"
    ]
    return _with_criterion(header, rows) if rows else []


def _with_criterion(header: list[str], rows: Sequence[list[str]]) -> list[str]:
    criterion = header.index(_CRITERION)
    if all(row[criterion] == DEFAULT_CRITERION for row in rows):
        _drop_column(_CRITERION, header, rows)
    words = (_CRITERION, "Trial", "Reason")
    left = [header.index(name) for name in words if name in header]
    return _folded(table(header, rows, left=left), len(rows))


def breakdown_section(reference: ReferenceResults, compared: Sequence[SeedGroup]) -> list[str]:
    """Return the layers of the reference's network, with the weights that trials keep.

    Args:
        reference: with layers.
        compared: the seed groups of comparable().
    """
    finished = [group for group in compared if group.finished]
    group = min(
        finished,
        key=lambda group: (-len(group.finished), order_of_criteria(group.criterion)),
        default=None,
    )
    if group is None:
        text = "Kept: not run."
    else:
        text = (
            f"Kept: mean over seeds ({group.seeds}) of {group.experiment} {group.protocol}, "
            f"{group.criterion}, {group.summary}. It is the row above with most seeds; of those "
            "MINT's, then the first."
        )
    return ["", "### Layer breakdown", "", text, "", *_breakdown_table(reference, group)]


def _breakdown_table(reference: ReferenceResults, group: SeedGroup | None) -> list[str]:
    network = reference.network
    kept = _mean_kept(network, group)
    unknown = NOT_RUN if group is None else "unknown"
    header = [
        "Layer pair",
        "Total",
        "Kept",
        "Kept (%)",
        "Published reduced",
        "Not prunable, because",
    ]
    rows = []
    for layer, own in zip(network, kept, strict=True):
        star = "" if layer.reason else r"\*"
        reduced = reference.reduced.get(layer.name)
        rows.append(
            [
                f"{star}{layer.parent} - {layer.name}{star}",
                str(layer.weights),
                *_format_kept(own, layer.weights, unknown),
                "open" if reduced is None else str(reduced),
                layer.reason or "N/A",
            ]
        )
    total = sum(layer.weights for layer in network)
    known = [own for own in kept if own is not None]
    in_all = math.fsum(known) if len(known) == len(kept) else None
    rows.append(["Total", str(total), *_format_kept(in_all, total, unknown), "open", "N/A"])
    if not reference.reduced:
        _drop_column("Published reduced", header, rows)
    prunable = sum(layer.weights for layer in network if not layer.reason)
    return [
        *table(header, rows, left=(0, len(header) - 1)),
        "",
        f"Not prunable: {total} - {prunable} = {total - prunable}.",
    ]


def _mean_kept(network: Sequence[LayerCount], group: SeedGroup | None) -> list[float | None]:
    """Return the kept weights of every layer; None if they were not measured."""
    own = [(layer.name, layer.weights) for layer in network]
    seeds = [parse_layers(text) for text in group.layers] if group else []
    if seeds and all([(each.name, each.weights) for each in layers] == own for layers in seeds):
        kept = np.mean([[layer.kept or 0 for layer in layers] for layers in seeds], axis=0)
        return [float(number) for number in kept]
    return [layer.weights if layer.reason else None for layer in network]


def _format_kept(kept: float | None, weights: int, unknown: str) -> list[str]:
    if kept is None:
        return [unknown, unknown]
    return [f"{kept:.1f}".removesuffix(".0"), f"{100 * kept / weights:.1f}"]


def _figure(published: float | None) -> str:
    return "open" if published is None else f"{published:.2f}"


def _drop_column(title: str, header: list[str], rows: Sequence[list[str]]) -> None:
    column = header.index(title)
    for row in (header, *rows):
        del row[column]


def _folded(lines: list[str], rows: int) -> list[str]:
    if rows <= _MOST_OPEN_ROWS:
        return lines
    return [f"<details><summary>{rows} rows</summary>", "", *lines, "", "</details>"]
