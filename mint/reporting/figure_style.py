"""How all pictures look, and how they are written."""

from pathlib import Path
from typing import BinaryIO, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and lines differ, too.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*"]  # coprime to 6: pairs differ
LINES: list[Literal["-", "--", ":", "-."]] = ["-", "--", ":", "-."]


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a PNG that depends on nothing but what is drawn; white, whatever it is shown on."""
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None}, facecolor="white")
