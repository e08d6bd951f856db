"""Pictures: the scores of a trial's blocks, and accuracy against params pruned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mint.masks import BlockScores, Masks

if TYPE_CHECKING:  # takes a second, and a trial draws none of it
    import pandas as pd

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
_PANELS_A_ROW = 6
_MARKERS = ["o", "s", "^", "D", "v", "P"]


def draw_scores(path: Path, scores: Mapping[str, BlockScores], masks: Masks, *, title: str) -> None:
    """Draw a heat map of every weight's block scores, with a cross on the pruned blocks."""
    columns = min(len(scores), _PANELS_A_ROW)
    rows = -(-len(scores) // columns)
    size = 6.4 if len(scores) == 1 else 3.6
    figure = Figure(figsize=(size * columns, 0.88 * size * rows), layout="constrained")
    figure.suptitle(title)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (weight, layer) in zip(panels, scores.items(), strict=False):
        image = axes.imshow(layer.value, cmap="cividis", interpolation="nearest", aspect="auto")
        pruned = _pruned_blocks(layer, masks[weight])
        marks = 60 * (size / 6.4 * 20 / max(layer.value.shape)) ** 2
        axes.scatter(*np.nonzero(pruned)[::-1], marks, marker="x", color="white", linewidths=0.8)
        axes.set(
            title=f"{weight}: {pruned.sum()} of {layer.value.size} blocks pruned (x)",
            xlabel="parent group",
            ylabel="child group",
        )
        axes.title.set_fontsize("medium" if len(scores) == 1 else "x-small")
        figure.colorbar(image, label="conditional GMI")
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    save(figure, path)


def _pruned_blocks(layer: BlockScores, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    entries = mask.reshape(*mask.shape[:2], -1)[:, :, 0]
    pruned = np.zeros(layer.value.shape, np.bool_)
    labels = np.broadcast_arrays(layer.child_labels[:, None], layer.parent_labels)
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
