"""The figures of a report: MINT against its controls, criteria, groups and samples, layers.

They are as wide as a page of GitHub shows them, and name their lines where these end.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import parse_layers
from mint.reporting.aggregate import (
    ACCURACY,
    REGIMES,
    SHARE,
    SeedGroup,
    format_groups,
    order_of_criteria,
)
from mint.reporting.comparison import CONTROLS, ComparedCriterion
from mint.reporting.figure_style import (
    COLOURS,
    LINES,
    MARKERS,
    add_grid,
    label_ends,
    new_figure,
    new_panels,
)
from mint.reporting.overview import Finding
from mint.reporting.reference import Method, Variation
from mint.reporting.statistics import CONFIDENCE, Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LINES = 6  # in a figure of layers
_FEWEST_POINTS = 3  # of a line
_ACCURACIES = (10, 50, 80, 90, 95, 96, 97, 98, 98.5, 99, 99.5, 99.9)
_SHARES = (0, 20, 40, 60, 70, 80, 85, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9)
_MOST_PERCENT = 99.95  # a logarithmic scale of the remainder has no place for 100
_LOGARITHMIC_REMAINDER = (
    lambda percent: -np.log10(100 - np.minimum(percent, _MOST_PERCENT)),
    lambda scaled: 100 - 10**-scaled,
)
_PRUNED, _TEST = "params pruned (%)", "test accuracy (%)"
_RETRAINING = {"full": "full retraining", "light": "light retraining", "none": "no retraining"}
_VARIED_AXES = {"groups": "groups", "samples_per_class": "samples per class"}


def compared_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings on MINT and its controls that have an interval, all of one unit."""
    own = [
        each
        for each in findings
        if each.effect.axis == "criterion" and not math.isnan(each.difference.error)
    ]
    unit = max((each.unit for each in own), default="")  # share rather than accuracy
    return [each for each in own if each.unit == unit]


def draw_findings(findings: Sequence[Finding]) -> "Figure":
    """Draw MINT's differences to each control with their intervals: a row for each setting."""
    ordered = sorted(findings, key=lambda each: REGIMES.index(each.effect.retraining))
    places = list(dict.fromkeys(each.place for each in ordered))
    figure, panels = new_panels(len(CONTROLS), 0.5 * len(places) + 1.2, sharey=True)
    for axes, control, colour in zip(panels, CONTROLS, COLOURS, strict=False):
        margin = findings[0].difference.margin
        axes.axvspan(-margin, margin, color="0.92", linewidth=0)
        axes.axvline(0, color="0.4", linewidth=1)
        for each in findings:
            if each.effect.low == control:
                at = places.index(each.place)
                _draw_interval(axes, at, each.difference, colour, each.differs)
        axes.margins(x=0.12)
        axes.set_title(f"MINT less {control}", fontsize=10)
        axes.set_xlabel(f"points of {findings[0].unit}")
        add_grid(axes, axis="x")
    labels = [place.replace(", ", "\n", 1) for place in places]
    panels[0].set_yticks(range(len(places)), labels)
    panels[0].set_ylim(len(places) - 0.5, -0.7)
    figure.supxlabel(
        f"bars: {CONFIDENCE:.0%} intervals; filled: a difference after Holm's correction; "
        "grey: counts as equal",
        fontsize=9,
    )
    return figure


def _draw_interval(
    axes: "Axes", place: int, difference: Difference, colour: str, filled: bool
) -> None:
    half_width = difference.half_width()
    look: Any = {"color": colour, "marker": "o", "markersize": 7, "capsize": 3}
    face = colour if filled else "white"
    axes.errorbar(difference.mean, place, xerr=half_width, markerfacecolor=face, **look)
    text = f"{difference.mean:+z.2f}"
    axes.annotate(text, (difference.mean, place), (0, 7), textcoords="offset points", ha="center")


def draw_tradeoff(groups: Sequence[SeedGroup], published: Sequence[Method]) -> "Figure":
    """Draw measured accuracies among the published ones, against params pruned."""
    figure = new_figure(4.2)
    axes = figure.subplots()
    axes.set_xscale("function", functions=_LOGARITHMIC_REMAINDER)
    points = [
        (method.params_pruned, method.accuracy, method.method, "0.4", "+")
        for method in published
        if method.params_pruned is not None and method.accuracy is not None
    ]
    colours = dict(zip(_criteria_of(groups), COLOURS, strict=False))
    for group in groups:
        pruned, accuracy = (group.values(name).mean() for name in ("params_pruned", ACCURACY))
        points.append((pruned, accuracy, group.criterion, colours[group.criterion], "o"))
    for point in points:
        pruned, accuracy, name, colour, marker = point
        axes.plot(pruned, accuracy, marker, color=colour, markersize=8)
        others = [other for other in points if other is not point]
        nearest = min(others, key=lambda other: abs(other[0] - pruned), default=point)
        place = (0, 7 if accuracy >= nearest[1] else -14)  # names of neighbours do not overlap
        style: Any = {"textcoords": "offset points", "ha": "center", "color": colour}
        axes.annotate(name, (pruned, accuracy), place, fontsize=9, **style)
    axes.margins(0.12)
    _share_ticks(axes)
    axes.set(xlabel=_PRUNED, ylabel=_TEST, title="+ published, ● measured here")
    add_grid(axes)
    return figure


