"""One bootstrap of the estimator for all pairs of a child group and a parent group.

The distances of a pair are the sum of a matrix of its child group and one of its parent group. As
many matrices of child groups as memory allows are kept. Each thread computes those of parent groups
one at a time, and uses each for all the child groups kept.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mint.gmi.bootstrap import MEMORY_LIMIT, EdgeCounts, Split
from mint.gmi.cpu.distances import (
    Matrices,
    empty_matrices,
    full_matrix,
    gather,
    write_group,
)
from mint.gmi.cpu.groups import Base, Group, Layer, shared_bases, unit_scale
from mint.gmi.cpu.matching import find_partners
from mint.gmi.cpu.mst import count_edges, star_seeds
from mint.gmi.cpu.sizes import ALLOCATOR_SHARE, TREES, memory_needs
from mint.gmi.cpu.spatial_order import point_order
from mint.machine import threads

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Bounds reach up to this many times the mean distance of a pair; edges of trees are shorter.
_SPAN = 4 / 3
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
    of threads, which is that of mint.machine, nor on the memory limit.

    Layers are (N, filters), groups are their column indices, and A and B together have at least
    four rows. Options are those of gmi_scores; one_to_one is explained in find_partners, and the
    memory limit is in bytes beside compiled code and the arguments, if these are contiguous.

    Raises:
        ValueError: the memory limit is too small.
    """
    layers = Layer.of(child), Layer.of(parent)
    filters = max(child.shape[1], parent.shape[1])
    growers, kept, matchers = _budget(filters, (child_groups, parent_groups), split, memory_limit)
    # One scale for all groups changes no partner; unit variance loses no digits.
    bases = shared_bases(layers[1], parent_groups, None, conditional)
    partners = find_partners(layers[1], bases, split, one_to_one=one_to_one, threads=matchers)
    common_scale, variance = None, 3.0 if conditional else 2.0
    if not scaled:
        # A power of two rounds nothing; this one keeps squares within the range of float32.
        rests = [np.arange(parent.shape[1])] if conditional else parent_groups
        variance = max(layers[0].variance(group) for group in child_groups)
        variance += max(layers[1].variance(group) for group in rests)
        common_scale = 2.0 ** -round(np.log2(variance) / 2) if variance > 0 else 1.0
        variance = variance * common_scale**2 or 1.0
        bases = shared_bases(layers[1], parent_groups, common_scale, conditional)
    scales = common_scale, 255 / (_SPAN * 2 * variance)
    with ThreadPoolExecutor(growers) as pool:
        return _count_trees(layers, child_groups, bases, split, partners, scales, kept, pool)


def _count_trees(
    layers: tuple[Layer, Layer],
    child_groups: Sequence[Indices],
    bases: list[Base],
    split: Split,
    partners: Indices,
    scales: tuple[float | None, float],
    most_kept: int,
    pool: ThreadPoolExecutor,
) -> EdgeCounts:
    """Count edges with at most so many matrices of child groups at a time.

    The scales are that of all activations, if they share one, and that of bounds.
    """
    child, parent = layers
    common_scale, bound_scale = scales
    pooled = np.concatenate([split.first, split.second])
    order = point_order(layers, pooled, pool.map)  # makes the trees fast to grow
    rows, in_first = pooled[order], order < len(split.first)
    # (parent groups, n) rows from which points take their Y.
    swapped = np.hstack([np.tile(split.first, (len(partners), 1)), partners]).take(order, axis=1)
    workspace = threading.local()  # one matrix and the last trees of each thread

    def write_child(columns: Indices, out: Matrices) -> None:
        scale = unit_scale(child.variance(columns)) if common_scale is None else common_scale
        write_group(child, Group(0, columns, scale), rows, rows, _NO_BASE, bound_scale, out)

    def count_column(base: Floats, children: int, group: Group) -> NDArray[np.int64]:
        if not hasattr(workspace, "seeds"):
            (workspace.matrix,) = empty_matrices(1, len(rows)).unstack()
            workspace.seeds = star_seeds(len(rows))
        matrix, own_rows = workspace.matrix, swapped[group.number]
        write_group(parent, group, own_rows, rows, base, bound_scale, matrix)
        found = np.empty((2, children), np.int64)
        count_edges(kept, matrix, in_first, bound_scale, workspace.seeds, *found)
        return found

    counts = np.zeros((2, len(child_groups), len(partners)), np.int64)
    kept = empty_matrices(min(most_kept, len(child_groups)), len(rows))
    distances = _NO_BASE
    for start in range(0, len(child_groups), len(kept.distances)):
        chunk = child_groups[start : start + len(kept.distances)]
        list(pool.map(write_child, chunk, kept.unstack()))
        for base in bases:
            if start == 0 or len(bases) > 1:
                points = gather(parent, rows, base.columns, base.scale)
                distances = full_matrix(*points, pool.map)
            found = pool.map(partial(count_column, distances, len(chunk)), base.groups)
            for group, of_group in zip(base.groups, found, strict=True):
                counts[:, start : start + len(chunk), group.number] = of_group
    return EdgeCounts(*counts)


def _budget(
    filters: int, groups: tuple[Sequence[Indices], ...], split: Split, memory_limit: int
) -> tuple[int, int, int]:
    """Return threads that grow trees, kept matrices of child groups, and threads that match."""
    sizes = len(split.first), len(split.second)
    children, parents = (len(of_layer) for of_layer in groups)
    widest = max(len(group) for of_layer in groups for group in of_layer)
    needs = memory_needs(sizes, filters, parents, widest)
    if memory_limit < needs.least:
        raise ValueError(
            f"memory_limit {memory_limit}: trees of {sum(sizes)} rows need at least "
            f"{needs.least} bytes"
        )
    available = memory_limit - memory_limit // ALLOCATOR_SHARE
    # Fewer matrices than trees that grow in lock-step would cost more than a thread less.
    fewest = min(TREES, children) * needs.matrix
    growers = min(threads(), parents)
    while growers > 1 and needs.growing + growers * needs.grower + fewest > available:
        growers -= 1
    kept = (available - needs.growing - growers * needs.grower) // needs.matrix
    return growers, kept, min(threads(), (available - needs.matching) // needs.matcher)
