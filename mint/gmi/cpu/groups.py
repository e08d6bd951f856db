"""Layers, their groups of filters, and the distances that parent groups share.

For a parent group Y, the distances among the rest of its layer, Z, are the distances of a base
less those of Y. One base, the whole layer, serves most groups.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mint.gmi.cpu.sizes import MOMENT_ROWS

# If a group has more than this share of the parent layer's variance, the distances of the rest are
# summed directly: as a difference they would lose their precision.
_LARGEST_SHARE = 0.75


class Layer(NamedTuple):
    """Activations of a layer, (N, filters), and the mean and variance of every filter."""

    values: NDArray[np.float32]
    mean: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Self:
        values = np.ascontiguousarray(values, np.float32)
        mean = values.mean(0, dtype=np.float64)
        squares = np.zeros_like(mean)
        for start in range(0, len(values), MOMENT_ROWS):
            squares += ((values[start : start + MOMENT_ROWS] - mean) ** 2).sum(0)
        return cls(values, mean, squares / len(values))

    def variance(self, columns: NDArray[np.int64]) -> float:
        """Return the total variance of some filters."""
        return float(self.variances[columns].sum())


def unit_scale(variance: float) -> float:
    """Return the factor that gives unit variance; zero for a constant."""
    return variance**-0.5 if variance > 0 else 0.0


class Group(NamedTuple):
    """A group of filters, and how to get the distances of the rest of its layer from a base.

    Distances of the rest are base_factor times those of the base, less own_factor times those of
    the group. base_factor is 0 if the rest is left out or constant.
    """

    number: int  # in its layer
    columns: NDArray[np.int64]
    scale: float  # factor of the activations
    base_factor: float = 0.0
    own_factor: float = 0.0


class Base(NamedTuple):
    """Filters and the factor of their activations, and the parent groups that share them."""

    columns: NDArray[np.int64]
    scale: float
    groups: list[Group]


def shared_bases(
    parent: Layer,
    groups: Sequence[NDArray[np.int64]],
    common_scale: float | None,
    conditional: bool,
) -> list[Base]:
    """Return the bases of all parent groups.

    `common_scale` is the factor of all activations; None gives each of Y and Z unit variance.
    """

    def scale_of(variance: float) -> float:
        return unit_scale(variance) if common_scale is None else common_scale

    varying = np.flatnonzero(parent.variances > 0)
    total = parent.variance(varying)
    shared, alone = [], []
    for number, columns in enumerate(groups):
        others = np.setdiff1d(varying, columns)
        own, rest = parent.variance(columns), parent.variance(others) if conditional else 0.0
        group = Group(number, columns, scale_of(own))
        if rest == 0:
            shared.append(group)
        elif own > _LARGEST_SHARE * total:
            alone.append(Base(others, scale_of(rest), [group._replace(base_factor=1.0)]))
        elif common_scale is None:
            shared.append(group._replace(base_factor=total / rest, own_factor=own / rest))
        else:
            shared.append(group._replace(base_factor=1.0, own_factor=1.0))
    needed = any(group.base_factor for group in shared)
    columns = varying if needed else varying[:0]
    return ([Base(columns, scale_of(total), shared)] if shared else []) + alone
