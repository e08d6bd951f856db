"""Pictures: the scores of a trial's blocks, and accuracy against params pruned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mint.masks import BlockScores, Masks

if TYPE_CHECKING:  # takes a second, and a trial draws none of it
    import pandas as pd

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
_MARKERS = ["o", "s", "^", "D", "v", "P"]


def draw_scores(path: Path, scores: Mapping[str, BlockScores], masks: Masks, *, title: str) -> None:
    """Draw a heat map of every weight's block scores, with a cross on the pruned blocks."""
    figure = Figure(figsize=(6.4 * len(scores), 5.6), layout="constrained")
    figure.suptitle(title)
    panels = np.atleast_1d(figure.subplots(1, len(scores)))
    for axes, (weight, layer) in zip(panels, scores.items(), strict=True):
        image = axes.imshow(layer.value, cmap="cividis", interpolation="nearest")
        first_row = np.searchsorted(layer.child_labels, range(layer.value.shape[0]))
        first_column = np.searchsorted(layer.parent_labels, range(layer.value.shape[1]))
        rows, columns = np.nonzero(~masks[weight][np.ix_(first_row, first_column)])
        size = 60 * (20 / max(layer.value.shape)) ** 2
        axes.scatter(columns, rows, size, marker="x", color="white", linewidths=0.8)
        axes.set(
            title=f"{weight}: {len(rows)} of {layer.value.size} blocks pruned (x)",
            xlabel="parent group",
            ylabel="child group",
        )
        figure.colorbar(image, label="conditional GMI")
    save(figure, path)


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
    groups = sorted(records["groups"].unique())
    limits = sorted(records["upper_limit"].unique(), reverse=True)
    for group, colour in zip(groups, _COLOURS * len(groups), strict=False):
        for limit, marker in zip(limits, _MARKERS * len(limits), strict=False):
            own = records[(records["groups"] == group) & (records["upper_limit"] == limit)]
            if len(own):
                axes.scatter(
                    own["params_pruned"],
                    own["accuracy"],
                    s=36,
                    color=colour,
                    marker=marker,
                    edgecolors="white",
                    linewidths=0.5,
                    label=f"{group} groups, limit {limit}",
                )
    baseline = records.drop_duplicates("seed")["baseline_accuracy"].mean()
    axes.axhline(baseline, color="0.45", linestyle="--", linewidth=1, label="baseline, mean")
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


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a PNG that depends on nothing but what is drawn."""
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
