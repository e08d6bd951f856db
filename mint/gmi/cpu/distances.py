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

from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.gmi.cpu.simd import LANES, TILE_COLUMNS, TILE_ROWS, distance_tile, quantise

# Bounds are rounded down, and limits up, by more than the accumulated rounding of float32; so a
# bound never excludes a sum that is less than the limit.
ROUNDING_MARGIN = 1e-5

_FAR = np.float32(3e38)  # the distance of padding columns
_BLOCK_ROWS = 16  # these rows of a matrix fit the first-level cache
_TASK_ROWS = 64  # rows that a thread computes at a time


class Matrices(NamedTuple):
    """A stack of distance matrices.

    Attributes:
        distances: (k, rows, columns) float32.
        bounds: (k, rows, columns) uint8.
        chunk_bounds: (k, rows, chunks) uint8, the least bound of every chunk of LANES columns;
            chunks is itself padded to a multiple of LANES, with bounds of 255.
    """

    distances: NDArray[np.float32]
    bounds: NDArray[np.uint8]
    chunk_bounds: NDArray[np.uint8]


class Shape(NamedTuple):
    """Padded sizes of a distance matrix."""

    rows: int
    columns: int
    chunks: int

    @property
    def nbytes(self) -> int:
        """Bytes of a matrix with its bounds."""
        return self.rows * (5 * self.columns + self.chunks)


