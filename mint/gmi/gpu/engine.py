"""The trees of all blocks of a bootstrap at once, on a GPU or wherever torch runs.

A block is a child group and a parent group. Its squared distances are the sum of a matrix of the
child group and one of the parent group, so a launch takes as many of both as memory holds and
grows the trees of all their pairs side by side. Triton does the work where there is a GPU and
Triton; torch does it elsewhere, by the same rules to the same trees.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mint.gmi.cpu.engine import Counts

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Indices = Integers | torch.Tensor

DEFAULT_MEMORY_LIMIT = 4 << 30

_FLOAT_BYTES = 4
# Rows of a matrix start at multiples of this many floats, for wide loads.
_ROW_ALIGNMENT = 16
# What a tree takes a node while it grows or is counted: keys, ends, two gathered rows and the
# temporaries of torch's steps, rounded up.
_TREE_BYTES = 64


def count_blocks_on(
    device: str | torch.device,
    child: Floats,
    parent: Floats,
    child_groups: Sequence[Integers],
    parent_groups: Sequence[Integers],
    split: tuple[Indices, Indices, Indices],
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    on_column: Callable[[int, int], None] | None = None,
) -> Counts:
    """Grow the minimum spanning tree of every block of one bootstrap and count its edges.

    X is a child group, Y a parent group and Z all parent columns outside Y. The rows of the
    second sample get the y of their partners in the reference; the tree is that of the first and
    second sample pooled, in squared Euclidean distance over X, Y and Z. Distances are sums over
    raw columns in the order given, one fused multiply-add a column in float32, so equal points
    are at distance zero; those of Z are the distances of all parent columns less those of Y, at
    least zero, so they are lost to rounding where Z holds under a millionth of the variance. Each
    is then multiplied by the inverse of its block's total variance. Ties go to the lowest row of
    the pooled sample. None of it depends on `memory_limit`.

    Args:
        device: where to compute, such as cuda or cpu.
        child: (n, c) activations.
        parent: (n, p) activations of the same rows.
        child_groups: the column indices of every child group, (C,) arrays.
        parent_groups: the column indices of every parent group, (P,) arrays.
        split: rows of the first sample, of the second and of the reference.
        scaled: scale X, Y and Z to unit total variance over all n rows; constant ones stay.
        one_to_one: match the second sample to the reference one to one, at the least total
            squared distance in Z; otherwise each row takes its nearest neighbour in Z, the
            first of them in a tie.
        conditional: use Z. Where it is not used, is constant or has no columns, partners are
            taken in order and the tree is on X and Y.
        memory_limit: bytes of tensors to hold on the device at most; more of them means fewer
            and fuller launches.
        on_column: called with (parent groups done, parent groups in all) as the work goes on.

    Raises:
        ValueError: the shapes or the split do not fit together, activations are too large or too
            small for squares in float32, or one block alone needs more than `memory_limit`.
    """
    device = torch.device(device)
    rows = _checked_rows(child, parent, split, one_to_one=one_to_one)
    child_weights = _weights(child, child_groups, scaled=scaled)
    own_weights = _weights(parent, parent_groups, scaled=scaled)
    other_weights = np.zeros(len(parent_groups), np.float32)
    if conditional:
        every = np.arange(parent.shape[1])
        others = [np.setdiff1d(every, group) for group in parent_groups]
        other_weights = _weights(parent, others, scaled=scaled)
    in_order = bool((other_weights == 0).any())
    if in_order and len(rows.reference) < len(rows.second):
        raise ValueError("partners in order need a reference as large as the second sample")

    crossing = np.zeros((len(child_groups), len(parent_groups)), np.int64)
    adjacent = np.zeros_like(crossing)
    if crossing.size == 0:
        return Counts(crossing, adjacent)
    batches = _fit(memory_limit, rows, child, parent, crossing.shape, bool(other_weights.any()))

    children = _Columns(device, child)
    parents = _Parents(device, parent, rows, one_to_one, bool(other_weights.any()))
    child_distances = _matrices(batches.children, len(rows.pooled), device)
    parent_distances = _matrices(batches.parents, len(rows.pooled), device)
    in_first = torch.arange(len(rows.pooled), device=device) < len(rows.first)
    loaded: slice | None = None
    for columns in _slices(len(parent_groups), batches.parents):
        partners = parents.partners(parent_groups[columns], other_weights[columns])
        for slot, column in enumerate(range(columns.start, columns.stop)):
            parents.fill(
                parent_distances[slot],
                parent_groups[column],
                partners[slot],
                float(own_weights[column]),
                float(other_weights[column]),
            )
        for lines in _slices(len(child_groups), batches.children):
            # A single batch of child groups is measured once and serves every parent group.
            if lines != loaded:
                for slot, line in enumerate(range(lines.start, lines.stop)):
                    points = children.at(child_groups[line], rows.pooled)
                    _squared_distances(points, points, child_distances[slot])
                    child_distances[slot].mul_(float(child_weights[line]))
                loaded = lines
            ends = _tree_ends(
                child_distances[: lines.stop - lines.start],
                parent_distances[: columns.stop - columns.start],
            )
            crossed, shared = _counts(ends, in_first)
            crossing[lines, columns] = crossed.cpu().numpy()
            adjacent[lines, columns] = shared.cpu().numpy()
        if on_column:
            for column in range(columns.start, columns.stop):
                on_column(column + 1, len(parent_groups))
    return Counts(crossing, adjacent)


@dataclass(frozen=True)
class _Rows:
    """Row indices: first (a,), second (b,), reference (r,), and pooled (a + b,) of the former."""

    first: Integers
    second: Integers
    reference: Integers
    pooled: Integers


def _checked_rows(
    child: Floats,
    parent: Floats,
    split: tuple[Indices, Indices, Indices],
    *,
    one_to_one: bool,
) -> _Rows:
    if child.ndim != 2 or parent.ndim != 2 or len(child) != len(parent):
        raise ValueError(
            f"child {child.shape} and parent {parent.shape} must be two tables of the same rows"
        )
    for name, table in (("child", child), ("parent", parent)):
        # No squared distance exceeds this, and a sum of three of them has to be finite too.
        largest = 3 * (np.ptp(table.astype(np.float64), axis=0) ** 2).sum() if table.size else 0.0
        if not largest < np.finfo(np.float32).max:
            raise ValueError(f"{name} activations are not finite or too large to square in float32")
    first, second, reference = (np.asarray(part, np.int64) for part in split)
    if not len(first) or not len(second) or not len(reference):
        raise ValueError("the first sample, the second and the reference need a row each")
    if one_to_one and len(reference) < len(second):
        raise ValueError(
            f"{len(second)} rows cannot be matched one to one to a reference of {len(reference)}"
        )
    return _Rows(first, second, reference, np.concatenate([first, second]))


def _weights(table: Floats, groups: Sequence[Integers], *, scaled: bool) -> Floats:
    """Return what each group's squared distances are multiplied by: 0 where it is constant."""
    centred = table - table.mean(0, dtype=np.float64)
    variances = centred.var(0)
    totals = np.array([variances[group].sum() for group in groups], np.float64)
    inverse = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
    if not scaled:
        return (totals > 0).astype(np.float32)
    if inverse.max(initial=0.0) > 1 / float(np.finfo(np.float32).tiny):
        raise ValueError("activations vary too little for squared distances in float32")
    return inverse.astype(np.float32)