def _criteria_of(groups: Iterable[SeedGroup]) -> list[str]:
    return sorted({group.criterion for group in groups}, key=order_of_criteria)


def _share_ticks(axes: "Axes") -> None:
    least, most = axes.get_xlim()
    ticks = [tick for tick in _SHARES if least <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def draw_criteria(compared: Sequence[ComparedCriterion]) -> "Figure":
    """Draw accuracy against params pruned: a line for each criterion, a panel for each regime.

    Of each regime the axes with most rows. Bands are one standard deviation over seeds. Kept
    weights and errors are on logarithmic scales.
    """
    given = [row for row in compared if row.trials.fraction != "none"]
    criteria = _criteria_of(row.trials for row in given)
    styles = dict(zip(criteria, product(LINES, COLOURS), strict=False))
    drawn = []
    for regime in REGIMES:
        counts = Counter(row.axes for row in given if row.axes.retraining == regime)
        drawn += [axes for axes, number in counts.most_common(1) if number >= _FEWEST_POINTS]
    figure, panels = new_panels(len(drawn), 3.6, columns=1)
    for axes, shared in zip(panels, drawn, strict=True):
        own = [row.trials for row in given if row.axes == shared]
        _draw_lines(axes, own, styles)
        used = [format_groups(shared.groups, shared.grouping) if shared.groups else ""]
        used.append("" if shared.upper_limit == "none" else f"limit {shared.upper_limit}")
        used.append("compensated" if shared.compensate == "yes" else "")
        axes.set_title(
            ", ".join(filter(None, [_RETRAINING[shared.retraining], *used])), fontsize=10
        )
    return figure


def has_curves(compared: Sequence[ComparedCriterion]) -> bool:
    """Return whether criteria have enough fractions to draw their lines."""
    fractions = defaultdict(set)
    for row in compared:
        fractions[row.axes].add(row.trials.fraction)
    return any(len(own - {"none"}) >= _FEWEST_POINTS for own in fractions.values())


def _draw_lines(
    axes: "Axes", groups: Sequence[SeedGroup], styles: Mapping[str, tuple[str, str]]
) -> None:
    ends = []
    for criterion, (line, colour) in styles.items():
        own = [group for group in groups if group.criterion == criterion]
        if own:
            kept = [100 - group.values("params_pruned").mean() for group in own]
            values = [group.values(ACCURACY) for group in own]
            _draw_band(axes, kept, values, {"linestyle": line, "color": colour, "marker": "o"})
            ends.append((kept[-1], float(values[-1].mean()), criterion, colour))
    by_seed = {row["seed"]: row["baseline_accuracy"] for group in groups for row in group.finished}
    baseline = float(np.mean(list(by_seed.values())))
    axes.axhline(baseline, color="0.45", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.invert_xaxis()
    fractions = sorted({float(group.fraction) for group in groups} - {1.0})
    axes.set_xticks([100 * (1 - fraction) for fraction in fractions])
    axes.set_xticklabels([f"{100 * fraction:g}" for fraction in fractions])
    axes.minorticks_off()
    axes.set(xlabel=_PRUNED, ylabel=_TEST)
    axes.annotate("baseline", (max(axes.get_xlim()), baseline), (3, 3), **_OFFSET)
    _limit_accuracies(axes, [end[1] for end in ends], baseline)
    label_ends(axes, ends)
    add_grid(axes)


_OFFSET: Any = {"textcoords": "offset points", "fontsize": 9, "color": "0.4"}


def _limit_accuracies(axes: "Axes", ends: Iterable[float], baseline: float) -> None:
    """Scale the accuracies by the ends of the lines, without a criterion that collapses."""
    errors = sorted(100 - end for end in ends)
    while len(errors) > 1 and errors[-1] > 2 * errors[-2]:
        errors.pop()
    least = 100 - 1.15 * errors[-1]
    most = 100 - (100 - min(_MOST_PERCENT, baseline)) / 1.3
    axes.set_yscale("function", functions=_LOGARITHMIC_REMAINDER)
    axes.set_ylim(least, most)
    ticks = [tick for tick in _ACCURACIES if least <= tick <= most]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _draw_band(
    axes: "Axes",
    places: ArrayLike,
    values: Sequence[NDArray[np.float64]],
    style: Mapping[str, Any],
) -> None:
    """Draw the means of values, and a band of one standard deviation around them."""
    mean = np.array([each.mean() for each in values])
    width = np.array([each.std(ddof=1) if len(each) > 1 else 0.0 for each in values])
    axes.plot(places, mean, markersize=4, **style)
    axes.fill_between(
        places, mean - width, mean + width, color=style["color"], alpha=0.13, linewidth=0
    )


def share_curves(groups: Iterable[SeedGroup]) -> dict[str, dict[str, list[SeedGroup]]]:
    """Return MINT's searches without a limit by axis and regime, where an axis has three values.

    The other axis and the bootstraps have the values of most trials.
    """
    own = [group for group in groups if group.upper_limit == "none" and len(group.values(SHARE))]
    own = [group for group in own if group.criterion == DEFAULT_CRITERION]
    curves: dict[str, dict[str, list[SeedGroup]]] = {}
    for axis, regime in product(_VARIED_AXES, REGIMES):
        (other,) = _VARIED_AXES.keys() - {axis}
        lines: dict[Any, list[SeedGroup]] = defaultdict(list)
        for group in own:
            if group.retraining == regime:
                lines[getattr(group, other), group.bootstraps, group.margin].append(group)
        longest = max(lines.values(), key=len, default=[])
        if len(longest) >= _FEWEST_POINTS:
            ordered = sorted(longest, key=lambda group: getattr(group, axis))
            curves.setdefault(axis, {})[regime] = ordered
    return curves


def draw_shares(
    curves: Mapping[str, Mapping[str, Sequence[SeedGroup]]],
    published: Mapping[str, Sequence[Variation]],
) -> "Figure":
    """Draw the share at the margin against groups and samples: a line for each regime."""
    figure, panels = new_panels(len(curves), 4.2)
    for axes, (axis, lines) in zip(panels, curves.items(), strict=True):
        ends = []
        for (regime, own), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
            places = [getattr(group, axis) for group in own]
            values = [group.values(SHARE) for group in own]
            _draw_band(axes, places, values, {"color": colour, "marker": marker})
            ends.append((places[-1], float(values[-1].mean()), regime, colour))
        rows = [row for row in published.get(axis, ()) if row.upper_limit == "none"]
        known = [(getattr(row, axis), row.params_pruned) for row in rows if row.params_pruned]
        if known:
            x, y = zip(*known, strict=True)
            axes.plot(x, y, ":", color="0.4", marker="o", markerfacecolor="none")
            ends.append((x[-1], y[-1], "published", "0.4"))
        axes.set_yscale("function", functions=_LOGARITHMIC_REMAINDER)
        ticks = [tick for tick in _SHARES if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlabel=_VARIED_AXES[axis], ylabel="share at the margin (%)")
        label_ends(axes, ends)
        add_grid(axes)
    return figure


def draw_layers(groups: Sequence[SeedGroup]) -> "Figure":
    """Draw the share of each layer's weights that is kept: a line for each of six seed groups."""
    layers = parse_layers(groups[0].finished[0]["layers"])
    figure = new_figure(4.8)
    axes = figure.subplots()
    for at, layer in enumerate(layers):
        if layer.reason:
            axes.axvspan(at - 0.5, at + 0.5, color="0.9", linewidth=0)
    looks = zip(cycle(LINES), cycle(COLOURS), cycle(MARKERS), strict=False)
    for group, (line, colour, marker) in zip(groups[:_MOST_LINES], looks, strict=False):
        seeds = [parse_layers(row["layers"]) for row in group.finished]
        kept: Any = np.mean(
            [[100 * (each.kept or 0) / each.weights for each in own] for own in seeds], axis=0
        )
        label = f"{group.criterion}: {group.summary}"
        style: Any = {"linestyle": line, "color": colour, "marker": marker}
        axes.plot(kept, markersize=4, label=label, **style)
    names = [layer.name for layer in layers]
    step = -(-len(names) // 28)  # more names than that cannot be read
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-3, 103)
    axes.set(xlabel="layer (grey: not pruned)", ylabel="weights kept (%)")
    add_grid(axes, axis="y")
    figure.legend(loc="outside upper center", fontsize=9)
    return figure
