"""The figures of a report: accuracy against params pruned, criteria, variations, layers."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import parse_layers
from mint.reporting.aggregate import SeedGroup, order_of_criteria, order_of_tables
from mint.reporting.comparison import CONFIDENCE, ComparedCriterion, half_width
from mint.reporting.figure_style import (
    COLOURS,
    LINES,
    MARKERS,
    add_grid,
    line_handle,
    new_figure,
    new_panels,
    patch_handle,
)
from mint.reporting.reference import Method, Variation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_PER_ROW = 3
_MOST_PANELS = 6
_MOST_LINES = 6  # in a figure of layers
_ACCURACIES = (10, 50, 80, 90, 95, 96, 97, 98, 98.5, 99, 99.5, 99.9)
_FRACTIONS = (0, 20, 40, 60, 70, 80, 85, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_MOST_PERCENT = 99.95  # a logarithmic scale of the remainder has no place for 100
_LABELS = {"params_pruned": "params pruned (%)", "accuracy": "test accuracy (%)"}
_LOGARITHMIC_REMAINDER = (
    lambda percent: -np.log10(100 - np.minimum(percent, _MOST_PERCENT)),
    lambda scaled: 100 - 10**-scaled,
)
_VARIED_AXES = {"groups": "groups", "samples_per_class": "samples per class"}
_FEWEST_POINTS = 3  # of a curve of trials
_Style = Mapping[str, Any]


def draw_tradeoff(groups: Sequence[SeedGroup], published: Sequence[Method]) -> "Figure":
    """Draw accuracy against params pruned: a point for each seed group, the mean over its seeds.

    Error bars are one standard deviation. Kept weights are on a logarithmic scale. Published
    rows are crosses. All groups have finished trials.
    """
    figure = new_figure(8.4, 4.8)
    axes = figure.subplots()
    axes.set_xscale("function", functions=_LOGARITHMIC_REMAINDER)
    numbers = sorted({group.groups for group in groups})
    colours = dict(zip(numbers, cycle(COLOURS), strict=False))
    markers: dict[str, str] = {}
    for group in sorted(
        groups, key=lambda group: (order_of_criteria(group.criterion), order_of_tables(group))
    ):
        named = "" if group.criterion == DEFAULT_CRITERION else f"{group.criterion}, "
        marker = MARKERS[len(markers) % len(MARKERS)]
        marker = markers.setdefault(f"{named}limit {group.upper_limit}", marker)
        look: Any = {"color": colours[group.groups], "marker": marker, "markersize": 6}
        look |= {"markeredgecolor": "white", "markeredgewidth": 0.5, "elinewidth": 0.8}
        x, y = (group.values(column) for column in _LABELS)
        axes.errorbar(x.mean(), y.mean(), xerr=_deviation(x), yerr=_deviation(y), **look)
    _draw_baseline(axes, groups)
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
    return figure


def _deviation(values: NDArray[np.float64]) -> float:
    """Return the standard deviation over seeds; nan, which is not drawn, for one seed."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _draw_baseline(axes: "Axes", groups: Iterable[SeedGroup]) -> None:
    by_seed = {row["seed"]: row["baseline_accuracy"] for group in groups for row in group.finished}
    accuracy = float(np.mean(list(by_seed.values())))
    axes.axhline(accuracy, color="0.45", linestyle="--", linewidth=1, label="baseline, mean")


def _draw_published(axes: "Axes", methods: Sequence[Method]) -> None:
    """Draw published points as crosses, with names above and below in turn to overlap less."""
    known = sorted(
        (method.params_pruned, method.accuracy, method.method)
        for method in methods
        if method.params_pruned is not None and method.accuracy is not None
    )
    if known:
        x, y, _ = zip(*known, strict=True)
        axes.plot(x, y, "+", color="0.25", markersize=8, label="published")
    style: Any = {"textcoords": "offset points", "fontsize": 7, "ha": "center", "color": "0.25"}
    for at, (pruned, accuracy, name) in enumerate(known):
        axes.annotate(name, (pruned, accuracy), (0, -11 if at % 2 else 5), **style)


def _styles(looks: Iterable[tuple[str, str]]) -> Iterator[_Style]:
    for (line, colour), marker in zip(looks, cycle(MARKERS), strict=False):
        yield {"linestyle": line, "color": colour, "marker": marker}


