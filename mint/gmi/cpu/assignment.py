"""Partners for the points of one sample in another: one to one at the least total, or nearest.

One to one is the assignment problem, solved exactly as Jonker and Volgenant do (Computing 1987):
rows bid for columns against each other, then shortest paths of changes place what is left over.
Costs are squared distances as whole numbers from 0 to 2^26, so the optimum is exact on a grid
of the largest distance / 2^26, finer than the roundings of float32. On whole numbers of that size
nothing can overflow: a column that is free yet keeps the dual it started with, from -2^26 to
2^26, and the rows that are placed prefer their own column to it, so all duals stay within 2^26 +
2^26 of zero, and the lengths of paths under 2^29.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mint.gmi.cpu.distances import Each, full_matrix, gather, padded, squared_distances
from mint.gmi.cpu.simd import LANES, equal_mask, lowest_bit, relax, subtract_minimum

_LARGEST_COST = 2**26
_SCANNED = np.int32(2**29)  # longer than any path
_CLOSED = np.int32(-(2**30))  # the dual of a column that no row may take
_NEVER = np.int32(2**31 - 1)
_BLOCK_ROWS = 16
# Rounds of bidding; a round may take this many bids a row.
_ROUNDS = 2
_BIDS = 8


class Samples(NamedTuple):
    """Two samples of rows of one table.

    Attributes:
        table: (N, filters) float32.
        mean: (filters,) float64 of the table; taken off before float32 differences are formed.
        second: (m,) int64 row indices, the rows to be given partners.
        reference: (m,) int64 row indices, the partners.
    """

    table: NDArray[np.float32]
    mean: NDArray[np.float64]
    second: NDArray[np.int64]
    reference: NDArray[np.int64]


def match(second: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.int64]:
    """Match points one to one so that the total squared distance is least.

    The total is exact up to m * (the largest squared distance) / 2^26.

    Args:
        second: (m, k) points.
        reference: (m, k) points.

    Returns:
        (m,) for every point of the second sample, the index of its partner in the reference.

    Raises:
        ValueError: the shapes differ.
    """
    if second.shape != reference.shape:
        raise ValueError(f"match: {second.shape} and {reference.shape} differ in shape")
    m, k = second.shape
    table = np.concatenate([second, reference]).astype(np.float32, copy=False)
    mean = table.mean(0, dtype=np.float64)
    spread = float(np.abs(table - mean).max(initial=0.0))
    samples = Samples(table, mean, np.arange(m), np.arange(m, 2 * m))
    distances = cross_distances(samples, np.arange(k), 1 / spread if spread > 0 else 0.0)
    return match_others(samples, distances, start_duals(distances, m))


def nbytes(m: int) -> int:
    """Bytes of a matrix of distances between two samples of m points."""
    return 4 * padded(m, 2) * padded(m, LANES)


def scratch_nbytes(m: int) -> int:
    """Bytes that a matching takes beside its matrix of costs and its columns."""
    return (4 * _BLOCK_ROWS + 64) * padded(m, LANES)


def cross_distances(
    samples: Samples, columns: NDArray[np.int64], scale: float, each: Each = map
) -> NDArray[np.float32]:
    """Return the squared distances of the second sample to the reference, padded.

    Args:
        samples: of m rows each.
        columns: that count.
        scale: that the values are multiplied by.
        each: runs a function for every block of rows, such as the map of an executor.

    Returns:
        (m rounded up to an even number, m rounded up to a multiple of LANES).
    """
    table, mean, second, reference = samples
    by_point, _ = gather(table, second, columns, mean, scale)
    _, by_feature = gather(table, reference, columns, mean, scale)
    return full_matrix(by_point, by_feature, each)


def start_duals(distances: NDArray[np.float32], m: int) -> NDArray[np.float64]:
    """Return the duals that the first of several similar matchings starts with: (columns,)."""
    duals = np.zeros(distances.shape[1])
    duals[:m] = distances[:m, :m].min(0, initial=np.inf)
    return duals


def match_others(
    samples: Samples,
    distances: NDArray[np.float32],
    duals: NDArray[np.float64],
    columns: NDArray[np.int64] | None = None,
    *,
    scale: float = 0.0,
    share: float = 0.0,
    one_to_one: bool = True,
) -> NDArray[np.int64]:
    """Match the two samples by a matrix of distances less those of one group of columns.

    The distance is max(0, distances - share * (that of the group)). Safe to call from several
    threads, with duals of their own.

    Args:
        samples: of m rows each.
        distances: from cross_distances.
        duals: (columns,) a warm start: those of a similar matching, or from start_duals. On
            return those of the optimum, in the units of `distances`.
        columns: of the group.
        scale: that the group's values are multiplied by.
        share: what the group makes up of `distances`.
        one_to_one: give every point its nearest neighbour if false.

    Returns:
        (m,) for every row of the second sample, the index of its partner in the reference.
    """
    group = np.zeros(0, np.int64) if columns is None else columns
    partner = np.empty(len(samples.second), np.int64)
    # Whole costs take the place of the distances that they are made of.
    whole = np.empty(distances.shape, np.int32)
    cost = whole.view(np.float32)
    _match_others(*samples, distances, group, scale, share, one_to_one, duals, cost, whole, partner)
    return partner


@njit(inline="always")
def _index_of_least(values: NDArray[np.float32] | NDArray[np.int32]) -> int:
    best = 0
    for index in range(1, values.size):
        if values[index] < values[best]:
            best = index
    return best


@njit(nogil=True, cache=True)
def _match_others(
    table: NDArray[np.float32],
    mean: NDArray[np.float64],
    second: NDArray[np.int64],
    reference: NDArray[np.int64],
    distances: NDArray[np.float32],
    columns: NDArray[np.int64],
    scale: float,
    share: float,
    one_to_one: bool,
    duals: NDArray[np.float64],
    cost: NDArray[np.float32],
    whole: NDArray[np.int32],
    partner: NDArray[np.int64],
) -> None:
    m = second.size
    rows, width = distances.shape
    by_point, _ = gather(table, second, columns, mean, scale)
    _, by_feature = gather(table, reference, columns, mean, scale)
    own = np.empty((_BLOCK_ROWS, width), np.float32)
    part = np.float32(share)
    largest = np.float32(0)
    for first in range(0, rows, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, rows)
        squared_distances(by_point, by_feature, first, last, own)
        for row in range(first, min(last, m)):
            for column in range(width):
                value = distances[row, column] - part * own[row - first, column]
                cost[row, column] = value if value > 0 else np.float32(0)
            for column in range(m):
                value = cost[row, column]
                largest = value if value > largest else largest
    if not one_to_one:
        for row in range(m):
            partner[row] = _index_of_least(cost[row, :m])
        return
    grid = _LARGEST_COST / np.float64(largest) if largest > 0 else 0.0
    for row in range(m):
        for column in range(m):
            whole[row, column] = np.int32(np.rint(cost[row, column] * grid))
        whole[row, m:] = 0
    whole_duals = np.empty(width, np.int32)
    for column in range(m):
        dual = np.rint(duals[column] * grid)
        whole_duals[column] = np.int32(max(-_LARGEST_COST, min(_LARGEST_COST, dual)))
    _assign(whole, whole_duals, partner)
    if grid > 0:
        for column in range(m):
            duals[column] = whole_duals[column] / grid


@njit(nogil=True, cache=True)
def _assign(cost: NDArray[np.int32], dual: NDArray[np.int32], partner: NDArray[np.int64]) -> None:
    """Solve the assignment problem.

    Args:
        cost: (any, columns), from 0 to _LARGEST_COST; the first m of each are meant.
        dual: (columns,), within _LARGEST_COST of zero on entry; those of the optimum on return.
        partner: (m,), written: the column of every row.
    """
    m = partner.size
    if m == 1:  # there is no second column to bid against
        partner[0] = 0
        return
    columns = cost.shape[1]
    chunks = columns // LANES
    flat = cost.reshape(-1)
    dual[m:] = _CLOSED
    row_of = np.empty(columns, np.int32)
    column_of = np.empty(m, np.int32)
    row_of[:], column_of[:] = -1, -1
    chunk_least = np.empty(chunks, np.int32)
    free = np.empty(m, np.int32)
    for row in range(m):
        free[row] = row
    free_count = m

    # Bidding: a free row takes the column that is cheapest for it, at a price that leaves it as
    # well off as with the second cheapest, and sets free the row that was there.
    reduced = np.empty(columns, np.int32)
    for _ in range(_ROUNDS):
        index, count, bids = 0, free_count, 0
        free_count = 0
        while index < count:
            row = free[index]
            index += 1
            bids += 1
            if bids > _BIDS * m:
                free[free_count] = row
                free_count += 1
                continue
            for chunk in range(chunks):
                at = chunk * LANES
                chunk_least[chunk] = subtract_minimum(
                    flat, np.int64(row) * columns + at, dual, at, reduced, at
                )
            chunk = _index_of_least(chunk_least)
            least = chunk_least[chunk]
            at = chunk * LANES
            column = at + lowest_bit(equal_mask(reduced, at, least))
            reduced[column] = _NEVER
            chunk_least[chunk] = reduced[at + _index_of_least(reduced[at : at + LANES])]
            second_chunk = _index_of_least(chunk_least)
            second_least = chunk_least[second_chunk]
            if least < second_least:
                dual[column] -= second_least - least
            elif row_of[column] >= 0:
                at = second_chunk * LANES
                column = at + lowest_bit(equal_mask(reduced, at, second_least))
            evicted = row_of[column]
            row_of[column] = row
            column_of[row] = column
            if evicted >= 0:
                column_of[evicted] = -1
                if least < second_least:
                    index -= 1
                    free[index] = evicted
                else:
                    free[free_count] = evicted
                    free_count += 1
        if free_count == 0:
            break

    # Shortest paths from every row that is still free to a free column.
    length = np.empty(columns, np.int32)
    open_dual = np.empty(columns, np.int32)
    source = np.empty(columns, np.int32)
    scanned = np.empty(columns, np.int32)
    scanned_length = np.empty(columns, np.int32)
    for index in range(free_count):
        start = free[index]
        for column in range(columns):
            open_dual[column] = dual[column]
            length[column] = _NEVER
        offset = np.int32(0)
        count = 0
        row = start
        while True:
            for chunk in range(chunks):
                at = chunk * LANES
                chunk_least[chunk] = relax(
                    flat,
                    np.int64(row) * columns + at,
                    open_dual,
                    length,
                    source,
                    at,
                    offset,
                    np.int32(row),
                )
            chunk = _index_of_least(chunk_least)
            least = chunk_least[chunk]
            at = chunk * LANES
            column = at + lowest_bit(equal_mask(length, at, least))
            if row_of[column] < 0:
                break
            scanned[count] = column
            scanned_length[count] = least
            count += 1
            length[column] = _SCANNED
            open_dual[column] = _CLOSED
            row = row_of[column]
            offset = np.int32(least - (cost[row, column] - dual[column]))
        for step in range(count):
            dual[scanned[step]] += scanned_length[step] - least
        while True:
            row = source[column]
            row_of[column] = row
            following = column_of[row]
            column_of[row] = column
            if row == start:
                break
            column = following
    for row in range(m):
        partner[row] = column_of[row]
