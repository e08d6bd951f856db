"""The tables of an experiment's page: criteria, axes, trials and layers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import LayerCount, parse_layers
from mint.reporting.aggregate import (
    ACCURACY,
    NO_RESULT,
    NOT_RUN,
    REGIMES,
    SeedGroup,
    format_axis,
    format_count,
    format_mean,
    link,
    order_of_criteria,
    order_of_tables,
)
from mint.reporting.comparison import ComparedCriterion, Effect
from mint.reporting.layer_text import count_not_prunable, layer_cells
from mint.reporting.markdown import table
from mint.reporting.reference import ReferenceResults
from mint.reporting.statistics import Cell, marked

AXES = ["Upper limit", "Groups", "Samples per class"]
_MOST_OPEN_ROWS = 60  # a longer table is folded
_AXIS_NAMES = {
    "criterion": "Criterion",
    "groups": "Groups",
    "samples_per_class": "Samples per class",
    "bootstraps": "Bootstraps",
}
_DEFAULTS = {
    **dict.fromkeys(["Share at the margin", "Before retraining", "Drop from dense"], NOT_RUN),
    **{"Retraining": "full", "Pruned to": "searched", "Criterion": DEFAULT_CRITERION},
    **{"Axis": "Criterion", "Bootstraps": "N/A", "Reliability": "N/A", "Upper limit": "N/A"},
    "Grouping": "contiguous",
    "Compensate": "no",
}


def baseline_sentences(groups: Sequence[SeedGroup], finished: pd.DataFrame) -> list[str]:
    """Return the accuracies of the baselines and of the dense control of one protocol."""
    if finished.empty:
        return ["Baseline: no trial has finished."]
    by_seed = finished.drop_duplicates("seed")
    seeds = link(format_count(len(by_seed), "seed"), by_seed["line"])
    images = int(by_seed["test_images"].min())
    accuracy = format_mean(by_seed["baseline_accuracy"].to_numpy(), 100 / images if images else 0)
    counted = int(finished["counted_weights"].iloc[0])
    regimes = [regime for regime in REGIMES if dense_control(groups, regime) != NOT_RUN]
    dense = [f"{dense_control(groups, regime)} ({regime})" for regime in regimes]
    return [
        f"Baseline: {accuracy} ({seeds}). {counted} weights counted. Dense control, by retraining: "
        f"{', '.join(dense) or NOT_RUN}."
    ]


def dense_control(groups: Iterable[SeedGroup], retraining: str) -> str:
    """Return the accuracy of the unpruned network after one regime of retraining."""
    own = [group for group in groups if group.retraining == retraining and group.finished]
    by_seed = {row["seed"]: row["dense_accuracy"] for group in own for row in group.finished}
    known = [accuracy for _, accuracy in sorted(by_seed.items()) if not np.isnan(accuracy)]
    return format_mean(known, own[0].resolution) if known else NOT_RUN


def effects_table(effects: Sequence[Effect]) -> list[str]:
    """Return what criteria or axes change, over all settings that share the rest."""
    columns = ["Retraining", "Axis", "From", "To", "Share at the margin", "Accuracy", "Seeds"]
    rows = []
    for effect in effects:
        most = max(each.seeds for each in effect.of if each)
        axis = _AXIS_NAMES[effect.axis]
        rows.append([effect.retraining, axis, effect.low, effect.high, *effect.of, str(most)])
    return _folded([dict(zip(columns, row, strict=True)) for row in marked(rows, NOT_RUN)])


def criteria_table(compared: Sequence[ComparedCriterion]) -> list[str]:
    """Return the criteria at every fraction and margin, each beside the controls."""
    rows: list[dict[str, Cell]] = []
    for row in compared:
        shared = dict(zip(AXES, map(format_axis, row.axes[1:4]), strict=True))
        shared["Grouping"] = row.axes.grouping
        cells: dict[str, Cell] = {**group_cells(row.trials), **shared}
        seeds = cells.pop("Seeds")
        for name, difference in row.against.items():
            cells[f"Against {name}"] = difference or "N/A"
        rows.append({**cells, "Seeds": seeds})
    texts = marked([list(row.values()) for row in rows], NOT_RUN)
    named = [dict(zip(row, text, strict=True)) for row, text in zip(rows, texts, strict=True)]
    return _folded(named, keep=("Criterion",))


def _pruned_to(group: SeedGroup) -> str:
    if group.margin is not None:
        return f"a drop of {group.margin:g}"
    return "searched" if group.fraction == "none" else group.fraction


def trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return a table of seed groups, without columns that have only the default."""
    return _folded([group_cells(group) for group in sorted(groups, key=order_of_tables)])


def group_cells(group: SeedGroup) -> dict[str, str]:
    """Return the cells of a seed group by column."""
    drawn = sorted({row["bootstraps_drawn"] for row in group.finished})
    bootstraps = format_axis(drawn[0]) if drawn else NO_RESULT
    if len(drawn) > 1:
        bootstraps = f"{drawn[0]} to {drawn[-1]}"
    lost = np.array([row["dense_accuracy"] - row[ACCURACY] for row in group.finished])
    lost = lost[~np.isnan(lost)]
    return {
        "Retraining": group.retraining,
        **_axes(group),
        "Share at the margin": group.share,
        "Params pruned": group.mean("params_pruned"),
        "Performance": group.mean(ACCURACY),
        "Before retraining": group.mean("accuracy_before_retraining"),
        "Drop": group.mean("accuracy_drop"),
        "Drop from dense": format_mean(lost, group.resolution) if len(lost) else NOT_RUN,
        "Seeds": group.seeds,
        "Bootstraps": bootstraps,
        "Reliability": group.reliability,
    }


def _axes(group: SeedGroup) -> dict[str, str]:
    values = (group.upper_limit, group.groups, group.samples_per_class)
    axes = dict(zip(AXES, map(format_axis, values), strict=True))
    axes |= {"Grouping": group.grouping, "Compensate": group.compensate}
    return axes | {"Pruned to": _pruned_to(group), "Criterion": group.criterion}


def failed_trials_table(groups: Iterable[SeedGroup]) -> list[str]:
    """Return the failed and stopped trials with their reasons; nothing if there are none."""
    rows = []
    for group in groups:
        shared = {"Retraining": group.retraining, **_axes(group)}
        shared["Bootstraps"] = format_axis(group.bootstraps)
        for row in group.rows:
            if row["status"] != "finished":
                own = {"Seed": link(str(row["seed"]), [row["line"]]), "Trial": row["status"]}
                rows.append(shared | own | {"Reason": row["reason"].replace("|", r"\|")})
    return _folded(rows) if rows else []


def _folded(rows: Sequence[Mapping[str, str]], keep: Iterable[str] = ()) -> list[str]:
    """Return a table without columns that have only their default, folded if it is long."""
    header = list(rows[0])
    without = [
        title
        for title, default in _DEFAULTS.items()
        if title not in keep and all(row.get(title) == default for row in rows)
    ]
    left = [at for at, title in enumerate(header) if title in ("Criterion", "Trial", "Reason")]
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
        text = f"Kept: mean over seeds ({group.seeds}) of {group.criterion}, {group.summary}."
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
