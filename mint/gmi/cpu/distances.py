"""Squared distances between rows, summed in a fixed order, and lower bounds on them in a byte.

A matrix of n x n distances has n rows, padded to an even number, and n columns, padded to whole
chunks of LANES. Each distance has a bound of one byte, and each chunk its least bound. With
bound(d) = floor(d * scale), a sum d + e is less than w only where bound(d) + bound(e) < w * scale:
most sums are excluded by their bytes alone.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.gmi.cpu.groups import Group, Layer
from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.gmi.cpu.simd import distance_tile
from mint.gmi.cpu.sizes import LANES, TILE_COLUMNS, TILE_ROWS, padded

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
# Points of the rows, (n padded to an even number, k), and the same points by feature for the
# columns, (k, n padded to a multiple of LANES); padding is zero.
Points = tuple[Floats, Floats]
Each = Callable[..., Iterable[Any]]

# Bounds are rounded down, and limits up, by more than the accumulated rounding of float32; so a
# bound never excludes a sum that is less than the limit.
ROUNDING_MARGIN = 1e-5

_TOP = np.float32(255)
_FAR = np.float32(3e38)  # the distance of padding columns
_BLOCK_ROWS = 16  # these rows of a matrix fit the first-level cache
_TASK_ROWS = 64  # rows that a thread computes at a time


class Matrices(NamedTuple):
    """Distance matrices: one, or a stack with one more dimension in front.

    Distances and bounds are (rows, columns). Chunk bounds are (rows, chunks), padded with 255 to a
    multiple of LANES: the least bound of every chunk of LANES columns.
    """

    distances: Floats
    bounds: NDArray[np.uint8]
    chunk_bounds: NDArray[np.uint8]

    def unstack(self) -> "list[Matrices]":
        """Return the matrices of a stack."""
        return [Matrices(*parts) for parts in zip(*self, strict=True)]


def empty_matrices(count: int, n: int) -> Matrices:
    """Return a stack of uninitialised n x n matrices."""
    rows, columns = padded(n, TILE_ROWS), padded(n)
    chunks = padded(columns // LANES)
    return Matrices(
        np.empty((count, rows, columns), np.float32),
        np.empty((count, rows, columns), np.uint8),
        np.empty((count, rows, chunks), np.uint8),
    )


@compile_kernel
def gather(layer: Layer, rows: Integers, columns: Integers, scale: float) -> Points:
    """Return (values - mean) * scale of a layer at some rows and columns."""
    n, k = rows.size, columns.size
    by_point = np.zeros((-(-n // TILE_ROWS) * TILE_ROWS, k), np.float32)
    by_feature = np.zeros((k, -(-n // LANES) * LANES), np.float32)
    for point in range(n):
        row = rows[point]
        for feature in range(k):
            column = columns[feature]
            value = np.float32((layer.values[row, column] - layer.mean[column]) * scale)
            by_point[point, feature] = value
            by_feature[feature, point] = value
    return by_point, by_feature


@compile_kernel
def squared_distances(
    by_point: Floats, by_feature: Floats, first: int, last: int, out: Floats
) -> None:
    """Write the distances of points first to last - 1, both even, from row 0 of `out` on."""
    for column in range(0, by_feature.shape[1], TILE_COLUMNS):
        for row in range(first, last, TILE_ROWS):
            distance_tile(by_point, row, by_feature, column, out, row - first)


def full_matrix(by_point: Floats, by_feature: Floats, each: Each = map) -> Floats:
    """Return the squared distances of all row points to all column points, padding included.

    `each` is `map` or that of an executor; it calls a function for every block of rows.
    """
    rows, columns = len(by_point), by_feature.shape[1]
    distances = np.empty((rows, columns), np.float32)

    def block(first: int) -> None:
        last = min(first + _TASK_ROWS, rows)
        squared_distances(by_point, by_feature, first, last, distances[first:last])

    list(each(block, range(0, rows, _TASK_ROWS)))
    return distances


@compile_kernel
def add_rest(
    by_point: Floats,
    by_feature: Floats,
    first: int,
    last: int,
    base: Floats,
    base_factor: float,
    own_factor: float,
    out: Floats,
) -> None:
    """Add the distances among the filters outside a group to rows first to last - 1 of `out`.

    They are max(0, base_factor * base - own_factor * own), where `base` has the distances among
    the group's and other filters, and `own` those of the group's points, from gather.
    """
    width = out.shape[1]
    own = np.zeros((_BLOCK_ROWS, width), np.float32)
    factor, share = np.float32(base_factor), np.float32(own_factor)
    for start in range(first, last, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, last)
        if own_factor > 0:
            squared_distances(by_point, by_feature, start, stop, own)
        for row in range(start, stop):
            for column in range(width):
                rest = factor * base[row, column] - share * own[row - start, column]
                out[row, column] += rest if rest > 0 else np.float32(0)


@compile_kernel
def bound_rows(n: int, first: int, last: int, scale: float, out: Matrices) -> None:
    """Fill the padding of rows first to last - 1 of the distances of n points; write their bounds.

    Bounds are at most 255. The scale is finite, and the same for all matrices that are added.
    """
    columns = out.distances.shape[1]
    lowered = np.float32(scale * (1 - ROUNDING_MARGIN))
    for row in range(first, last):
        out.distances[row, n:] = _FAR
        out.chunk_bounds[row] = 255
        for chunk in range(columns // LANES):
            least = np.uint8(255)
            for column in range(chunk * LANES, (chunk + 1) * LANES):
                scaled = np.float32(out.distances[row, column] * lowered)
                bound = np.uint8(np.int32(scaled if scaled < _TOP else _TOP))
                out.bounds[row, column] = bound
                least = min(least, bound)
            out.chunk_bounds[row, chunk] = least


@compile_kernel
def write_group(
    layer: Layer,
    group: Group,
    rows: Integers,
    own_rows: Integers,
    base: Floats,
    bound_scale: float,
    out: Matrices,
) -> None:
    """Write the distances of n points in a group, plus those in the rest, and their bounds.

    Points take their values in the group from `rows`, (n,), and those in the rest from `own_rows`.
    The base and the factors are those of add_rest; base_factor 0 leaves out the rest. `out` is one
    matrix.
    """
    by_point, by_feature = gather(layer, rows, group.columns, group.scale)
    own_by_point, own_by_feature = by_point, by_feature
    if group.own_factor > 0:
        own_by_point, own_by_feature = gather(layer, own_rows, group.columns, group.scale)
    factors = group.base_factor, group.own_factor
    for first in range(0, len(out.distances), _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, len(out.distances))
        squared_distances(by_point, by_feature, first, last, out.distances[first:last])
        if group.base_factor > 0:
            add_rest(own_by_point, own_by_feature, first, last, base, *factors, out.distances)
        bound_rows(rows.size, first, last, bound_scale, out)
