"""The tables of RESULTS.md: published rows, measured rows, and what was not run."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import LayerCount, parse_layers
from mint.reporting.aggregate import (
    NO_RESULT,
    NOT_RUN,
    SeedGroup,
    format_axis,
    format_count,
    format_mean,
    link,
    order_of_criteria,
    order_of_tables,
)
from mint.reporting.comparison import CONFIDENCE, CONTROL, ComparedCriterion, format_difference
from mint.reporting.layer_text import count_not_prunable, layer_cells
from mint.reporting.markdown import table
from mint.reporting.reference import ReferenceResults, Variation

_AXES = ["Upper limit", "Groups", "Samples per class", "Fraction", "Criterion"]
_FIGURES = ["Params pruned", "Performance", "Drop", "Seeds", "Bootstraps", "Reliability"]
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
    return format_mean(by_seed["baseline_accuracy"].to_numpy()), link(number, by_seed["line"])


def comparable(reference: ReferenceResults, groups: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return the seed groups with a published fraction, and those of the reference's search."""
    fractions = _fractions(reference, {row.method for row in reference.methods})
    own = [
        group
        for group in groups
        if group.fraction in fractions or _is_compared_search(group, reference)
    ]
    return sorted(own, key=lambda group: (_percent_pruned(group), order_of_tables(group)))


def _fractions(reference: ReferenceResults, methods: Iterable[str]) -> set[str]:
    """Return the published fractions of methods as the trial table writes them."""
    percents = [row.params_pruned for row in reference.methods if row.method in methods]
    return {f"{percent / 100:.4g}" for percent in percents if percent is not None}


def _is_compared_search(group: SeedGroup, reference: ReferenceResults) -> bool:
    searched = reference.searched
    return searched is not None and group.searched_axes == searched.axes


def _percent_pruned(group: SeedGroup) -> float:
    if group.finished:
        return float(group.values("params_pruned").mean())
    return math.inf if group.fraction == "none" else 100 * float(group.fraction)


def comparison_table(
    reference: ReferenceResults,
    compared: Sequence[SeedGroup],
    finished: Iterable[tuple[str, pd.DataFrame]],
) -> list[str]:
    """Return published and measured rows, by params pruned; finished has protocols by name."""
    header = ["Method", "Params pruned", "Performance", "Seeds", "Setting", "Protocol", "Source"]
    quoted, not_run, baseline = ["N/A"] * 3, [NOT_RUN] * 2, ["Baseline", "N/A"]
    published = reference.baseline
    first = [*baseline, _figure(published.accuracy), *quoted, f"published, {published.source}"]
    baselines = [
        [*baseline, *_baseline(trials), "N/A", protocol, _MEASURED]
        for protocol, trials in finished
        if len(trials)
    ]
    rows = []
    for method in reference.methods:
        pruned = math.inf if method.params_pruned is None else method.params_pruned
        figures = [method.quoted or _figure(method.params_pruned), _figure(method.accuracy)]
        rows.append((pruned, [method.method, *figures, *quoted, f"published, {method.source}"]))
    for group in compared:
        figures = [group.mean("params_pruned"), group.mean("accuracy"), group.seeds, group.summary]
        protocol = f"{group.experiment} {group.protocol}"
        rows.append((_percent_pruned(group), [group.criterion, *figures, protocol, _MEASURED]))
    fractions = _fractions(reference, ["MINT"]) - {group.fraction for group in compared}
    missing = [(100 * float(fraction), f"fraction {fraction}") for fraction in sorted(fractions)]
    if reference.searched and not any(_is_compared_search(group, reference) for group in compared):
        missing.append((math.inf, "fraction searched"))
    for pruned, setting in missing:
        rows.append((pruned, [DEFAULT_CRITERION, *not_run, "0", setting, *not_run]))
    rows.sort(key=lambda row: round(row[0], _DECIMALS))
    top = [first, *(baselines or [[*baseline, NOT_RUN, "0", "N/A", *not_run]])]
    return table(header, [*top, *(row for _, row in rows)], left=(0, 4, 5, 6))


def variation_table(published: Sequence[Variation], groups: Sequence[SeedGroup]) -> list[str]:
    """Return the table of a variation: figures of searches beside the published ones."""
    rows = []
    for row in published:
        shared = {
            "Upper limit": format_axis(row.upper_limit),
            "Groups": str(row.groups),
            "Samples per class": str(row.samples_per_class),
            "Published pruned": _figure(row.params_pruned),
            "Published performance": _figure(row.accuracy),
        }
        measured = [_cells(group) for group in groups if group.searched_axes == row.axes]
        rows += [cells | shared for cells in measured or [{"Seeds": "0"}]]
    published_columns = ["Published pruned", "Published performance"]
    header = [*_AXES[:3], *_FIGURES[:4], *published_columns, *_FIGURES[4:]]
    return table(header, [[row.get(title, NOT_RUN) for title in header] for row in rows])


def _figure(published: float | None) -> str:
    return "open" if published is None else f"{published:.2f}"