@dataclass(frozen=True)
class _Batches:
    """How many child groups and parent groups are on the device at once."""

    children: int
    parents: int


def _fit(
    memory_limit: int,
    rows: _Rows,
    child: Floats,
    parent: Floats,
    groups: tuple[int, ...],
    with_others: bool,
) -> _Batches:
    """Choose the batches that put most blocks in a launch within the limit."""
    pooled = len(rows.pooled)
    matrix = _FLOAT_BYTES * pooled * _stride(pooled)
    cross = _FLOAT_BYTES * len(rows.second) * _stride(len(rows.reference)) if with_others else 0
    # The tables, and the points taken of them: before and after the swap, or to be matched.
    matched = len(rows.second) + len(rows.reference)
    points: int = max(child.shape[1] * pooled, parent.shape[1] * max(2 * pooled, matched))
    tables = int(child.size + parent.size) + points
    # Two matrices of scratch: the distances of Y before the swap, and torch's differences.
    fixed = _FLOAT_BYTES * tables + 2 * max(matrix, cross)
    if with_others:
        fixed += matrix + cross
    tree = _TREE_BYTES * _stride(pooled)

    def needed(children: int, parents: int) -> int:
        return fixed + (children + parents) * matrix + children * parents * tree

    children, parents = groups
    while needed(children, parents) > memory_limit:
        if children == parents == 1:
            raise ValueError(
                f"memory_limit is {memory_limit} bytes, but one block of {pooled} pooled rows "
                f"needs {needed(1, 1)}"
            )
        # For a given sum the product is largest when both are equal.
        if children > parents:
            children -= 1
        else:
            parents -= 1
    return _Batches(children, parents)


