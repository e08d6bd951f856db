"""A trial's scores as heat maps, with the blocks that its masks prune."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores
from mint.reporting.figure_style import save

_PANELS_A_ROW = 6
_MOST_CROSSES = 40_000  # in one panel, as 200 x 200 groups have


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
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
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
