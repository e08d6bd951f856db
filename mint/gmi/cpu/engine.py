"""One bootstrap of the estimator for all pairs of a child group and a parent group.

What a pair needs is the sum of a matrix of its child group and one of its parent group. The
matrices of the child groups are kept, as many as memory allows; those of the parent groups are
made one at a time in every thread, and serve all the child groups that are kept.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple, Self

import numba
import numpy as np
from numpy.typing import NDArray

from mint.gmi.cpu import assignment as matching
from mint.gmi.cpu import mst
from mint.gmi.cpu.distances import (
    Matrices,
    block_matrix,
    empty_matrices,
    full_matrix,
    gather,
    gathered_nbytes,
    shape_of,
)
from mint.gmi.cpu.ordering import compact_order

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Where a group makes up more than this of the parent layer's variance, the distances among the
# other filters are summed on their own: as a difference they would lose their precision.
_LARGEST_SHARE = 0.75
# Bounds reach up to this many times the mean distance of a pair; edges of trees are shorter.
_SPAN = 4 / 3
_LANDMARKS = 32
_MOMENT_ROWS = 256
# One part in so many of the memory limit is for what the allocator holds back of freed memory.
_HELD_BACK = 16
# Keeping fewer matrices of child groups than grow trees in lock-step is worse than a thread less.
_FEWEST_KEPT = mst.TREES


class Split(NamedTuple):
    """Disjoint rows of one bootstrap: A, B, and R where B finds its partners.

    Attributes:
        first: (nA,) row indices, int64.
        second: (m,) row indices, int64.
        reference: (m,) row indices, int64.
    """

    first: Indices
    second: Indices
    reference: Indices


class Counts(NamedTuple):
    """What was counted in the tree of every pair of a child and a parent group.

    Attributes:
        crossing: (child groups, parent groups) int64, edges between the two samples.
        adjacent: (child groups, parent groups) int64, pairs of edges that share a node: the sum
            over nodes of degree * (degree - 1) / 2.
    """

    crossing: NDArray[np.int64]
    adjacent: NDArray[np.int64]


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
    memory_limit: int = 2 * 2**30,
    on_column: Callable[[int, int], None] | None = None,
) -> Counts:
    """Count edges in the minimum spanning trees of all pairs of a child and a parent group.

    For child group X and parent group Y, with Z all other columns of the parent, the tree spans
    the rows of A and B in the coordinates (X, Y, Z), where a row of B has the Y of its partner
    in R. Equal rows are joined by edges of length zero. The result depends neither on the number
    of threads, which is numba's, nor on the memory limit.

    Args:
        child: (N, c) activations.
        parent: (N, p) activations of the same rows.
        child_groups: column indices of every group of child filters.
        parent_groups: column indices of every group of parent filters.
        split: the rows of A, B and R; A and B hold four or more together.
        scaled: scale each of X, Y and Z to unit total variance over all N rows.
        one_to_one: give every row of B a partner of its own, at the least total squared distance
            in Z; else every one takes its nearest neighbour. Where Z does not vary, partners are
            the rows at the same place in B and R.
        conditional: else leave Z out altogether.
        memory_limit: bytes that the call may take beside its arguments and compiled code.
        on_column: called with (columns done, columns in all) as the work goes on; every parent
            group is a column once for each chunk of child groups that memory allows.

    Raises:
        ValueError: the arguments do not fit together, or the memory limit is too small.
    """
    _check(child, parent, child_groups, parent_groups, split)
    if not child_groups or not parent_groups:
        empty = np.zeros((len(child_groups), len(parent_groups)), np.int64)
        return Counts(empty, empty.copy())
    budget = _Budget.of(child, parent, child_groups, parent_groups, split, memory_limit)
    child_table, parent_table = _Table.of(child), _Table.of(parent)
    with ThreadPoolExecutor(budget.matching_threads) as pool:
        # A common scale changes no partner, so they are sought at the one that is precise.
        passes = _passes(parent_table, parent_groups, None, conditional)
        partners = _find_partners(parent_table, passes, split, one_to_one, pool)
    units = _Units.of(child_table, parent_table, child_groups, parent_groups, scaled, conditional)
    passes = _passes(parent_table, parent_groups, units.common, conditional)
    with ThreadPoolExecutor(budget.threads) as pool:
        forest = _Forest.of(child_table, parent_table, split, partners, units, budget, pool)
        return forest.count(child_groups, passes, on_column)


class _Table(NamedTuple):
    """Activations, and the mean and variance of every column."""

    values: Floats
    mean: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def of(cls, values: Floats) -> Self:
        values = np.ascontiguousarray(values, np.float32)
        mean = values.mean(0, dtype=np.float64)
        squares = np.zeros_like(mean)
        for start in range(0, len(values), _MOMENT_ROWS):
            squares += ((values[start : start + _MOMENT_ROWS] - mean) ** 2).sum(0)
        return cls(values, mean, squares / len(values))

    def variance(self, columns: Indices) -> float:
        return float(self.variances[columns].sum())

    def gathered(self, rows: Indices, columns: Indices, scale: float) -> tuple[Floats, Floats]:
        points: tuple[Floats, Floats] = gather(self.values, rows, columns, self.mean, scale)
        return points


def _unit_scale(variance: float) -> float:
    """Return the factor that gives unit variance; zero for what does not vary."""
    return variance**-0.5 if variance > 0 else 0.0


class _Units(NamedTuple):
    """How activations are scaled.

    Attributes:
        common: the scale of all blocks; None if each has unit variance.
        bound_scale: of the bounds on distances.
    """

    common: float | None
    bound_scale: float

    @classmethod
    def of(
        cls,
        child: _Table,
        parent: _Table,
        child_groups: Sequence[Indices],
        parent_groups: Sequence[Indices],
        scaled: bool,
        conditional: bool,
    ) -> Self:
        if scaled:
            common, variance = None, 3.0 if conditional else 2.0
        else:
            widest = max(parent.variance(group) for group in parent_groups)
            variance = max(child.variance(group) for group in child_groups)
            variance += float(parent.variances.sum()) if conditional else widest
            # A power of two keeps every digit, and keeps squares from leaving the range.
            common = 2.0 ** -round(np.log2(variance) / 2) if variance > 0 else 1.0
            variance = variance * common**2 or 1.0
        return cls(common, 255 / (_SPAN * 2 * variance))

    def scale(self, variance: float) -> float:
        return _unit_scale(variance) if self.common is None else self.common


class _Column(NamedTuple):
    """A parent group, and how the distances among the other filters are had.

    They are others_factor * (the distances of the pass) - own_factor * (those of the group).
    """

    group: int
    columns: Indices
    scale: float
    others_factor: float
    own_factor: float


class _Pass(NamedTuple):
    """Parent groups that share one matrix of distances: that of `columns` times `scale`."""

    columns: Indices
    scale: float
    members: list[_Column]


def _passes(
    parent: _Table, groups: Sequence[Indices], common: float | None, conditional: bool
) -> list[_Pass]:
    varying = np.flatnonzero(parent.variances > 0)
    total = parent.variance(varying)
    shared, alone = [], []
    for group, given in enumerate(groups):
        columns = np.asarray(given, np.int64)
        others = np.setdiff1d(varying, columns)
        own, rest = parent.variance(columns), parent.variance(others) if conditional else 0.0
        scale = _unit_scale(own) if common is None else common
        if rest == 0:
            shared.append(_Column(group, columns, scale, 0.0, 0.0))
        elif own > _LARGEST_SHARE * total:
            member = _Column(group, columns, scale, 1.0, 0.0)
            alone.append(_Pass(others, _unit_scale(rest) if common is None else common, [member]))
        elif common is None:
            shared.append(_Column(group, columns, scale, total / rest, own / rest))
        else:
            shared.append(_Column(group, columns, scale, 1.0, 1.0))
    needed = any(member.others_factor for member in shared)
    base = varying if needed else varying[:0]
    scale = _unit_scale(total) if common is None else common
    return ([_Pass(base, scale, shared)] if shared else []) + alone


def _find_partners(
    parent: _Table,
    passes: list[_Pass],
    split: Split,
    one_to_one: bool,
    pool: ThreadPoolExecutor,
) -> Indices:
    """Return (parent groups, m), the row of R that every row of B takes its Y from."""
    count = sum(len(shared.members) for shared in passes)
    partners = np.tile(split.reference, (count, 1))
    samples = matching.Samples(parent.values, parent.mean, split.second, split.reference)
    for shared in passes:
        seekers = [member for member in shared.members if member.others_factor > 0]
        if not seekers:
            continue
        between = matching.cross_distances(samples, shared.columns, shared.scale, pool.map)
        duals = matching.start_duals(between, len(split.second))
        if one_to_one and len(seekers) > 1:
            # The matching in all columns is close to that in most of them.
            matching.match_others(samples, between, duals)

        def seek(
            member: _Column, between: Floats = between, duals: NDArray[np.float64] = duals
        ) -> None:
            found = matching.match_others(
                samples,
                between,
                duals.copy(),
                member.columns,
                scale=member.scale,
                share=member.own_factor / member.others_factor,
                one_to_one=one_to_one,
            )
            partners[member.group] = split.reference[found]

        for _ in pool.map(seek, seekers):
            pass
    return partners


class _Slot(NamedTuple):
    """What a thread works with: the matrix of its parent group, and its last trees."""

    matrix: Matrices
    seeds: mst.Seeds


@dataclass(frozen=True)
class _Forest:
    """The trees of one bootstrap; points are in an order that makes them quick to grow."""

    child: _Table
    parent: _Table
    rows: Indices  # (n,) of the points
    in_first: NDArray[np.bool_]  # (n,)
    swapped: Indices  # (parent groups, n) rows that points have their Y from
    units: _Units
    budget: "_Budget"
    pool: ThreadPoolExecutor

    @classmethod
    def of(
        cls,
        child: _Table,
        parent: _Table,
        split: Split,
        partners: Indices,
        units: _Units,
        budget: "_Budget",
        pool: ThreadPoolExecutor,
    ) -> Self:
        pooled = np.concatenate([split.first, split.second])
        landmarks = np.zeros((min(_LANDMARKS, len(pooled)), len(pooled)), np.float32)
        for table in (child, parent):
            varying = np.flatnonzero(table.variances > 0)
            scale = _unit_scale(table.variance(varying))
            some = table.gathered(pooled[: len(landmarks)], varying, scale)[0]
            every = table.gathered(pooled, varying, scale)[1]
            between = full_matrix(some, every, pool.map)
            landmarks += between[: len(landmarks), : len(pooled)]
        order = compact_order(landmarks - landmarks.mean(0))
        size = len(split.first)
        swapped = np.empty((len(partners), len(pooled)), np.int64)
        swapped[:, :size] = split.first
        swapped[:, size:] = partners
        in_order = swapped.take(order, axis=1)
        return cls(child, parent, pooled[order], order < size, in_order, units, budget, pool)

    def count(
        self,
        child_groups: Sequence[Indices],
        passes: list[_Pass],
        on_column: Callable[[int, int], None] | None,
    ) -> Counts:
        crossing = np.zeros((len(child_groups), len(self.swapped)), np.int64)
        adjacent = np.zeros_like(crossing)
        n = len(self.rows)
        kept = empty_matrices(min(self.budget.kept, len(child_groups)), n)
        slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(self.budget.threads):
            slots.put(_Slot(empty_matrices(1, n), mst.star_seeds(n)))
        starts = range(0, len(child_groups), len(kept.distances))
        done = 0
        others: Floats | None = None
        for start in starts:
            chunk = child_groups[start : start + len(kept.distances)]
            for _ in self.pool.map(self._keep, chunk, *kept):
                pass
            for shared in passes:
                if others is None or len(passes) > 1:
                    others = self._others(shared)

                def column(member: _Column, others: Floats = others, start: int = start) -> None:
                    found = np.empty((2, min(len(kept.distances), len(crossing) - start)), np.int64)
                    slot = slots.get()
                    try:
                        self._parent_matrix(member, others, slot.matrix)
                        mst.count_edges(
                            *kept,
                            *(part[0] for part in slot.matrix),
                            self.in_first,
                            self.units.bound_scale,
                            *slot.seeds,
                            *found,
                        )
                    finally:  # or the next would wait for it for ever
                        slots.put(slot)
                    stop = start + found.shape[1]
                    crossing[start:stop, member.group], adjacent[start:stop, member.group] = found

                for _ in self.pool.map(column, shared.members):
                    done += 1
                    if on_column:
                        on_column(done, len(self.swapped) * len(starts))
        return Counts(crossing, adjacent)

    def _keep(
        self,
        group: Indices,
        distances: Floats,
        bounds: NDArray[np.uint8],
        chunk_bounds: NDArray[np.uint8],
    ) -> None:
        columns = np.asarray(group, np.int64)
        block_matrix(
            self.child.values,
            self.rows,
            self.rows,
            columns,
            self.child.mean,
            self.units.scale(self.child.variance(columns)),
            _NO_MATRIX,
            0.0,
            0.0,
            self.units.bound_scale,
            distances,
            bounds,
            chunk_bounds,
        )

    def _others(self, shared: _Pass) -> Floats:
        if not len(shared.columns):
            return _NO_MATRIX
        points = self.parent.gathered(self.rows, shared.columns, shared.scale)
        return full_matrix(*points, self.pool.map)

    def _parent_matrix(self, member: _Column, others: Floats, matrix: Matrices) -> None:
        block_matrix(
            self.parent.values,
            self.swapped[member.group],
            self.rows,
            member.columns,
            self.parent.mean,
            member.scale,
            others,
            member.others_factor,
            member.own_factor,
            self.units.bound_scale,
            *(part[0] for part in matrix),
        )


_NO_MATRIX = np.zeros((0, 0), np.float32)


class _Budget(NamedTuple):
    """What memory allows.

    Attributes:
        threads: that grow trees.
        kept: matrices of child groups at a time.
        matching_threads: that match.
    """

    threads: int
    kept: int
    matching_threads: int

    @classmethod
    def of(
        cls,
        child: Floats,
        parent: Floats,
        child_groups: Sequence[Indices],
        parent_groups: Sequence[Indices],
        split: Split,
        memory_limit: int,
    ) -> Self:
        m = len(split.second)
        n = len(split.first) + m
        shape = shape_of(n)
        widest = max(len(group) for group in (*child_groups, *parent_groups))
        filters = max(child.shape[1], parent.shape[1])
        columns = len(parent_groups)

        copies = sum(
            4 * table.size
            for table in (child, parent)
            if table.dtype != np.float32 or not table.flags.c_contiguous
        )
        # Partners, and the rows behind every parent group in both orders; what moments,
        # landmarks and the order of the points take.
        fixed = copies + 8 * columns * (m + 2 * n)
        fixed += 24 * _MOMENT_ROWS * filters + 16 * _LANDMARKS * n + 64 * n
        growing = fixed + 4 * shape.rows * shape.columns + gathered_nbytes(n, filters)
        thread = shape.nbytes + 2 * gathered_nbytes(n, widest) + 64 * shape.columns
        thread += mst.scratch_nbytes(n)
        matched = fixed + matching.nbytes(m) + 2 * gathered_nbytes(m, filters)
        matcher = matching.nbytes(m) + 2 * gathered_nbytes(m, widest) + matching.scratch_nbytes(m)

        needed = max(growing + thread + shape.nbytes, matched + matcher)
        least = needed + needed // (_HELD_BACK - 1) + 1
        if memory_limit < least:
            raise ValueError(
                f"memory_limit {memory_limit}: {n} rows in the trees need {least} bytes at least"
            )
        allotted = memory_limit - memory_limit // _HELD_BACK
        threads: int = numba.get_num_threads()
        fewest = min(_FEWEST_KEPT, len(child_groups))
        growers = min(threads, columns)
        while growers > 1 and growing + growers * thread + fewest * shape.nbytes > allotted:
            growers -= 1
        kept = (allotted - growing - growers * thread) // shape.nbytes
        return cls(growers, kept, min(threads, (allotted - matched) // matcher))


def _check(
    child: Floats,
    parent: Floats,
    child_groups: Sequence[Indices],
    parent_groups: Sequence[Indices],
    split: Split,
) -> None:
    if child.ndim != 2 or parent.ndim != 2 or len(child) != len(parent):
        raise ValueError(f"child {child.shape} and parent {parent.shape} do not share rows")
    first, second, reference = (len(part) for part in split)
    if second != reference or not second or first + second < 4:
        raise ValueError(
            f"split {first}, {second}, {reference}: B and R must be of one size, A and B have four "
            "rows together at least"
        )
    rows = np.concatenate(split)
    if rows.min() < 0 or rows.max() >= len(child) or len(np.unique(rows)) < len(rows):
        raise ValueError(f"split: its rows must differ and be from 0 to {len(child) - 1}")
    for name, groups, filters in (
        ("child", child_groups, child.shape[1]),
        ("parent", parent_groups, parent.shape[1]),
    ):
        for index, group in enumerate(groups):
            columns = np.asarray(group, np.int64)
            if (
                len(np.unique(columns)) < len(columns)
                or not np.isin(columns, np.arange(filters)).all()
            ):
                raise ValueError(
                    f"{name} group {index}: its columns must differ and be from 0 to {filters - 1}"
                )
