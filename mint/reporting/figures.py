"""The figures of a report: accuracy against params pruned, criteria, variations, layers."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import parse_layers
from mint.reporting.aggregate import Row, SeedGroup, order_of_criteria, order_of_tables
from mint.reporting.comparison import ComparedCriterion, SharedAxes
from mint.reporting.curves import VARIED_AXES, Curve
from mint.reporting.figure_style import (
    COLOURS,
    LINES,
    MARKERS,
    add_grid,
    line_handle,
    new_figure,
    patch_handle,
    save,
)
from mint.reporting.reference import Method
from mint.reporting.statistics import CONFIDENCE, half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS_PER_ROW = 3
_MOST_PANELS = 6
_MOST_LINES = 6  # in a figure of layers
_ACCURACIES = (10, 50, 80, 90, 95, 96, 97, 98, 98.5, 99, 99.5, 99.9)
_FRACTIONS = (0, 20, 40, 60, 70, 80, 85, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_MOST_PERCENT = 99.95  # a logarithmic scale of the remainder has no place for 100
_LABELS = {"params_pruned": "params pruned (%)", "accuracy": "test accuracy (%)"}
_Style = tuple[str, str, str]  # line, colour, marker


def draw_tradeoff(file: BinaryIO, groups: Sequence[SeedGroup], published: Sequence[Method]) -> None:
    """Draw accuracy against params pruned: a point for each seed group, the mean over its seeds.

    Error bars are one standard deviation. Kept weights are on a logarithmic scale.

    Args:
        file: receives the PNG.
        groups: of one protocol, with finished trials.
        published: rows of others, drawn as crosses.
    """
    figure = new_figure(8.4, 4.8)
    axes = figure.subplots()
    axes.set_xscale("function", functions=(_log_remainder, _from_log_remainder))
    numbers = sorted({group.groups for group in groups})
    colours = dict(zip(numbers, cycle(COLOURS), strict=False))
    markers: dict[str, str] = {}
    for group in sorted(
        groups, key=lambda group: (order_of_criteria(group.criterion), order_of_tables(group))
    ):
        named = [] if group.criterion == DEFAULT_CRITERION else [group.criterion]
        kind = ", ".join([*named, f"limit {group.upper_limit}"])
        pruned, accuracy = (group.values(column) for column in _LABELS)
        axes.errorbar(
            pruned.mean(),
            accuracy.mean(),
            xerr=_deviation(pruned),
            yerr=_deviation(accuracy),
            color=colours[group.groups],
            marker=markers.setdefault(kind, MARKERS[len(markers) % len(MARKERS)]),
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=0.8,
        )
    _draw_baseline(axes, [trial for group in groups for trial in group.finished])
    axes.margins(0.09)
    _draw_published(axes, published)
    least, most = axes.get_xlim()
    ticks = [tick for tick in _FRACTIONS if least <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=_LABELS["params_pruned"], ylabel=_LABELS["accuracy"])
    add_grid(axes)
    handles = [patch_handle(f"{number or 'no'} groups", colours[number]) for number in numbers]
    for kind, marker in markers.items():
        handles.append(line_handle(kind, linestyle="none", marker=marker, color="0.4"))
    handles += [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    save(figure, file)


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the standard deviation over seeds; nan, which is not drawn, for one seed."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _draw_published(axes: "Axes", methods: Sequence[Method]) -> None:
    """Draw published points as crosses, with names above and below in turn to overlap less."""
    known = sorted(
        (method.params_pruned, method.accuracy, method.method)
        for method in methods
        if method.params_pruned is not None and method.accuracy is not None
    )
    if not known:
        return
    x, y, _ = zip(*known, strict=True)
    axes.plot(x, y, "+", color="0.25", markersize=8, label="published")
    for at, (pruned, accuracy, name) in enumerate(known):
        axes.annotate(
            name,
            (pruned, accuracy),
            (0, -11 if at % 2 else 5),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            color="0.25",
        )


def draw_criteria(file: BinaryIO, compared: Sequence[ComparedCriterion]) -> None:
    """Draw accuracy against params pruned: a line for each criterion, a panel for shared axes.

    Bands are one standard deviation over seeds. Kept weights and errors are on logarithmic scales.

    Args:
        file: receives the PNG.
        compared: in the order of the fractions; the six panels with most rows are drawn.
    """
    rows_of = Counter(row.axes for row in compared)
    shown = sorted(rows_of, key=rows_of.__getitem__, reverse=True)[:_MOST_PANELS]
    criteria = list(dict.fromkeys(row.trials.criterion for row in compared))
    looks = (
        (line, colour, marker)
        for (line, colour), marker in zip(product(LINES, COLOURS), cycle(MARKERS), strict=False)
    )
    styles = dict(zip(criteria, looks, strict=False))
    columns = min(len(shown), _PANELS_PER_ROW)
    rows = -(-len(shown) // columns)
    figure = new_figure(1.8 + 5.8 * columns, 4.8 * rows)
    panels = np.ravel(figure.subplots(rows, columns, sharey=True, squeeze=False))
    for axes, shared in zip(panels, shown, strict=False):
        _draw_panel(axes, [row for row in compared if row.axes == shared], styles)
        axes.set_title(_title(shared), fontsize="medium")
    _limit_accuracies(panels[: len(shown)])
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles = [
        line_handle(name, linestyle=line, color=colour, marker=marker, markersize=4)
        for name, (line, colour, marker) in styles.items()
    ]
    figure.legend(handles=[*handles, panels[0].lines[-1]], loc="outside right upper", fontsize=8)
    save(figure, file)


def _draw_panel(
    axes: "Axes", compared: Sequence[ComparedCriterion], styles: Mapping[str, _Style]
) -> None:
    for criterion, (line, colour, marker) in styles.items():
        trials = [row.trials for row in compared if row.trials.criterion == criterion]
        if not trials:
            continue
        kept = [100 - group.values("params_pruned").mean() for group in trials]
        values = [group.values("accuracy") for group in trials]
        mean = np.array([each.mean() for each in values])
        deviation = np.array([_deviation(each) for each in values])
        axes.plot(kept, mean, line, color=colour, marker=marker, markersize=4)
        axes.fill_between(
            kept, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0
        )
    _draw_baseline(axes, [trial for row in compared for trial in row.trials.finished])
    axes.set_xscale("log")
    axes.invert_xaxis()
    fractions = sorted({float(row.trials.fraction) for row in compared} - {1.0})
    axes.set_xticks([100 * (1 - fraction) for fraction in fractions])
    axes.set_xticklabels([f"{100 * fraction:g}" for fraction in fractions], fontsize=8)
    axes.minorticks_off()
    axes.set(xlabel=_LABELS["params_pruned"], ylabel=_LABELS["accuracy"])
    add_grid(axes)


def _limit_accuracies(panels: Iterable["Axes"]) -> None:
    """Scale the accuracies by the lines alone: a criterion that collapses has a wide band."""
    panels = list(panels)
    of_lines = [line.get_ydata() for axes in panels for line in axes.lines]
    accuracies = np.concatenate([np.asarray(values, np.float64) for values in of_lines])
    least = 100 - 1.15 * (100 - accuracies.min())
    most = 100 - (100 - min(_MOST_PERCENT, accuracies.max())) / 1.15
    for axes in panels:
        axes.set_yscale("function", functions=(_log_remainder, _from_log_remainder))
        axes.set_ylim(least, most)
        axes.set_yticks([tick for tick in _ACCURACIES if least <= tick <= most])


def _log_remainder(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = -np.log10(100 - np.minimum(percent, _MOST_PERCENT))
    return scaled


def _from_log_remainder(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    percent: NDArray[np.float64] = 100 - 10**-scaled
    return percent


def _title(shared: SharedAxes) -> str:
    used = {
        "groups": shared.groups,
        "samples per class": shared.samples_per_class,
        "bootstraps": shared.bootstraps,
    }
    parts = [f"{number} {name}" for name, number in used.items() if number]
    return ", ".join([*parts, f"limit {shared.upper_limit}"])


def draw_variations(file: BinaryIO, curves: Sequence[Curve]) -> None:
    """Draw params pruned and accuracy against groups and against samples per class.

    Bands are intervals of Student's t of the mean over seeds; published points are hollow.

    Args:
        file: receives the PNG.
        curves: of mint.reporting.curves.
    """
    shown = [axis for axis in VARIED_AXES if any(curve.axis == axis for curve in curves)]
    figure = new_figure(0.6 + 5.2 * len(shown), 7.6)
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, axis in enumerate(shown):
        own = list(zip([curve for curve in curves if curve.axis == axis], _styles(), strict=False))
        for axes, drawn in zip(panels[:, column], _LABELS, strict=True):
            places: set[int] = set()
            for curve, style in own:
                places.update(_draw_curve(axes, curve, drawn, style))
            axes.set_xscale("log")
            axes.set_xticks(sorted(places), [str(place) for place in sorted(places)])
            axes.minorticks_off()
            axes.set(xlabel=VARIED_AXES[axis], ylabel=_LABELS[drawn])
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -3), min(high, 103))  # an interval may leave 0 to 100
            add_grid(axes)
        handles = [
            line_handle(curve.label, color=colour, linestyle=line, marker=marker)
            for curve, (line, colour, marker) in own
        ]
        if any(curve.published for curve, _ in own):
            hollow = {"linestyle": "none", "marker": "o", "markerfacecolor": "none"}
            handles.append(line_handle("published", color="0.4", **hollow))
        if any(len(group.finished) > 1 for curve, _ in own for group in curve.measured):
            handles.append(patch_handle(f"{CONFIDENCE:.0%} interval", "0.8"))
        panels[0, column].legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8
        )
    save(figure, file)


def _styles() -> Iterator[_Style]:
    return zip(cycle(LINES), cycle(COLOURS), cycle(MARKERS), strict=False)


def _draw_curve(axes: "Axes", curve: Curve, drawn: str, style: _Style) -> list[int]:
    """Draw a column over a curve's axis; return the values of the axis."""
    line, colour, marker = style
    published = [row for row in curve.published if getattr(row, drawn) is not None]
    places = [getattr(row, curve.axis) for row in published]
    axes.plot(
        places,
        [getattr(row, drawn) for row in published],
        line,
        color=colour,
        marker=marker,
        markerfacecolor="none",
        linewidth=0.6,
    )
    measured = sorted(curve.measured, key=lambda group: getattr(group, curve.axis))
    if not measured:
        return places
    own = [getattr(group, curve.axis) for group in measured]
    values = [group.values(drawn) for group in measured]
    mean = np.array([each.mean() for each in values])
    width = np.array([half_width(list(each)) for each in values])  # nan, not drawn, for one seed
    axes.plot(own, mean, line, color=colour, marker=marker, markersize=5)
    axes.fill_between(own, mean - width, mean + width, color=colour, alpha=0.12, linewidth=0)
    return [*places, *own]


