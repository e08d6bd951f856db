"""How all figures look. Matplotlib is imported with the first figure, for text does without it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and lines differ, too.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*"]  # coprime to 6: pairs differ
LINES = ["-", "--", ":", "-."]


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_panels(
    number: int, columns: int, size: tuple[float, float], *, margin: float = 0, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels in rows; size is a panel's, margin the figure's, in inches."""
    columns = min(number, columns)
    rows = -(-number // columns)
    figure = new_figure(margin + size[0] * columns, size[1] * rows)
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False, **options)))
    for axes in panels[number:]:
        axes.set_axis_off()
    return figure, panels[:number]


def save(figure: "Figure", file: Path | BinaryIO) -> None:
    """Write a PNG that depends only on what is drawn, on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None}, facecolor="white")


def line_handle(label: str, **style: Any) -> "Artist":
    """Return a line or marker for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


def patch_handle(label: str, colour: str) -> "Artist":
    """Return a coloured patch for a legend."""
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def add_grid(axes: "Axes", **options: Any) -> None:
    """Draw a grid behind the data."""
    axes.grid(color="0.9", **options)
    axes.set_axisbelow(True)
