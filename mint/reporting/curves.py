"""Curves of the figure of variations: params pruned and accuracy over an axis."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mint.reporting.aggregate import SeedGroup
from mint.reporting.reference import Variation

VARIED_AXES = {"groups": "groups", "samples_per_class": "samples per class"}
_FEWEST_POINTS = 3  # of a curve


@dataclass(frozen=True)
class Curve:
    """One line over the values of an axis.

    Attributes:
        axis: groups or samples_per_class.
        label: the axes that the points share.
        measured: a seed group for every measured value of the axis.
        published: the reference rows of the same block.
    """

    axis: str
    label: str
    measured: Sequence[SeedGroup]
    published: Sequence[Variation] = ()


def variation_curves(
    groups: Iterable[SeedGroup],
    published_groups: Sequence[Variation],
    published_samples: Sequence[Variation],
) -> list[Curve]:
    """Return the curves of one protocol's searches by MINT.

    All have the number of bootstraps that most of the trials have.

    Args:
        groups: the seed groups of the protocol.
        published_groups: reference rows, one curve for each block. Without any, trials at three
            values or more of an axis are a curve.
        published_samples: the same for the samples per class.
    """
    own = [group for group in groups if group.finished and group.is_mint_search]
    bootstraps = Counter(group.bootstraps for group in own for _ in group.finished).most_common(1)
    own = [group for group in own if group.bootstraps == bootstraps[0][0]]
    return [
        curve
        for axis, rows in (("groups", published_groups), ("samples_per_class", published_samples))
        for curve in (_of_blocks(axis, own, rows) if rows else _of_trials(axis, own))
    ]


def _of_blocks(
    axis: str, groups: Sequence[SeedGroup], published: Sequence[Variation]
) -> list[Curve]:
    curves = []
    for block in dict.fromkeys(row.block for row in published):
        rows = [row for row in published if row.block == block]
        measured = [
            group
            for row in rows
            for group in _at(
                groups,
                upper_limit=row.upper_limit,
                groups=row.groups,
                samples_per_class=row.samples_per_class,
            )
        ]
        curves.append(Curve(axis, f"limit {block}", measured, rows))
    return curves if any(curve.measured for curve in curves) else []


def _of_trials(axis: str, groups: Sequence[SeedGroup]) -> list[Curve]:
    (other,) = VARIED_AXES.keys() - {axis}
    curves = []
    lines = {(group.upper_limit, getattr(group, other)) for group in groups}
    for limit, value in sorted(lines, key=lambda line: (line[0] != "none", *line)):
        measured = sorted(
            _at(groups, upper_limit=limit, **{other: value}),
            key=lambda group: getattr(group, axis),
        )
        if len(measured) >= _FEWEST_POINTS:
            curves.append(Curve(axis, f"limit {limit}, {value} {VARIED_AXES[other]}", measured))
    return curves


def _at(groups: Iterable[SeedGroup], /, **axes: Any) -> list[SeedGroup]:
    return [group for group in groups if all(getattr(group, axis) == axes[axis] for axis in axes)]