def shape_of(n: int) -> Shape:
    """Return the padded sizes of n x n distances."""
    columns = _padded(n, LANES)
    return Shape(_padded(n, TILE_ROWS), columns, _padded(columns // LANES, LANES))


def _padded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def empty_matrices(count: int, n: int) -> Matrices:
    """Return uninitialised n x n matrices."""
    rows, columns, chunks = shape_of(n)
    return Matrices(
        np.empty((count, rows, columns), np.float32),
        np.empty((count, rows, columns), np.uint8),
        np.empty((count, rows, chunks), np.uint8),
    )


def gathered_nbytes(n: int, k: int) -> int:
    """Bytes of what gather returns for n rows and k columns."""
    shape = shape_of(n)
    return 4 * k * (shape.rows + shape.columns)


@compile_kernel
def gather(
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (table - mean) * scale at some rows and columns, padded with zeros.

    Args:
        table: (N, filters).
        rows: (n,) row indices.
        columns: (k,) column indices.
        mean: (filters,).
        scale: factor of all columns.

    Returns:
        The values point by point, (n padded to an even number, k), and feature by feature,
        (k, n padded to a multiple of LANES).
    """
    n, k = rows.size, columns.size
    by_point = np.zeros((-(-n // TILE_ROWS) * TILE_ROWS, k), np.float32)
    by_feature = np.zeros((k, -(-n // LANES) * LANES), np.float32)
    for point in range(n):
        row = rows[point]
        for feature in range(k):
            column = columns[feature]
            value = np.float32((table[row, column] - mean[column]) * scale)
            by_point[point, feature] = value
            by_feature[feature, point] = value
    return by_point, by_feature


@compile_kernel
def squared_distances(
    by_point: NDArray[np.float32],
    by_feature: NDArray[np.float32],
    first: int,
    last: int,
    out: NDArray[np.float32],
) -> None:
    """Write the squared distances of points first to last - 1, both even, to all other points.

    Args:
        by_point: (rows, k) points of the rows.
        by_feature: (k, columns) points of the columns.
        first: first row.
        last: row behind the last one.
        out: (last - first or more, columns), written from its first row on.
    """
    features = by_point.shape[1]
    columns = by_feature.shape[1]
    points = by_point.reshape(-1)
    others = by_feature.reshape(-1)
    flat = out.reshape(-1)
    for column in range(0, columns, TILE_COLUMNS):
        for row in range(first, last, TILE_ROWS):
            at = (row - first) * columns + column
            place = row * features
            distance_tile(
                *(points, place, features, others, column, columns, features, flat, at, columns)
            )


def full_matrix(
    by_point: NDArray[np.float32],
    by_feature: NDArray[np.float32],
    each: Callable[..., Iterable[Any]] = map,
) -> NDArray[np.float32]:
    """Return the squared distances of all points of `gather` to all points of another one.

    Args:
        by_point: (rows, k) points of the rows.
        by_feature: (k, columns) points of the columns.
        each: `map`, or that of an executor: calls a function for every block of rows.

    Returns:
        (rows, columns), padding included.
    """
    rows, columns = len(by_point), by_feature.shape[1]
    distances = np.empty((rows, columns), np.float32)

    def block(first: int) -> None:
        last = min(first + _TASK_ROWS, rows)
        squared_distances(by_point, by_feature, first, last, distances[first:last])

    for _ in each(block, range(0, rows, _TASK_ROWS)):
        pass
    return distances


@compile_kernel
def add_rest(
    by_point: NDArray[np.float32],
    by_feature: NDArray[np.float32],
    first: int,
    last: int,
    base: NDArray[np.float32],
    base_factor: float,
    own_factor: float,
    out: NDArray[np.float32],
) -> None:
    """Add the squared distances among the filters outside a group to some rows of `out`.

    They are max(0, base_factor * base - own_factor * (distances in the group)).

    Args:
        by_point: (rows, k) the group's values of the row points.
        by_feature: (k, columns) the group's values of the column points.
        first: first row, even.
        last: row behind the last one, even.
        base: (rows, columns) squared distances among the group's and other filters.
        base_factor: factor of `base`.
        own_factor: share of the group in `base`.
        out: (rows, columns), added to.
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
def bound_rows(
    n: int,
    first: int,
    last: int,
    scale: float,
    distances: NDArray[np.float32],
    bounds: NDArray[np.uint8],
    chunk_bounds: NDArray[np.uint8],
) -> None:
    """Fill the padding of some rows of distances, and write their bounds.

    Args:
        n: number of points; columns behind them are padding.
        first: first row.
        last: row behind the last one.
        scale: bounds are floor(distance * scale), at most 255. Finite, and the same for all
            matrices that are added.
        distances: (rows, columns), padding written.
        bounds: (rows, columns), written.
        chunk_bounds: (rows, chunks), written.
    """
    columns = distances.shape[1]
    chunks = columns // LANES
    lowered = np.float32(scale * (1 - ROUNDING_MARGIN))
    flat = distances.reshape(-1)
    flat_bounds = bounds.reshape(-1)
    for row in range(first, last):
        distances[row, n:] = _FAR
        chunk_bounds[row, chunks:] = 255
        for chunk in range(chunks):
            at = row * columns + chunk * LANES
            chunk_bounds[row, chunk] = quantise(flat, flat_bounds, at, lowered)


@compile_kernel
def block_matrix(
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
    own_rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: float,
    base: NDArray[np.float32],
    base_factor: float,
    own_factor: float,
    bound_scale: float,
    distances: NDArray[np.float32],
    bounds: NDArray[np.uint8],
    chunk_bounds: NDArray[np.uint8],
) -> None:
    """Write the distances of one group of filters, plus those of the rest, and their bounds.

    Args:
        table: (N, filters) activations.
        rows: (n,) row of `table` from which each point takes its values in the group.
        own_rows: (n,) row from which it takes its values in the rest.
        columns: (k,) filters of the group.
        mean: (filters,) mean of the table.
        scale: factor of the group's activations.
        base: as in add_rest; not read if base_factor is 0.
        base_factor: as in add_rest; 0 leaves out the rest.
        own_factor: as in add_rest.
        bound_scale: scale of the bounds.
        distances: (rows, columns), written.
        bounds: (rows, columns), written.
        chunk_bounds: (rows, chunks), written.
    """
    by_point, by_feature = gather(table, rows, columns, mean, scale)
    own_by_point, own_by_feature = by_point, by_feature
    if own_factor > 0:
        own_by_point, own_by_feature = gather(table, own_rows, columns, mean, scale)
    height = distances.shape[0]
    for first in range(0, height, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, height)
        squared_distances(by_point, by_feature, first, last, distances[first:last])
        if base_factor > 0:
            add_rest(
                own_by_point, own_by_feature, first, last, base, base_factor, own_factor, distances
            )
        bound_rows(rows.size, first, last, bound_scale, distances, bounds, chunk_bounds)
