"""Pictures: the scores of a trial's blocks, and accuracy against params pruned."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mint.config import DEFAULT_CRITERION
from mint.masks import BlockScores, Masks

if TYPE_CHECKING:  # takes a second, and a trial draws none of it
    import pandas as pd

    from mint.comparison import Compared, Setting

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
_PANELS_A_ROW = 6
_MOST_CROSSES = 40_000  # in one panel, as 200 x 200 groups have
_MARKERS = ["o", "s", "^", "D", "v", "P"]


def draw_scores(
    path: Path, scores: Mapping[str, BlockScores], masks: Masks, *, title: str, criterion: str
) -> None:
    """Draw a heat map of every weight's block scores, with a cross on the pruned blocks.

    Blocks that are too many for crosses are left blank where they are pruned.
    """
    columns = min(len(scores), _PANELS_A_ROW)
    rows = -(-len(scores) // columns)
    size = 6.4 if len(scores) == 1 else 3.6
    figure = Figure(figsize=(size * columns, 0.88 * size * rows), layout="constrained")
    figure.suptitle(title)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (weight, layer) in zip(panels, scores.items(), strict=False):
        pruned = _pruned_blocks(layer, masks[weight])
        crossed = pruned.size <= _MOST_CROSSES
        shown = layer.value if crossed else np.where(pruned, np.nan, layer.value)
        image = axes.imshow(shown, cmap="cividis", interpolation="nearest", aspect="auto")
        if crossed:
            marks = 60 * (size / 6.4 * 20 / max(layer.value.shape)) ** 2
            places = np.nonzero(pruned)[::-1]
            axes.scatter(*places, marks, marker="x", color="white", linewidths=0.8)
        sign = "x" if crossed else "blank"
        axes.set(
            title=f"{weight}: {pruned.sum()} of {layer.value.size} blocks pruned ({sign})",
            xlabel="parent group",
            ylabel="child group",
        )
        axes.title.set_fontsize("medium" if len(scores) == 1 else "x-small")
        figure.colorbar(image, label=f"score by {criterion}")
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    save(figure, path)


def _pruned_blocks(layer: BlockScores, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels = np.broadcast_arrays(layer.rows, layer.parent_labels)
    # Where the labels do not tell the positions of a kernel apart, they go together.
    entries = mask.reshape(*labels[0].shape, -1)[..., 0]
    pruned = np.zeros(layer.value.shape, np.bool_)
    pruned[labels[0][~entries], labels[1][~entries]] = True
    return pruned


def draw_tradeoff(
    file: BinaryIO, records: "pd.DataFrame", published: Sequence[Mapping[str, Any]]
) -> None:
    """Draw accuracy against params pruned of one experiment: a point a trial.

    Args:
        file: that the PNG is written to.
        records: with the columns of mint.records.
        published: method, params_pruned and accuracy of others, drawn as crosses.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    kinds = sorted(set(zip(records["criterion"], records["groups"], strict=True)))
    limits = sorted(records["upper_limit"].unique(), reverse=True)
    for (criterion, groups), colour in zip(kinds, _COLOURS * len(kinds), strict=False):
        of_kind = records[(records["criterion"] == criterion) & (records["groups"] == groups)]
        named = [] if criterion == DEFAULT_CRITERION else [criterion]
        named += [f"{groups} groups"] if groups else []
        for limit, marker in zip(limits, _MARKERS * len(limits), strict=False):
            own = of_kind[of_kind["upper_limit"] == limit]
            if len(own):
                axes.scatter(
                    own["params_pruned"],
                    own["accuracy"],
                    s=36,
                    color=colour,
                    marker=marker,
                    edgecolors="white",
                    linewidths=0.5,
                    label=", ".join([*named, f"limit {limit}"]),
                )
    _draw_baseline(axes, records.drop_duplicates("seed")["baseline_accuracy"].mean())
    for row in published:
        point = (row["params_pruned"], row["accuracy"])
        axes.scatter(*point, marker="+", s=70, color="0.25")
        axes.annotate(
            f"{row['method']} (published)", point, (4, 4), textcoords="offset points", fontsize=7
        )
    axes.set(xlabel="params pruned (%)", ylabel="test accuracy (%)")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=8)
    save(figure, file)


def draw_criteria(file: BinaryIO, compared: "Sequence[Compared]") -> None:
    """Draw accuracy against params pruned: a line a criterion, a panel a setting.

    The band is a standard deviation over seeds to either side of the mean. What is kept is on a
    logarithmic scale, for half of the last percent matters as much as half of all.

    Args:
        file: that the PNG is written to.
        compared: in the order of the fractions.
    """
    settings = list(dict.fromkeys(row.setting for row in compared))
    criteria = list(dict.fromkeys(row.criterion for row in compared))
    styles = dict(zip(criteria, product(("-", "--"), _COLOURS), strict=False))
    figure = Figure(figsize=(1.4 + 5.8 * len(settings), 4.8), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(settings), sharey=True, squeeze=False))
    for axes, setting in zip(panels, settings, strict=True):
        own = [row for row in compared if row.setting == setting]
        for criterion, (line, colour) in styles.items():
            trials = [row.trials for row in own if row.criterion == criterion]
            kept = [100 - each["params_pruned"].mean() for each in trials]
            mean = np.array([each["accuracy"].mean() for each in trials])
            spread = np.array([each["accuracy"].std() for each in trials])  # nan, undrawn, of one
            axes.plot(kept, mean, line, color=colour, marker="o", markersize=3, label=criterion)
            axes.fill_between(
                kept, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
            )
        baselines = {
            seed: accuracy
            for row in own
            for seed, accuracy in row.trials[["seed", "baseline_accuracy"]].to_numpy()
        }
        _draw_baseline(axes, float(np.mean(list(baselines.values()))))
        axes.set_xscale("log")
        axes.invert_xaxis()
        shares = sorted({float(row.fraction) for row in own} - {1.0})
        axes.set_xticks([100 * (1 - share) for share in shares])
        axes.set_xticklabels([f"{100 * share:g}" for share in shares])
        axes.minorticks_off()
        axes.set(xlabel="params pruned (%)", ylabel="test accuracy (%)", title=_titled(setting))
        axes.title.set_fontsize("medium")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    save(figure, file)


def _titled(setting: "Setting") -> str:
    used = {
        "groups": setting.groups,
        "samples per class": setting.samples_per_class,
        "bootstraps": setting.bootstraps,
    }
    parts = [f"{number} {name}" for name, number in used.items() if number]
    return ", ".join([*parts, f"limit {setting.upper_limit}"])


def _draw_baseline(axes: Axes, accuracy: float) -> None:
    axes.axhline(accuracy, color="0.45", linestyle="--", linewidth=1, label="baseline, mean")


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a PNG that depends on nothing but what is drawn."""
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
