"""One bootstrap of the estimator for all pairs of a child group and a parent group.

The distances of a pair are the sum of a matrix of its child group and one of its parent group. As
many matrices of child groups as memory allows are kept. Each thread computes those of parent groups
one at a time, and uses each for all the child groups kept.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from mint.gmi.bootstrap import MEMORY_LIMIT, EdgeCounts, Split
from mint.gmi.cpu.distances import (
    Matrices,
    empty_matrices,
    full_matrix,
    gather,
    matrix_nbytes,
    padded,
    write_group,
)
from mint.gmi.cpu.groups import MOMENT_ROWS, Base, Group, Layer, shared_bases, unit_scale
from mint.gmi.cpu.mst import TREES, count_edges, star_seeds
from mint.gmi.cpu.ordering import LANDMARKS, point_order
from mint.gmi.cpu.partners import find_partners

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Bounds reach up to this many times the mean distance of a pair; edges of trees are shorter.
_SPAN = 4 / 3
# This fraction of the memory limit is left to freed memory that the allocator keeps: 1 / 16.
_ALLOCATOR_SHARE = 16
_NO_BASE = np.zeros((0, 0), np.float32)


def count_blocks(
    child: Floats,
    parent: Floats,
    child_groups: Sequence[Indices],
    parent_groups: Sequence[Indices],
    split: Split,
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    memory_limit: int = MEMORY_LIMIT,
) -> EdgeCounts:
    """Count edges in the minimum spanning trees of all pairs of a child group and a parent group.

    For child group X and parent group Y, with Z all other columns of the parent, the tree spans
    the rows of A and B in the coordinates (X, Y, Z), where a row of B has the Y of its partner
    in R. Equal rows are joined by edges of length zero. The result depends neither on the number
    of threads, which is numba's, nor on the memory limit.

    Args:
        child: (N, c) activations.
        parent: (N, p) activations of the same rows.
        child_groups: column indices of every child group.
        parent_groups: column indices of every parent group.
        split: rows of A, B and R; A and B together have at least four.
        scaled: scale each of X, Y and Z to unit total variance over all N rows.
        one_to_one: as in `mint.gmi.cpu.partners.find_partners`.
        conditional: if False, leave Z out.
        memory_limit: bytes that the call may take beside its arguments and compiled code.

    Raises:
        ValueError: the memory limit is too small.
    """
    growers, kept, matchers = _budget(
        child, parent, child_groups, parent_groups, split, memory_limit
    )
    layers = Layer.of(child), Layer.of(parent)
    # One scale for all groups changes no partner; unit variance loses no digits.
    bases = shared_bases(layers[1], parent_groups, None, conditional)
    partners = find_partners(layers[1], bases, split, one_to_one=one_to_one, threads=matchers)
    common_scale, variance = None, 3.0 if conditional else 2.0
    if not scaled:
        common_scale, variance = _common_scale(*layers, child_groups, parent_groups, conditional)
        bases = shared_bases(layers[1], parent_groups, common_scale, conditional)
    bound_scale = 255 / (_SPAN * 2 * variance)
    with ThreadPoolExecutor(growers) as pool:
        trees = _Trees(layers, split, partners, common_scale, bound_scale, pool)
        return trees.count(child_groups, bases, kept)


def _common_scale(
    child: Layer,
    parent: Layer,
    child_groups: Sequence[Indices],
    parent_groups: Sequence[Indices],
    conditional: bool,
) -> tuple[float, float]:
    """Return a scale for all activations, and the largest variance of a block at that scale."""
    variance = max(child.variance(group) for group in child_groups)
    if conditional:
        variance += float(parent.variances.sum())
    else:
        variance += max(parent.variance(group) for group in parent_groups)
    # A power of two rounds nothing; this one keeps squares within the range of float32.
    scale = 2.0 ** -round(np.log2(variance) / 2) if variance > 0 else 1.0
    return scale, variance * scale**2 or 1.0


class _Trees:
    """The trees of one bootstrap, over points in an order that makes them fast to grow."""

    def __init__(
        self,
        layers: tuple[Layer, Layer],
        split: Split,
        partners: Indices,
        common_scale: float | None,
        bound_scale: float,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.child, self.parent = layers
        self.common_scale, self.bound_scale, self.pool = common_scale, bound_scale, pool
        self.workspace = threading.local()  # one matrix and the last trees of each thread
        pooled = np.concatenate([split.first, split.second])
        order = point_order(layers, pooled, pool.map)
        self.rows = pooled[order]
        self.in_first = order < len(split.first)
        first = np.tile(split.first, (len(partners), 1))
        # (parent groups, n) rows from which points take their Y.
        self.swapped = np.hstack([first, partners]).take(order, axis=1)

    def count(
        self, child_groups: Sequence[Indices], bases: list[Base], most_kept: int
    ) -> EdgeCounts:
        """Count edges with at most so many matrices of child groups at a time."""
        counts = np.zeros((2, len(child_groups), len(self.swapped)), np.int64)
        kept = empty_matrices(min(most_kept, len(child_groups)), len(self.rows))
        distances = _NO_BASE
        for start in range(0, len(child_groups), len(kept.distances)):
            chunk = child_groups[start : start + len(kept.distances)]
            for _ in self.pool.map(self._write_child, chunk, kept.unstack()):
                pass
            for base in bases:
                if start == 0 or len(bases) > 1:
                    points = gather(self.parent, self.rows, base.columns, base.scale)
                    distances = full_matrix(*points, self.pool.map)
                column = partial(self._count_column, distances, kept, len(chunk))
                found = self.pool.map(column, base.groups)
                for group, of_group in zip(base.groups, found, strict=True):
                    counts[:, start : start + len(chunk), group.number] = of_group
        return EdgeCounts(*counts)

    def _write_child(self, columns: Indices, out: Matrices) -> None:
        variance = self.child.variance(columns)
        scale = unit_scale(variance) if self.common_scale is None else self.common_scale
        group = Group(0, columns, scale)
        write_group(self.child, group, self.rows, self.rows, _NO_BASE, self.bound_scale, out)

    def _count_column(
        self, base: Floats, kept: Matrices, children: int, group: Group
    ) -> NDArray[np.int64]:
        """Return the counts of one parent group with the kept child groups, (2, children)."""
        own = self.workspace
        if not hasattr(own, "seeds"):
            (own.matrix,) = empty_matrices(1, len(self.rows)).unstack()
            own.seeds = star_seeds(len(self.rows))
        rows = self.swapped[group.number]
        write_group(self.parent, group, rows, self.rows, base, self.bound_scale, own.matrix)
        found = np.empty((2, children), np.int64)
        count_edges(kept, own.matrix, self.in_first, self.bound_scale, own.seeds, *found)
        return found


def _budget(
    child: Floats,
    parent: Floats,
    child_groups: Sequence[Indices],
    parent_groups: Sequence[Indices],
    split: Split,
    memory_limit: int,
) -> tuple[int, int, int]:
    """Return threads that grow trees, kept matrices of child groups, and threads that match."""
    m = len(split.second)
    n = len(split.first) + m
    columns, matched_columns = padded(n), padded(m)
    matrix, matched = matrix_nbytes(n), 4 * (m + 1) * matched_columns
    widest = max(len(group) for group in (*child_groups, *parent_groups))
    filters = max(child.shape[1], parent.shape[1])
    copies = sum(
        4 * table.size
        for table in (child, parent)
        if table.dtype != np.float32 or not table.flags.c_contiguous
    )
    # Partners, the rows of every parent group in both orders, moments, landmarks, and the order.
    fixed = copies + 8 * len(parent_groups) * (m + 2 * n)
    fixed += 24 * MOMENT_ROWS * filters + 16 * LANDMARKS * n + 64 * n
    # A base: its distances and its points, by point and by feature. A thread: a matrix, the points
    # of a group at two sets of rows, and the arrays of count_edges or of assign.
    growing = fixed + 4 * (n + 1) * columns + 8 * filters * columns
    grower = matrix + 16 * widest * columns + 8 * n * (TREES + 1) + (14 * TREES + 64) * columns
    matching = fixed + matched + 16 * filters * matched_columns
    matcher = matched + (16 * widest + 128) * matched_columns

    needed = max(growing + grower + matrix, matching + matcher)
    least = needed + needed // (_ALLOCATOR_SHARE - 1) + 1
    if memory_limit < least:
        raise ValueError(
            f"memory_limit {memory_limit}: trees of {n} rows need at least {least} bytes"
        )
    available = memory_limit - memory_limit // _ALLOCATOR_SHARE
    threads: int = numba.get_num_threads()
    # Fewer matrices than trees that grow in lock-step would cost more than a thread less.
    fewest = min(TREES, len(child_groups))
    growers = min(threads, len(parent_groups))
    while growers > 1 and growing + growers * grower + fewest * matrix > available:
        growers -= 1
    kept = (available - growing - growers * grower) // matrix
    return growers, kept, min(threads, (available - matching) // matcher)