def _draw_band(
    axes: "Axes",
    places: ArrayLike,
    values: Sequence[NDArray[np.float64]],
    width: Callable[[NDArray[np.float64]], float],
    style: _Style,
    **sizes: float,
) -> None:
    """Draw the means of values, and a band around them."""
    mean = np.array([each.mean() for each in values])
    widths = np.array([width(each) for each in values])
    axes.plot(places, mean, markersize=sizes["marker"], **style)
    colour, alpha = style["color"], sizes["alpha"]
    axes.fill_between(places, mean - widths, mean + widths, color=colour, alpha=alpha, linewidth=0)


def draw_criteria(compared: Sequence[ComparedCriterion]) -> "Figure":
    """Draw accuracy against params pruned: a line for each criterion, a panel for shared axes.

    Bands are one standard deviation over seeds. Kept weights and errors are on logarithmic scales.
    The six panels with most rows are drawn.
    """
    shown = Counter(row.axes for row in compared).most_common(_MOST_PANELS)
    criteria = dict.fromkeys(row.trials.criterion for row in compared)
    styles = dict(zip(criteria, _styles(product(LINES, COLOURS)), strict=False))
    figure, panels = new_panels(len(shown), _PANELS_PER_ROW, (5.8, 4.8), margin=1.8, sharey=True)
    for axes, (shared, _) in zip(panels, shown, strict=True):
        own = [row.trials for row in compared if row.axes == shared]
        _draw_panel(axes, own, styles)
        used = (shared.groups, shared.samples_per_class, shared.bootstraps)
        names = ("groups", "samples per class", "bootstraps")
        parts = [f"{number} {name}" for number, name in zip(used, names, strict=True) if number]
        axes.set_title(", ".join([*parts, f"limit {shared.upper_limit}"]), fontsize="medium")
    _limit_accuracies(panels)
    handles = [line_handle(name, markersize=4, **style) for name, style in styles.items()]
    figure.legend(handles=[*handles, panels[0].lines[-1]], loc="outside right upper", fontsize=8)
    return figure


def _draw_panel(axes: "Axes", groups: Sequence[SeedGroup], styles: Mapping[str, _Style]) -> None:
    for criterion, style in styles.items():
        own = [group for group in groups if group.criterion == criterion]
        if own:
            kept = [100 - group.values("params_pruned").mean() for group in own]
            values = [group.values("accuracy") for group in own]
            _draw_band(axes, kept, values, _deviation, style, marker=4, alpha=0.15)
    _draw_baseline(axes, groups)
    axes.set_xscale("log")
    axes.invert_xaxis()
    fractions = sorted({float(group.fraction) for group in groups} - {1.0})
    axes.set_xticks([100 * (1 - fraction) for fraction in fractions])
    axes.set_xticklabels([f"{100 * fraction:g}" for fraction in fractions], fontsize=8)
    axes.minorticks_off()
    axes.set(xlabel=_LABELS["params_pruned"], ylabel=_LABELS["accuracy"])
    add_grid(axes)


def _limit_accuracies(panels: Sequence["Axes"]) -> None:
    """Scale the accuracies by the lines alone: a criterion that collapses has a wide band."""
    of_lines = [line.get_ydata() for axes in panels for line in axes.lines]
    accuracies = np.concatenate([np.asarray(values, np.float64) for values in of_lines])
    least = 100 - 1.15 * (100 - accuracies.min())
    most = 100 - (100 - min(_MOST_PERCENT, accuracies.max())) / 1.15
    for axes in panels:
        axes.set_yscale("function", functions=_LOGARITHMIC_REMAINDER)
        axes.set_ylim(least, most)
        axes.set_yticks([tick for tick in _ACCURACIES if least <= tick <= most])


class Curve(NamedTuple):
    """Seed groups and published rows over an axis; they share the axes in the label."""

    axis: str
    label: str
    measured: Sequence[SeedGroup]
    published: Sequence[Variation]


def variation_curves(
    groups: Iterable[SeedGroup], published: Mapping[str, Sequence[Variation]]
) -> list[Curve]:
    """Return the curves of one protocol's searches by MINT.

    All have the number of bootstraps that most of the trials have. Without published rows of an
    axis, trials at three of its values or more are a curve.
    """
    own = [group for group in groups if group.finished and group.searched_axes]
    bootstraps = Counter(group.bootstraps for group in own for _ in group.finished).most_common(1)
    own = [group for group in own if group.bootstraps == bootstraps[0][0]]
    curves: list[Curve] = []
    for axis in _VARIED_AXES:
        rows = published.get(axis)
        curves += _curves_of_blocks(axis, own, rows) if rows else _curves_of_trials(axis, own)
    return curves


