"""Squared distances between rows, summed in a fixed order, and lower bounds on them in a byte.

A matrix of n x n distances is kept in n rows, rounded up to an even number, of n columns, rounded
up to whole chunks of LANES. Beside it stand bounds, one byte for every distance, and the least
bound of every chunk. For a common scale, with bound(d) = floor(d * scale), a sum d + e is less
than w only where bound(d) + bound(e) < w * scale: most sums are ruled out on their bytes alone.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mint.gmi.cpu.simd import LANES, TILE_COLUMNS, TILE_ROWS, distance_tile, quantise

# Bounds are rounded down by more, and limits up by more, than the roundings of float32 on the
# way can add up to; so a bound never rules out a sum that is less than the limit.
ROUNDING_MARGIN = 1e-5

# Columns that stand for no point are far from every point.
_FAR = np.float32(3e38)
_BLOCK_ROWS = 16  # what stays in the first cache while it is worked on
_TASK_ROWS = 64  # what a thread does at a time


class Matrices(NamedTuple):
    """A stack of distance matrices.

    Attributes:
        distances: (k, rows, columns) float32.
        bounds: (k, rows, columns) uint8.
        chunk_bounds: (k, rows, chunks) uint8, the least bound of every chunk of LANES columns;
            chunks is itself a multiple of LANES, filled up with 255.
    """

    distances: NDArray[np.float32]
    bounds: NDArray[np.uint8]
    chunk_bounds: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self)


class Shape(NamedTuple):
    """Sizes of a matrix of distances as it is kept."""

    rows: int
    columns: int
    chunks: int

    @property
    def nbytes(self) -> int:
        """Bytes of a matrix with its bounds."""
        return self.rows * (5 * self.columns + self.chunks)


def padded(n: int, multiple: int) -> int:
    """Round n up to a multiple."""
    return -(-n // multiple) * multiple


def shape_of(n: int) -> Shape:
    """Return the sizes in which n x n distances are kept."""
    columns = padded(n, LANES)
    return Shape(padded(n, TILE_ROWS), columns, padded(columns // LANES, LANES))


def empty_matrices(count: int, n: int) -> Matrices:
    """Return room for n x n distances, `count` times; nothing is written yet."""
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


@njit(nogil=True, cache=True)
def gather(
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take (table - mean) * scale for some rows and columns, padded with zeros.

    Args:
        table: (N, filters).
        rows: (n,) row indices.
        columns: (k,) column indices.
        mean: (filters,).
        scale: one for all columns.

    Returns:
        The values point by point, (n rounded up to an even number, k), and feature by feature,
        (k, n rounded up to a multiple of LANES).
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


@njit(nogil=True, cache=True)
def squared_distances(
    by_point: NDArray[np.float32],
    by_feature: NDArray[np.float32],
    first: int,
    last: int,
    out: NDArray[np.float32],
) -> None:
    """Write the squared distances of some points to all others.

    Args:
        by_point: (rows, k) features of the points whose distances are wanted.
        by_feature: (k, columns) features of the points they are measured to.
        first: of the points, even.
        last: behind the last of the points, even.
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
            distance_tile(
                points,
                row * features,
                features,
                others,
                column,
                columns,
                features,
                flat,
                at,
                columns,
            )


class Each(Protocol):
    """Calls a function for every item: `map`, or the map of an executor."""

    def __call__(
        self, function: Callable[[int], None], items: Iterable[int], /
    ) -> Iterable[None]: ...


def full_matrix(
    by_point: NDArray[np.float32], by_feature: NDArray[np.float32], each: Each = map
) -> NDArray[np.float32]:
    """Return the squared distances of all points of `gather` to all points of another one.

    Args:
        by_point: (rows, k) of the points in the rows.
        by_feature: (k, columns) of the points in the columns.
        each: runs the blocks of rows.

    Returns:
        (rows, columns), the padding included.
    """
    rows, columns = len(by_point), by_feature.shape[1]
    distances = np.empty((rows, columns), np.float32)

    def block(first: int) -> None:
        last = min(first + _TASK_ROWS, rows)
        squared_distances(by_point, by_feature, first, last, distances[first:last])

    for _ in each(block, range(0, rows, _TASK_ROWS)):
        pass
    return distances


@njit(nogil=True, cache=True)
def bound_rows(
    n: int,
    first: int,
    last: int,
    scale: float,
    distances: NDArray[np.float32],
    bounds: NDArray[np.uint8],
    chunk_bounds: NDArray[np.uint8],
) -> None:
    """Set the padding of some rows of distances, and write their bounds.

    Args:
        n: number of points; columns behind are padding.
        first: of the rows.
        last: behind the last of the rows.
        scale: bounds are floor(distance * scale), 255 at most. Finite, and the same for all
            matrices that are to be added.
        distances: (rows, columns), the padding is written.
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
            chunk_bounds[row, chunk] = quantise(
                flat, flat_bounds, row * columns + chunk * LANES, lowered
            )


@njit(nogil=True, cache=True)
def block_matrix(
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
    own_rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: float,
    others: NDArray[np.float32],
    others_factor: float,
    own_factor: float,
    bound_scale: float,
    distances: NDArray[np.float32],
    bounds: NDArray[np.uint8],
    chunk_bounds: NDArray[np.uint8],
) -> None:
    """Write the distances of one group of filters, and of all others if wanted, with bounds.

    The distance is that of the group at `rows`, plus that of the other filters, which is
    max(0, others_factor * others - own_factor * (that of the group at `own_rows`)).

    Args:
        table: (N, filters) activations.
        rows: (n,) the row each point has its activations in the group from.
        own_rows: (n,) the row each point has its activations in the other filters from.
        columns: (k,) filters of the group.
        mean: (filters,) of the table.
        scale: of the group's activations.
        others: (rows, columns) distances among more filters; not read if others_factor is 0.
        others_factor: of `others`.
        own_factor: what the group itself makes up of `others`.
        bound_scale: of the bounds.
        distances: (rows, columns), written.
        bounds: (rows, columns), written.
        chunk_bounds: (rows, chunks), written.
    """
    n = rows.size
    all_rows, width = distances.shape
    by_point, by_feature = gather(table, rows, columns, mean, scale)
    own_by_point, own_by_feature = by_point, by_feature
    if own_factor > 0:
        own_by_point, own_by_feature = gather(table, own_rows, columns, mean, scale)
    own = np.zeros((_BLOCK_ROWS, width), np.float32)
    factor, share = np.float32(others_factor), np.float32(own_factor)
    for first in range(0, all_rows, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, all_rows)
        squared_distances(by_point, by_feature, first, last, distances[first:last])
        if others_factor > 0:
            if own_factor > 0:
                squared_distances(own_by_point, own_by_feature, first, last, own)
            for row in range(first, last):
                for column in range(width):
                    rest = factor * others[row, column] - share * own[row - first, column]
                    distances[row, column] += rest if rest > 0 else np.float32(0)
        bound_rows(n, first, last, bound_scale, distances, bounds, chunk_bounds)
