"""How all figures look. Matplotlib is imported with the first figure, for text does without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and lines differ, too.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*"]  # coprime to 6: pairs differ
LINES = ["-", "--", ":", "-."]
WIDTH = 8.4  # inches; GitHub shows this as about 830 pixels, with text of 10 points as 14 pixels
_TEXT_HEIGHT = 0.055  # of an end label, as a fraction of its axes


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_panels(
    number: int, height: float, *, columns: int = 3, width: float = WIDTH, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels in rows; height is a panel's, width the figure's, in inches."""
    columns = min(number, columns)
    rows = -(-number // columns)
    figure = new_figure(height * rows, width)
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False, **options)))
    for axes in panels[number:]:
        axes.set_axis_off()
    return figure, panels[:number]


def save(figure: "Figure", file: Path | BinaryIO) -> None:
    """Write a PNG that depends only on what is drawn, on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None}, facecolor="white")


def label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names beside the ends of lines, in their colours, far enough apart to be read.

    Args:
        axes: with their final limits.
        ends: (x, y, name, colour) of each line.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    ordered = sorted(
        (float(to_axes.transform((x, y))[1]), name, colour) for x, y, name, colour in ends
    )
    heights = [min(max(place, 0.0), 1.0) for place, _, _ in ordered]
    for at in range(1, len(heights)):
        heights[at] = max(heights[at], heights[at - 1] + _TEXT_HEIGHT)
    highest = 1 + _TEXT_HEIGHT
    for at in reversed(range(len(heights))):
        heights[at] = highest = min(heights[at], highest - _TEXT_HEIGHT)
    for height, (place, name, colour) in zip(heights, ordered, strict=True):
        side = [min(max(place, 0.0), 1.0), height]
        axes.plot(
            [1.0, 1.02], side, color=colour, linewidth=0.8, transform=axes.transAxes, clip_on=False
        )
        style: Any = {"color": colour, "va": "center", "fontsize": 9, "fontweight": "bold"}
        axes.text(1.025, height, name, transform=axes.transAxes, **style)


def add_grid(axes: "Axes", **options: Any) -> None:
    """Draw a grid behind the data."""
    axes.grid(color="0.9", **options)
    axes.set_axisbelow(True)
