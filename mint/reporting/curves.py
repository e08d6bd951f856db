"""What the variations of groups and of samples per class come to: the curves of a picture."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mint.reporting.aggregate import Cell

_POINTS = 3  # that make a curve
AXES = {"groups": "groups", "samples_per_class": "samples per class"}


@dataclass(frozen=True)
class Curve:
    """One line over the values of an axis.

    Attributes:
        axis: groups or samples_per_class.
        label: what the points share.
        measured: a cell for every value of the axis that was measured.
        published: rows with params_pruned and accuracy, either None where it is open.
    """

    axis: str
    label: str
    measured: Sequence[Cell]
    published: Sequence[Mapping[str, Any]] = ()


def variation_curves(
    cells: Iterable[Cell],
    groups: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> list[Curve]:
    """Return the curves of one protocol's trials that were searched by MINT.

    All are of as many bootstraps: those that most of the trials have.

    Args:
        cells: of the protocol.
        groups: the published rows of the variation of groups, in blocks; without any, trials make
            curves by themselves, wherever an axis has three values or more.
        samples: likewise.
    """
    own = [cell for cell in cells if cell.finished and cell.searched]
    bootstraps = Counter(cell.bootstraps for cell in own for _ in cell.finished).most_common(1)
    own = [cell for cell in own if cell.bootstraps == bootstraps[0][0]]
    return [
        curve
        for axis, published in (("groups", groups), ("samples_per_class", samples))
        for curve in (_in_blocks(axis, own, published) if published else _by_itself(axis, own))
    ]


def _in_blocks(
    axis: str, cells: Sequence[Cell], published: Sequence[Mapping[str, Any]]
) -> list[Curve]:
    curves = []
    for block in dict.fromkeys(row["block"] for row in published):
        rows = [row for row in published if row["block"] == block]
        found = [_measured(cells, upper_limit=row["upper_limit"], **_point(row)) for row in rows]
        measured = [cell for cell in found if cell]
        curves.append(Curve(axis, f"limit {block}", measured, rows))
    return curves if any(curve.measured for curve in curves) else []


def _by_itself(axis: str, cells: Sequence[Cell]) -> list[Curve]:
    (other,) = AXES.keys() - {axis}
    curves = []
    lines = {(cell.upper_limit, getattr(cell, other)) for cell in cells}
    for limit, value in sorted(lines, key=lambda line: (line[0] != "none", *line)):
        places = sorted({getattr(cell, axis) for cell in cells})
        found = [
            _measured(cells, upper_limit=limit, **{axis: place, other: value}) for place in places
        ]
        measured = [cell for cell in found if cell]
        if len(measured) >= _POINTS:
            curves.append(Curve(axis, f"limit {limit}, {value} {AXES[other]}", measured))
    return curves


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: row[axis] for axis in AXES}


def _measured(cells: Iterable[Cell], **axes: Any) -> Cell | None:
    """Return the cell of a point."""
    own = (cell for cell in cells if all(getattr(cell, axis) == axes[axis] for axis in axes))
    return next(own, None)