def _curves_of_blocks(
    axis: str, groups: Sequence[SeedGroup], published: Sequence[Variation]
) -> list[Curve]:
    curves = []
    for block in dict.fromkeys(row.block for row in published):
        rows = [row for row in published if row.block == block]
        points = {row.axes for row in rows}
        measured = [group for group in groups if group.searched_axes in points]
        curves.append(Curve(axis, f"limit {block}", measured, rows))
    return curves if any(curve.measured for curve in curves) else []


def _curves_of_trials(axis: str, groups: Sequence[SeedGroup]) -> list[Curve]:
    (other,) = _VARIED_AXES.keys() - {axis}
    lines: dict[tuple[bool, str, int], list[SeedGroup]] = defaultdict(list)
    for group in groups:
        limit = group.upper_limit
        lines[limit != "none", limit, getattr(group, other)].append(group)
    return [
        Curve(axis, f"limit {limit}, {value} {_VARIED_AXES[other]}", measured, ())
        for (_, limit, value), measured in sorted(lines.items(), key=lambda line: line[0])
        if len(measured) >= _FEWEST_POINTS
    ]


def draw_variations(curves: Sequence[Curve]) -> "Figure":
    """Draw params pruned and accuracy against groups and against samples per class.

    Bands are intervals of Student's t of the mean over seeds; published points are hollow.
    """
    shown = [axis for axis in _VARIED_AXES if any(curve.axis == axis for curve in curves)]
    figure = new_figure(0.6 + 5.2 * len(shown), 7.6)
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, axis in enumerate(shown):
        looks = _styles(zip(cycle(LINES), cycle(COLOURS), strict=False))
        own = list(zip([curve for curve in curves if curve.axis == axis], looks, strict=False))
        for axes, drawn in zip(panels[:, column], _LABELS, strict=True):
            places = sorted({place for each in own for place in _draw_curve(axes, *each, drawn)})
            axes.set_xscale("log")
            axes.set_xticks(places, [str(place) for place in places])
            axes.minorticks_off()
            axes.set(xlabel=_VARIED_AXES[axis], ylabel=_LABELS[drawn])
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -3), min(high, 103))  # an interval may leave 0 to 100
            add_grid(axes)
        handles = [line_handle(curve.label, **style) for curve, style in own]
        if any(curve.published for curve, _ in own):
            hollow = {"linestyle": "none", "marker": "o", "markerfacecolor": "none"}
            handles.append(line_handle("published", color="0.4", **hollow))
        if any(len(group.finished) > 1 for curve, _ in own for group in curve.measured):
            handles.append(patch_handle(f"{CONFIDENCE:.0%} interval", "0.8"))
        panels[0, column].legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8
        )
    return figure


def _draw_curve(axes: "Axes", curve: Curve, style: _Style, drawn: str) -> list[int]:
    """Draw a column over a curve's axis; return the values of the axis."""
    published = [row for row in curve.published if getattr(row, drawn) is not None]
    places = [getattr(row, curve.axis) for row in published]
    figures = [getattr(row, drawn) for row in published]
    axes.plot(places, figures, markerfacecolor="none", linewidth=0.6, **style)
    measured = sorted(curve.measured, key=lambda group: getattr(group, curve.axis))
    own = [getattr(group, curve.axis) for group in measured]
    if own:
        values = [group.values(drawn) for group in measured]
        _draw_band(axes, own, values, half_width, style, marker=5, alpha=0.12)
    return [*places, *own]


def draw_layers(groups: Sequence[SeedGroup]) -> "Figure":
    """Draw the share of each layer's weights that is kept: a line for each of six seed groups."""
    layers = parse_layers(groups[0].finished[0]["layers"])
    figure = new_figure(max(6.4, 1.6 + 0.19 * len(layers)), 4.8)
    axes = figure.subplots()
    for at, layer in enumerate(layers):
        if layer.reason:
            axes.axvspan(at - 0.5, at + 0.5, color="0.9", linewidth=0)
    looks = _styles(zip(cycle(LINES), cycle(COLOURS), strict=False))
    for group, style in zip(groups[:_MOST_LINES], looks, strict=False):
        seeds = [parse_layers(row["layers"]) for row in group.finished]
        kept: Any = np.mean(
            [[100 * (each.kept or 0) / each.weights for each in own] for own in seeds], axis=0
        )
        axes.plot(kept, markersize=4, label=f"{group.criterion}: {group.summary}", **style)
    names = [layer.name for layer in layers]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7 if len(names) < 40 else 6)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-3, 103)
    axes.set(xlabel="layer (grey: not pruned)", ylabel="weights kept (%)")
    add_grid(axes, axis="y")
    figure.legend(loc="outside upper center", fontsize=8)
    return figure
