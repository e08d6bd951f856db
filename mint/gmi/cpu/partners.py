"""Partners: the row of R whose y each row of B takes, one with a similar z."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mint.gmi.bootstrap import Split
from mint.gmi.cpu.assignment import assign
from mint.gmi.cpu.distances import add_rest, full_matrix, gather, gathered_nbytes, shape_of
from mint.gmi.cpu.groups import Base, Group, Layer


def find_partners(
    parent: Layer, bases: list[Base], split: Split, *, one_to_one: bool, threads: int
) -> NDArray[np.int64]:
    """Return the partners of the rows of B for every parent group.

    Args:
        parent: activations of the parent layer.
        bases: of all parent groups.
        split: rows of A, B and R.
        one_to_one: match B to R one to one at the least total squared distance in Z; if False,
            take the nearest neighbour. Where Z is left out or constant, partners are the rows at
            the same place in B and R.
        threads: groups that are matched at the same time.

    Returns:
        (parent groups, m) row indices.
    """
    partners = np.tile(split.reference, (sum(len(base.groups) for base in bases), 1))
    with ThreadPoolExecutor(threads) as pool:
        for base in bases:
            groups = [group for group in base.groups if group.base_factor > 0]
            if not groups:
                continue
            by_point, _ = gather(parent, split.second, base.columns, base.scale)
            _, by_feature = gather(parent, split.reference, base.columns, base.scale)
            distances = full_matrix(by_point, by_feature, pool.map)
            duals = _least_costs(distances, len(split.second)) if one_to_one else None
            if duals is not None and len(groups) > 1:
                # The matching in all columns is close to that in most of them.
                assign(distances.copy(), len(split.second), duals)
            choose = partial(_choose, parent, split, distances, duals)
            for group, chosen in zip(groups, pool.map(choose, groups), strict=True):
                partners[group.number] = split.reference[chosen]
    return partners


def _choose(
    parent: Layer,
    split: Split,
    base_distances: NDArray[np.float32],
    duals: NDArray[np.float64] | None,
    group: Group,
) -> NDArray[np.int64]:
    """Return the position in R of every row's partner."""
    by_point, _ = gather(parent, split.second, group.columns, group.scale)
    _, by_feature = gather(parent, split.reference, group.columns, group.scale)
    # A factor common to all distances changes no partner.
    share = group.own_factor / group.base_factor
    cost = np.zeros_like(base_distances)
    add_rest(by_point, by_feature, 0, len(cost), base_distances, 1.0, share, cost)
    m = len(split.second)
    return cost[:m, :m].argmin(1) if duals is None else assign(cost, m, duals.copy())


def _least_costs(cost: NDArray[np.float32], m: int) -> NDArray[np.float64]:
    least: NDArray[np.float64] = cost[:m, :m].min(0).astype(np.float64)
    return least


def match_points(second: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.int64]:
    """Match (m, k) points one to one at the least total squared distance.

    Returns:
        (m,) for every point of `second`, the index of its partner in `reference`.
    """
    m, k = second.shape
    layer = Layer.of(np.concatenate([second, reference]))
    spread = float(np.abs(layer.values - layer.mean).max())
    columns, scale = np.arange(k), 1 / spread if spread > 0 else 0.0
    by_point, _ = gather(layer, np.arange(m), columns, scale)
    _, by_feature = gather(layer, np.arange(m, 2 * m), columns, scale)
    cost = full_matrix(by_point, by_feature)
    return assign(cost, m, _least_costs(cost, m))


def matching_nbytes(m: int, filters: int, widest: int) -> tuple[int, int]:
    """Return the bytes that find_partners takes once and in each thread.

    Args:
        m: rows of B and of R.
        filters: of the parent layer.
        widest: filters of the largest group.
    """
    shape = shape_of(m)
    matrix = 4 * shape.rows * shape.columns
    once = matrix + 2 * gathered_nbytes(m, filters)
    return once, matrix + 2 * gathered_nbytes(m, widest) + 128 * shape.columns