class _Columns:
    """A table of activations on the device, (columns, rows)."""

    def __init__(self, device: torch.device, table: Floats) -> None:
        self._points = torch.from_numpy(np.ascontiguousarray(table.T, np.float32)).to(device)

    def at(self, columns: Integers, rows: Integers) -> torch.Tensor:
        """Return the points of some rows in some columns, (columns, rows), contiguous."""
        device = self._points.device
        picked = torch.from_numpy(np.asarray(columns, np.int64)).to(device)[:, None]
        return self._points[picked, torch.from_numpy(rows).to(device)]

    def every(self, rows: Integers) -> torch.Tensor:
        """Return the points of some rows in all columns, (columns, rows), contiguous."""
        return self._points[:, torch.from_numpy(rows).to(self._points.device)].contiguous()


class _Parents:
    """Distances in the parent layer; those over all its columns are computed once."""

    def __init__(
        self,
        device: torch.device,
        parent: Floats,
        rows: _Rows,
        one_to_one: bool,
        with_others: bool,
    ) -> None:
        self._device = device
        self._columns = _Columns(device, parent)
        self._rows = rows
        self._one_to_one = one_to_one
        if with_others:
            pooled = self._columns.every(rows.pooled)
            self._pooled = self._empty(len(rows.pooled), len(rows.pooled))
            _squared_distances(pooled, pooled, self._pooled)
            del pooled
            self._cross = self._empty(len(rows.second), len(rows.reference))
            _squared_distances(
                self._columns.every(rows.second),
                self._columns.every(rows.reference),
                self._cross,
            )

    def partners(self, groups: Sequence[Integers], other_weights: Floats) -> list[Integers]:
        """Return, for each group, the reference rows that lend the second sample their y.

        The costs come from the device; the assignments, by far the longest part, are solved on as
        many threads as torch may use.
        """
        rows = self._rows
        found: list[Integers] = []
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            for some in _slices(len(groups), threads):
                costs = [
                    self._cost(group) if weight else None
                    for group, weight in zip(groups[some], other_weights[some], strict=True)
                ]
                found += pool.map(self._chosen, costs)
        return [rows.reference[chosen] for chosen in found]

    def fill(
        self,
        out: torch.Tensor,
        group: Integers,
        partners: Integers,
        own_weight: float,
        other_weight: float,
    ) -> None:
        """Write a group's squared distances over Y and Z, (pooled, pooled), y swapped.

        A weight of zero says that the block is constant or not to be used.
        """
        rows = self._rows
        swapped = self._columns.at(group, np.concatenate([rows.first, partners]))
        _squared_distances(swapped, swapped, out)
        out.mul_(own_weight)
        if other_weight:
            own = self._columns.at(group, rows.pooled)
            out.add_(self._others(own, own, self._pooled).mul_(other_weight))

    def _cost(self, group: Integers) -> Floats:
        """Return the squared distances over Z, (second, reference), on the CPU."""
        rows = self._rows
        own = self._columns.at(group, rows.second), self._columns.at(group, rows.reference)
        cost: Floats = self._others(*own, self._cross).cpu().numpy()
        return cost

    def _chosen(self, cost: Floats | None) -> Integers:
        """Return the positions in the reference of the second sample's partners."""
        if cost is None:
            return np.arange(len(self._rows.second))
        return linear_sum_assignment(cost)[1] if self._one_to_one else cost.argmin(1)

    def _others(
        self, first: torch.Tensor, second: torch.Tensor, every: torch.Tensor
    ) -> torch.Tensor:
        """Return the squared distances over Z from those over all columns and the points in Y."""
        distances = self._empty(*every.shape)
        _squared_distances(first, second, distances)
        return torch.sub(every, distances, out=distances).clamp_(min=0)

    def _empty(self, first: int, second: int) -> torch.Tensor:
        padded = torch.empty((first, _stride(second)), device=self._device)
        return padded[:, :second]


