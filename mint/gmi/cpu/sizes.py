"""Sizes of the CPU engine's arrays, and the memory that it needs; nothing is compiled for them."""

from typing import NamedTuple

LANES = 64  # values of a vector; arrays are padded to multiples of it
TILE_ROWS, TILE_COLUMNS = 2, 32  # of a tile of distances
TREES = 4  # that grow in lock-step
MOMENT_ROWS = 256  # rows whose squares are summed at a time
LANDMARKS = 32  # of the order of points
ALLOCATOR_SHARE = 16
"""1 / 16 of the memory limit is left to freed memory that the allocator keeps."""


def padded(n: int, multiple: int = LANES) -> int:
    """Return n rounded up to a multiple."""
    return -(-n // multiple) * multiple


def matrix_nbytes(n: int) -> int:
    """Return the bytes of the distances of n points with their bounds."""
    columns = padded(n)
    return padded(n, TILE_ROWS) * (5 * columns + padded(columns // LANES))


class Needs(NamedTuple):
    """Bytes of growing trees and of matching, and of each of their threads and matrices."""

    growing: int
    grower: int
    matrix: int
    matching: int
    matcher: int

    @property
    def least(self) -> int:
        """The smallest memory limit: one thread, and one matrix of a child group."""
        needed = max(self.growing + self.grower + self.matrix, self.matching + self.matcher)
        return needed + needed // (ALLOCATOR_SHARE - 1) + 1


def memory_needs(sizes: tuple[int, int], filters: int, parents: int, widest: int) -> Needs:
    """Return the memory that one bootstrap needs.

    Args:
        sizes: of the samples A and B.
        filters: of the wider layer.
        parents: number of parent groups.
        widest: filters of the widest group.
    """
    n, m = sum(sizes), sizes[1]
    columns, matched_columns = padded(n), padded(m)
    matrix, matched = matrix_nbytes(n), 4 * (m + 1) * matched_columns
    # Partners, the rows of every parent group in both orders, moments, landmarks, and the order.
    fixed = 8 * parents * (m + 2 * n)
    fixed += 24 * MOMENT_ROWS * filters + 16 * LANDMARKS * n + 64 * n
    # A base: its distances and its points, by point and by feature. A thread: a matrix, the points
    # of a group at two sets of rows, and the arrays of count_edges or of assign.
    return Needs(
        growing=fixed + 4 * (n + 1) * columns + 8 * filters * columns,
        grower=matrix + 16 * widest * columns + 8 * n * (TREES + 1) + (14 * TREES + 64) * columns,
        matrix=matrix,
        matching=fixed + matched + 16 * filters * matched_columns,
        matcher=matched + (16 * widest + 128) * matched_columns,
    )
