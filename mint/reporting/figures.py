"""The pictures of a report: accuracy against params pruned, criteria, variations, layers."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from typing import Any, BinaryIO

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import parse_layers
from mint.reporting.aggregate import Cell, by_groups, criterion_order
from mint.reporting.comparison import CONFIDENCE, Compared, Setting, half_width
from mint.reporting.curves import AXES, Curve
from mint.reporting.figure_style import COLOURS, LINES, MARKERS, save

_PANELS_A_ROW = 3
_MOST_PANELS = 6
_MOST_LINES = 6  # in a picture of layers
_CHARACTER = 0.011  # of a name: its width as a share of the axis
_ACCURACIES = (10, 50, 80, 90, 95, 96, 97, 98, 98.5, 99, 99.5, 99.9)
_SHARES = (0, 20, 40, 60, 70, 80, 85, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_MOST = 99.95  # percent: a scale of what is left to 100 has no end
_FIGURES = {"params_pruned": "params pruned (%)", "accuracy": "test accuracy (%)"}


def draw_tradeoff(
    file: BinaryIO, cells: Sequence[Cell], published: Sequence[Mapping[str, Any]]
) -> None:
    """Draw accuracy against params pruned of one protocol: a point a cell, the mean over seeds.

    Its lines are a standard deviation over seeds to either side. What is kept is on a logarithmic
    scale, for half of the last percent matters as much as half of all.

    Args:
        file: that the PNG is written to.
        cells: with finished trials.
        published: method, params_pruned and accuracy of others, drawn as crosses.
    """
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("function", functions=(_by_remainder, _by_remainder_inverted))
    groups = sorted({cell.groups for cell in cells})
    colours = dict(zip(groups, cycle(COLOURS), strict=False))
    markers: dict[str, str] = {}
    for cell in sorted(cells, key=lambda cell: (criterion_order(cell.criterion), by_groups(cell))):
        named = [] if cell.criterion == DEFAULT_CRITERION else [cell.criterion]
        kind = ", ".join([*named, f"limit {cell.upper_limit}"])
        pruned, accuracy = (cell.values(figure) for figure in _FIGURES)
        axes.errorbar(
            pruned.mean(),
            accuracy.mean(),
            xerr=_deviation(pruned),
            yerr=_deviation(accuracy),
            color=colours[cell.groups],
            marker=markers.setdefault(kind, MARKERS[len(markers) % len(MARKERS)]),
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=0.8,
        )
    _draw_baseline(axes, [trial for cell in cells for trial in cell.finished])
    axes.margins(0.09)
    points = [row for row in published if None not in (row["params_pruned"], row["accuracy"])]
    _draw_published(axes, points)
    least, most = axes.get_xlim()
    ticks = [tick for tick in _SHARES if least <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    _label(axes, "params_pruned", "accuracy")
    handles: list[Artist] = [
        Patch(color=colour, label=f"{number or 'no'} groups") for number, colour in colours.items()
    ]
    handles += [_handle(limit, marker, color="0.4") for limit, marker in markers.items()]
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=[*handles, *lines], loc="outside right upper", fontsize=8)
    save(figure, file)


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the standard deviation over seeds; nan, which is not drawn, of one."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _draw_published(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Draw published points as crosses, with names above or below, where they have room."""
    if not points:
        return
    x, y = ([row[figure] for row in points] for figure in _FIGURES)
    axes.plot(x, y, "+", color="0.25", markersize=8, label="published")
    axes.autoscale_view()
    span = np.ptp(_by_remainder(np.array(axes.get_xlim())))

    def meet(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        room = _CHARACTER * span * (len(one["method"]) + len(other["method"])) / 2
        pruned = np.array([one["params_pruned"], other["params_pruned"]])
        return bool(np.ptp(_by_remainder(pruned)) < room)

    named: dict[bool, list[Mapping[str, Any]]] = {True: [], False: []}
    for row in sorted(points, key=lambda row: row["params_pruned"]):
        beside = [other for other in points if other is not row and meet(row, other)]
        below = any(other["accuracy"] > row["accuracy"] for other in beside)
        if any(meet(row, other) for other in named[below]):
            below = not below
        named[below].append(row)
        axes.annotate(
            row["method"],
            (row["params_pruned"], row["accuracy"]),
            (0, -11 if below else 5),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            color="0.25",
        )


def draw_criteria(file: BinaryIO, compared: Sequence[Compared]) -> None:
    """Draw accuracy against params pruned: a line a criterion, a panel a setting.

    The band is a standard deviation over seeds to either side of the mean. What is kept and what is
    classified wrongly are on logarithmic scales, for half of the last percent matters as much as
    half of all, and a criterion that collapses would leave the others no room.

    Args:
        file: that the PNG is written to.
        compared: in the order of the fractions; six settings of them at most are drawn.
    """
    # Of many settings those with most to compare: a picture of all is one of none.
    rows_of = Counter(row.setting for row in compared)
    settings = sorted(rows_of, key=rows_of.__getitem__, reverse=True)[:_MOST_PANELS]
    criteria = list(dict.fromkeys(row.criterion for row in compared))
    styles = dict(zip(criteria, zip(product(LINES, COLOURS), cycle(MARKERS)), strict=False))
    columns = min(len(settings), _PANELS_A_ROW)
    rows = -(-len(settings) // columns)
    size = (1.8 + 5.8 * columns, 4.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, sharey=True, squeeze=False))
    drawn: dict[str, Line2D] = {}
    for axes, setting in zip(panels, settings, strict=False):
        own = [row for row in compared if row.setting == setting]
        for criterion, ((line, colour), marker) in styles.items():
            trials = [row.trials for row in own if row.criterion == criterion]
            if not trials:
                continue
            kept = [100 - cell.values("params_pruned").mean() for cell in trials]
            values = [cell.values("accuracy") for cell in trials]
            mean = np.array([each.mean() for each in values])
            spread = np.array([_deviation(each) for each in values])
            (drawn[criterion],) = axes.plot(
                *(kept, mean, line), color=colour, marker=marker, markersize=4, label=criterion
            )
            axes.fill_between(
                kept, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
            )
        _draw_baseline(axes, [trial for row in own for trial in row.trials.finished])
        axes.set_xscale("log")
        axes.invert_xaxis()
        shares = sorted({float(row.fraction) for row in own} - {1.0})
        axes.set_xticks([100 * (1 - share) for share in shares])
        axes.set_xticklabels([f"{100 * share:g}" for share in shares], fontsize=8)
        axes.minorticks_off()
        _label(axes, "params_pruned", "accuracy")
        axes.set_title(_titled(setting), fontsize="medium")
    # Of the lines alone: the band of a criterion that collapses in one seed would leave no room.
    of_lines = [line.get_ydata() for axes in panels[: len(settings)] for line in axes.lines]
    accuracies = np.concatenate([np.asarray(values, np.float64) for values in of_lines])
    least = 100 - 1.15 * (100 - accuracies.min())
    most = 100 - (100 - min(_MOST, accuracies.max())) / 1.15
    for axes in panels[: len(settings)]:
        axes.set_yscale("function", functions=(_by_remainder, _by_remainder_inverted))
        axes.set_ylim(least, most)
        axes.set_yticks([tick for tick in _ACCURACIES if least <= tick <= most])
    for axes in panels[len(settings) :]:
        axes.set_axis_off()
    handles = [*(drawn[criterion] for criterion in criteria), panels[0].lines[-1]]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    save(figure, file)


def _by_remainder(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = -np.log10(100 - np.minimum(percent, _MOST))
    return scaled


def _by_remainder_inverted(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    percent: NDArray[np.float64] = 100 - 10**-scaled
    return percent


def _titled(setting: Setting) -> str:
    used = {
        "groups": setting.groups,
        "samples per class": setting.samples_per_class,
        "bootstraps": setting.bootstraps,
    }
    parts = [f"{number} {name}" for name, number in used.items() if number]
    return ", ".join([*parts, f"limit {setting.upper_limit}"])


def draw_variations(file: BinaryIO, curves: Sequence[Curve]) -> None:
    """Draw params pruned and accuracy against groups and against samples per class.

    The band is the interval of Student's t of the mean over seeds, where there are several; what
    is published is drawn hollow.

    Args:
        file: that the PNG is written to.
        curves: of mint.reporting.curves.
    """
    shown = [axis for axis in AXES if any(curve.axis == axis for curve in curves)]
    figure = Figure(figsize=(0.6 + 5.2 * len(shown), 7.6), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, axis in enumerate(shown):
        own = [curve for curve in curves if curve.axis == axis]
        styles = list(zip(own, cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False))
        for axes, drawn in zip(panels[:, column], _FIGURES, strict=True):
            places: set[int] = set()
            for curve, colour, line, marker in styles:
                places.update(_draw_curve(axes, curve, drawn, colour, line, marker))
            axes.set_xscale("log")
            axes.set_xticks(sorted(places), [str(place) for place in sorted(places)])
            axes.minorticks_off()
            axes.set(xlabel=AXES[axis], ylabel=_FIGURES[drawn])
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -3), min(high, 103))  # an interval may leave what is possible
            _grid(axes)
        handles: list[Artist] = [
            Line2D([], [], color=colour, linestyle=line, marker=marker, label=curve.label)
            for curve, colour, line, marker in styles
        ]
        if any(curve.published for curve in own):
            handles.append(_handle("published", "o", color="0.4", markerfacecolor="none"))
        if any(len(cell.finished) > 1 for curve in own for cell in curve.measured):
            handles.append(Patch(color="0.8", label=f"{CONFIDENCE:.0%} interval"))
        panels[0, column].legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8
        )
    save(figure, file)


def _draw_curve(
    axes: Axes, curve: Curve, figure: str, colour: str, line: str, marker: str
) -> list[int]:
    """Draw a figure over a curve's axis, and return the values of the axis that it has."""
    published = [row for row in curve.published if row[figure] is not None]
    places = [row[curve.axis] for row in published]
    axes.plot(
        places,
        [row[figure] for row in published],
        line,
        color=colour,
        marker=marker,
        markerfacecolor="none",
        linewidth=0.6,
    )
    measured = sorted(curve.measured, key=lambda cell: getattr(cell, curve.axis))
    if not measured:
        return places
    own = [getattr(cell, curve.axis) for cell in measured]
    values = [cell.values(figure) for cell in measured]
    mean = np.array([each.mean() for each in values])
    width = np.array([half_width(list(each)) for each in values])  # nan, undrawn, of one
    axes.plot(own, mean, line, color=colour, marker=marker, markersize=5)
    axes.fill_between(own, mean - width, mean + width, color=colour, alpha=0.12, linewidth=0)
    return [*places, *own]


def draw_layers(file: BinaryIO, cells: Sequence[Cell]) -> None:
    """Draw the share of every layer's weights that is kept: a line a cell, the mean over seeds.

    Args:
        file: that the PNG is written to.
        cells: of one protocol, some with known layers; the first of those are drawn.
    """
    drawn = [cell for cell in cells if cell.known_layers][:_MOST_LINES]
    layers = parse_layers(drawn[0].known_layers[0])
    figure = Figure(figsize=(max(6.4, 1.6 + 0.19 * len(layers)), 4.8), layout="constrained")
    axes = figure.subplots()
    for at, layer in enumerate(layers):
        if layer.reason:
            axes.axvspan(at - 0.5, at + 0.5, color="0.9", linewidth=0)
    for cell, colour, line, marker in zip(
        drawn, cycle(COLOURS), cycle(LINES), cycle(MARKERS), strict=False
    ):
        seeds = [
            [100 * (layer.kept or 0) / layer.weights for layer in parse_layers(text)]
            for text in cell.known_layers
        ]
        label = f"{cell.criterion}: {cell.sentence}"
        axes.plot(
            *(np.mean(seeds, axis=0), line), color=colour, marker=marker, markersize=4, label=label
        )
    names = [layer.name for layer in layers]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7 if len(names) < 40 else 6)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-3, 103)
    axes.set(xlabel="layer (grey: untouched)", ylabel="weights kept (%)")
    axes.grid(color="0.9", axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", fontsize=8)
    save(figure, file)


def _draw_baseline(axes: Axes, trials: Iterable[Mapping[Any, Any]]) -> None:
    by_seed = {trial["seed"]: trial["baseline_accuracy"] for trial in trials}
    accuracy = float(np.mean(list(by_seed.values())))
    axes.axhline(accuracy, color="0.45", linestyle="--", linewidth=1, label="baseline, mean")


def _handle(label: str, marker: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, label=label, **style)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=_FIGURES[x], ylabel=_FIGURES[y])
    _grid(axes)


def _grid(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
