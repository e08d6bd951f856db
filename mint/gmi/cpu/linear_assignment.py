"""The assignment problem, solved exactly as Jonker and Volgenant do (Computing 1987).

Rows bid for columns against each other, then shortest augmenting paths place the remaining rows.
Costs are whole numbers from 0 to 2^26, so duals and path lengths stay within int32: duals within
2^27 of zero, paths under 2^29.

With scipy.optimize.linear_sum_assignment, a bootstrap of 20 x 20 groups takes at least twice as
long at 2500 rows, and three times as long at 5000.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.gmi.cpu.simd import first_equal, least_int32
from mint.gmi.cpu.sizes import LANES

_LARGEST_COST = 2**26
_SCANNED = np.int32(2**29)  # longer than any path
_CLOSED = np.int32(-(2**30))  # the dual of a column that no row may take
_NEVER = np.int32(2**31 - 1)
_ROUNDS = 2  # of bidding
_BIDS = 8  # a row in one round, on average


def assign(cost: NDArray[np.float32], m: int, duals: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the column of every row such that the total cost is least.

    The total is exact up to m * (the largest cost) / 2^26. Safe to call from several threads.

    `cost` is (m or more, m padded to a multiple of LANES), at least 0, and overwritten. `duals`,
    (m,) of the columns, are those of a similar problem or the least costs, and are overwritten by
    those of the optimum. Return (m,) column indices, all different.
    """
    if m == 1:  # no second column to bid against
        return np.zeros(1, np.int64)
    largest = float(cost[:m, :m].max())
    factor = _LARGEST_COST / largest if largest > 0 else 0.0
    dual = np.full(cost.shape[1], _CLOSED)
    dual[:m] = np.rint(duals * factor).clip(-_LARGEST_COST, _LARGEST_COST)
    column_of = np.empty(m, np.int32)
    _solve(cost, factor, dual, column_of)
    if factor > 0:
        duals[:] = dual[:m] / factor
    return column_of.astype(np.int64)


@njit(inline="always")
def _column_of_least(values: NDArray[np.int32], chunk_least: NDArray[np.int32]) -> int:
    """Return the first index of the least value, given the least value of every chunk."""
    chunk = chunk_least.argmin()
    column: int = chunk * LANES + first_equal(values, (chunk * LANES,), chunk_least[chunk])
    return column


@compile_kernel
def _solve(
    cost: NDArray[np.float32], factor: float, dual: NDArray[np.int32], column_of: NDArray[np.int32]
) -> None:
    """Write the column of every row to `column_of`, (m,), and the optimal duals to `dual`.

    The duals, (columns,), start within _LARGEST_COST of zero, and are _CLOSED from m on. m is at
    least 2. Costs are overwritten by whole numbers, cost * factor.
    """
    m, columns = column_of.size, dual.size
    whole = cost.view(np.int32)
    for row in range(m):
        for column in range(m):
            whole[row, column] = np.int32(np.rint(cost[row, column] * factor))
        whole[row, m:] = 0
    row_of = np.empty(columns, np.int32)
    row_of[:], column_of[:] = -1, -1
    chunk_least = np.empty(columns // LANES, np.int32)
    free = np.arange(m)
    free_count = m

    # Bidding: a free row takes its cheapest column, at a price that makes its second cheapest as
    # good, and frees the row that had the column.
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
            for column in range(columns):
                reduced[column] = whole[row, column] - dual[column]
            for chunk in range(chunk_least.size):
                chunk_least[chunk] = least_int32(reduced, (chunk * LANES,))
            column = _column_of_least(reduced, chunk_least)
            least = reduced[column]
            reduced[column] = _NEVER
            chunk = column // LANES
            chunk_least[chunk] = least_int32(reduced, (chunk * LANES,))
            second = _column_of_least(reduced, chunk_least)
            if least < reduced[second]:
                dual[column] -= reduced[second] - least
            elif row_of[column] >= 0:
                column = second
            evicted = row_of[column]
            row_of[column] = row
            column_of[row] = column
            if evicted >= 0:
                column_of[evicted] = -1
                if least < reduced[second]:
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
        start = np.int32(free[index])
        open_dual[:] = dual
        length[:] = _NEVER
        offset = np.int32(0)
        count = 0
        via = start
        while True:
            for column in range(columns):
                through = np.int32(whole[via, column] - open_dual[column] + offset)
                shorter = through < length[column]
                length[column] = through if shorter else length[column]
                source[column] = via if shorter else source[column]
            for chunk in range(chunk_least.size):
                chunk_least[chunk] = least_int32(length, (chunk * LANES,))
            column = _column_of_least(length, chunk_least)
            least = length[column]
            if row_of[column] < 0:
                break
            scanned[count] = column
            scanned_length[count] = least
            count += 1
            length[column] = _SCANNED
            open_dual[column] = _CLOSED
            via = row_of[column]
            offset = np.int32(least - (whole[via, column] - dual[column]))
        for step in range(count):
            dual[scanned[step]] += scanned_length[step] - least
        while True:
            via = source[column]
            row_of[column] = via
            following = column_of[via]
            column_of[via] = column
            if via == start:
                break
            column = following