def draw_layers(file: BinaryIO, groups: Sequence[SeedGroup]) -> None:
    """Draw the share of every layer's weights that is kept: a line for each seed group.

    Args:
        file: receives the PNG.
        groups: of one protocol, with finished trials; the first six are drawn.
    """
    drawn = groups[:_MOST_LINES]
    layers = parse_layers(drawn[0].layers[0])
    figure = new_figure(max(6.4, 1.6 + 0.19 * len(layers)), 4.8)
    axes = figure.subplots()
    for at, layer in enumerate(layers):
        if layer.reason:
            axes.axvspan(at - 0.5, at + 0.5, color="0.9", linewidth=0)
    for group, (line, colour, marker) in zip(drawn, _styles(), strict=False):
        seeds = [
            [100 * (layer.kept or 0) / layer.weights for layer in parse_layers(text)]
            for text in group.layers
        ]
        label = f"{group.criterion}: {group.summary}"
        kept: Any = np.mean(seeds, axis=0)
        axes.plot(kept, line, color=colour, marker=marker, markersize=4, label=label)
    names = [layer.name for layer in layers]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7 if len(names) < 40 else 6)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-3, 103)
    axes.set(xlabel="layer (grey: not pruned)", ylabel="weights kept (%)")
    add_grid(axes, axis="y")
    figure.legend(loc="outside upper center", fontsize=8)
    save(figure, file)


def _draw_baseline(axes: "Axes", trials: Iterable[Row]) -> None:
    by_seed = {trial["seed"]: trial["baseline_accuracy"] for trial in trials}
    accuracy = float(np.mean(list(by_seed.values())))
    axes.axhline(accuracy, color="0.45", linestyle="--", linewidth=1, label="baseline, mean")
