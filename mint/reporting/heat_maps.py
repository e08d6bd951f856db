"""Heat maps of a finished trial's scores, with the blocks that its masks prune."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mint.reporting.figure_style import new_figure, save

if TYPE_CHECKING:  # it imports torch
    from matplotlib.axes import Axes

    from mint.pruning.scores import BlockScores

_PANELS_PER_ROW = 6
_MOST_CROSSES = 40_000  # in one panel, such as 200 x 200 groups


def draw_trial_scores(trial_folder: Path, path: Path) -> None:
    """Draw a heat map of the block scores of every weight that was pruned.

    Pruned blocks have a cross; too many for crosses are blank.

    Args:
        trial_folder: of a finished trial.
        path: of the PNG.
    """
    from mint.trial.api import FinishedTrial

    trial = FinishedTrial(trial_folder)
    config, scores = trial.result.config, trial.scores
    columns = min(len(scores), _PANELS_PER_ROW)
    rows = -(-len(scores) // columns)
    size = 6.4 if len(scores) == 1 else 3.6
    figure = new_figure(size * columns, 0.88 * size * rows)
    figure.suptitle(f"{config.experiment.title}, trial {config.name}")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (weight, layer) in zip(panels, scores.items(), strict=False):
        pruned = _pruned_blocks(layer, trial.masks[weight])
        crossed = pruned.size <= _MOST_CROSSES
        shown = layer.value if crossed else np.where(pruned, np.nan, layer.value)
        image = axes.imshow(shown, cmap="cividis", interpolation="nearest", aspect="auto")
        if crossed:
            marks = 60 * (size / 6.4 * 20 / max(layer.value.shape)) ** 2
            places = np.nonzero(pruned)[::-1]
            axes.scatter(*places, marks, marker="x", color="white", linewidths=0.8)
        sign = "x" if crossed else "blank"
        axes.set_title(
            f"{weight}: {pruned.sum()} of {layer.value.size} blocks pruned ({sign})",
            fontsize="medium" if len(scores) == 1 else "x-small",
        )
        _label_groups(axes)
        figure.colorbar(image, label=f"score by {config.criterion}")
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    save(figure, path)


def _label_groups(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="parent group", ylabel="child group")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def _pruned_blocks(layer: "BlockScores", mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels = np.broadcast_arrays(layer.rows, layer.parent_labels)
    # Without labels of their own, the positions of a kernel are in the same block.
    entries = mask.reshape(*labels[0].shape, -1)[..., 0]
    pruned = np.zeros(layer.value.shape, np.bool_)
    pruned[labels[0][~entries], labels[1][~entries]] = True
    return pruned