def _stride(rows: int) -> int:
    return math.ceil(rows / _ROW_ALIGNMENT) * _ROW_ALIGNMENT


def _matrices(count: int, rows: int, device: torch.device) -> torch.Tensor:
    """Return room for (count, rows, rows) distances whose rows start aligned."""
    return torch.empty((count, rows, _stride(rows)), device=device)[..., :rows]


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _uses_triton(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("triton") is not None


def _squared_distances(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> None:
    """Write the squared Euclidean distances of (d, a) and (d, b) points to out, (a, b).

    Differences are squared and added in float32 with one rounding, dimension by dimension.
    """
    if _uses_triton(out.device):
        from mint.gmi.gpu import kernels as triton_kernels

        triton_kernels.squared_distances(first, second, out)
        return
    out.zero_()
    difference = torch.empty_like(out)
    for along_first, along_second in zip(first, second, strict=True):
        torch.sub(along_first[:, None], along_second, out=difference)
        out.addcmul_(difference, difference)


def _tree_ends(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """Grow the minimum spanning trees of child[i] + parent[j] by Prim's algorithm from node 0.

    Args:
        child: (C, n, n) finite squared distances, their rows aligned as in `_matrices`.
        parent: (P, n, n) likewise.

    Returns:
        (C, P, n) int32: the node that every node was joined to. That of node 0 means nothing.
    """
    if _uses_triton(child.device):
        from mint.gmi.gpu import kernels as triton_kernels

        return triton_kernels.tree_ends(child, parent)
    return _tree_ends_in_torch(child, parent)


def _tree_ends_in_torch(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """Take the step of all trees together, as each Triton program does that of its own."""
    rows = child.shape[1]
    shape = (len(child), len(parent), rows)
    line = torch.arange(len(child), device=child.device)[:, None]
    column = torch.arange(len(parent), device=child.device)
    # +inf until the first step, -inf once in the tree: no distance is less than that.
    keys = torch.full(shape, math.inf, device=child.device)
    keys[..., 0] = -math.inf
    ends = torch.zeros(shape, dtype=torch.int32, device=child.device)
    newest = torch.zeros(shape[:2], dtype=torch.int64, device=child.device)
    for _ in range(rows - 1):
        distance = child[line, newest].add_(parent[column, newest])
        closer = distance < keys
        keys = torch.where(closer, distance, keys)
        ends = torch.where(closer, newest[..., None].to(torch.int32), ends)
        # torch's argmin is the first of equals too.
        newest = keys.masked_fill(keys == -math.inf, math.inf).argmin(-1)
        keys.scatter_(-1, newest[..., None], -math.inf)
    return ends


def _counts(ends: torch.Tensor, in_first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the crossing edges and the pairs of edges at a node, (C, P) int64, of (C, P, n)."""
    rows = ends.shape[-1]
    trees = ends.shape[0] * ends.shape[1]
    joined = ends[..., 1:].to(torch.int64)
    crossing = (in_first[joined] != in_first[1:]).sum(-1)
    first_node = torch.arange(trees, device=ends.device).view(*ends.shape[:2], 1) * rows
    degrees = torch.bincount((joined + first_node).flatten(), minlength=trees * rows)
    degrees = degrees.view(ends.shape)
    degrees[..., 1:] += 1
    return crossing, (degrees * (degrees - 1)).sum(-1) // 2
