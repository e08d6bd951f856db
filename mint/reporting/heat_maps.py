"""Heat maps of a finished trial's scores, with the blocks that its masks prune."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mint.reporting.figure_style import new_panels, save

if TYPE_CHECKING:  # it imports torch
    from mint.pruning.scores import BlockScores

_PANELS_PER_ROW = 6
_MOST_CROSSES = 40_000  # in one panel, such as 200 x 200 groups


def draw_trial_scores(trial_folder: Path, path: Path) -> None:
    """Draw a heat map of the block scores of every weight that a finished trial pruned, as a PNG.

    Pruned blocks have a cross; too many for crosses are blank.
    """
    from matplotlib.ticker import MaxNLocator

    from mint.trial.api import FinishedTrial

    trial = FinishedTrial(trial_folder)
    config, scores = trial.result.config, trial.scores
    size, font = (6.4, "medium") if len(scores) == 1 else (3.6, "x-small")
    columns = min(len(scores), _PANELS_PER_ROW)
    figure, panels = new_panels(len(scores), 0.88 * size, columns=columns, width=size * columns)
    figure.suptitle(f"{config.experiment.title}, trial {config.name}")
    for axes, (weight, layer) in zip(panels, scores.items(), strict=True):
        pruned = _pruned_blocks(layer, trial.masks[weight])
        crossed = pruned.size <= _MOST_CROSSES
        shown = layer.value if crossed else np.where(pruned, np.nan, layer.value)
        image = axes.imshow(shown, cmap="cividis", interpolation="nearest", aspect="auto")
        if crossed:
            marks = 60 * (size / 6.4 * 20 / max(layer.value.shape)) ** 2
            y, x = np.nonzero(pruned)
            axes.scatter(x, y, marks, marker="x", color="white", linewidths=0.8)
        number = f"{pruned.sum()} of {layer.value.size} blocks pruned"
        axes.set_title(f"{weight}: {number} ({'x' if crossed else 'blank'})", fontsize=font)
        axes.set(xlabel="parent group", ylabel="child group")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, label=f"score by {config.criterion}")
    save(figure, path)


def _pruned_blocks(layer: "BlockScores", mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, parents = np.broadcast_arrays(layer.rows, layer.parent_labels)
    # Without labels of their own, the positions of a kernel are in the same block.
    pruned_entries = ~mask.reshape(*rows.shape, -1)[..., 0]
    pruned = np.zeros(layer.value.shape, np.bool_)
    pruned[rows[pruned_entries], parents[pruned_entries]] = True
    return pruned