def _cells(group: SeedGroup) -> dict[str, str]:
    """Return the cells of a seed group by column."""
    axes = (group.upper_limit, group.groups, group.samples_per_class)
    fraction = "searched" if group.fraction == "none" else group.fraction
    columns = ("params_pruned", "accuracy", "accuracy_drop")
    drawn = sorted({row["bootstraps_drawn"] for row in group.finished})
    bootstraps = format_axis(drawn[0]) if drawn else NO_RESULT
    if len(drawn) > 1:
        bootstraps = f"{drawn[0]} to {drawn[-1]}"
    figures = [*map(group.mean, columns), group.seeds, bootstraps, group.reliability]
    cells = [*map(format_axis, axes), fraction, group.criterion, *figures]
    return dict(zip([*_AXES, *_FIGURES], cells, strict=True))


def trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a table of seed groups, without columns that have only the default."""
    rows = [_cells(group) for group in sorted(groups, key=order_of_tables)]
    return _folded(rows, {"Criterion": DEFAULT_CRITERION, "Fraction": "searched"})


def criteria_table(compared: Sequence[ComparedCriterion]) -> list[str]:
    """Return the criteria at every fraction, each beside random blocks."""
    rows = []
    for row in compared:
        cells = _cells(row.trials) | dict(zip(_AXES, map(format_axis, row.axes[:3]), strict=False))
        difference = row.against_random
        cells["Against random"] = format_difference(difference) if difference else "N/A"
        shown = [*_AXES, *_FIGURES[:2], "Against random", "Seeds"]
        rows.append({title: cells[title] for title in shown})
    return [
        *_folded(rows, {}),
        "",
        f"Against random: accuracy minus that of {CONTROL} blocks with the same seed and fraction, "
        f"in percentage points. Mean over seeds [{CONFIDENCE:.0%} interval of Student's t]; a star "
        "marks an interval that excludes 0. By chance, one of twenty does.",
    ]


def failed_trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return the failed and stopped trials with their reasons; nothing if there are none."""
    rows = []
    for group in groups:
        cells = _cells(group)
        shared = {title: cells[title] for title in _AXES}
        shared["Bootstraps"] = format_axis(group.bootstraps)
        for row in group.rows:
            if row["status"] != "finished":
                own = {"Seed": link(str(row["seed"]), [row["line"]]), "Trial": row["status"]}
                rows.append(shared | own | {"Reason": row["reason"].replace("|", r"\|")})
    return _folded(rows, {"Criterion": DEFAULT_CRITERION}) if rows else []


def _folded(rows: Sequence[Mapping[str, str]], defaults: Mapping[str, str]) -> list[str]:
    """Return a table without columns that have only their default, folded if it is long."""
    header = list(rows[0])
    without = [
        title for title, default in defaults.items() if all(row[title] == default for row in rows)
    ]
    left = [i for i, title in enumerate(header) if title in ("Criterion", "Trial", "Reason")]
    lines = table(header, [list(row.values()) for row in rows], left=left, without=without)
    if len(rows) <= _MOST_OPEN_ROWS:
        return lines
    return [f"<details><summary>{len(rows)} rows</summary>", "", *lines, "", "</details>"]


def breakdown_section(reference: ReferenceResults, compared: Sequence[SeedGroup]) -> list[str]:
    """Return the layers of the reference's network, with the weights that trials keep."""
    network = reference.layers
    group = min(
        (group for group in compared if group.finished),
        key=lambda group: (-len(group.finished), order_of_criteria(group.criterion)),
        default=None,
    )
    text, unknown = "Kept: not run.", NOT_RUN
    if group:
        unknown = "unknown"
        text = (
            f"Kept: mean over seeds ({group.seeds}) of {group.experiment} {group.protocol}, "
            f"{group.criterion}, {group.summary}. It is the row above with most seeds; of those "
            "MINT's, then the first."
        )
    header = ["Layer pair", "Total", "Kept", "Kept (%)", "Published reduced"]
    cells = layer_cells(network, _mean_kept(network, group), r"\*", unknown)
    published = [*(str(reference.reduced.get(layer.name, "open")) for layer in network), "open"]
    reasons = [*(layer.reason or "N/A" for layer in network), "N/A"]
    rows = [[*own, *more] for own, *more in zip(cells, published, reasons, strict=True)]
    without = () if reference.reduced else header[4:]
    return [
        *("", "### Layer breakdown", "", text, ""),
        *table([*header, "Not prunable, because"], rows, left=(0, 5), without=without),
        *("", f"{count_not_prunable(network)}."),
    ]


def _mean_kept(network: Sequence[LayerCount], group: SeedGroup | None) -> list[float | None]:
    """Return the kept weights of every layer; None if they were not measured."""
    own = [(layer.name, layer.weights) for layer in network]
    seeds = [parse_layers(row["layers"]) for row in group.finished] if group else []
    if seeds and all([(each.name, each.weights) for each in layers] == own for layers in seeds):
        kept = np.mean([[layer.kept or 0 for layer in layers] for layers in seeds], axis=0)
        return [float(number) for number in kept]
    return [layer.weights if layer.reason else None for layer in network]
