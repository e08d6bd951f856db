"""Partners: the row of R whose y each row of B takes, one with a similar z."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mint.gmi.bootstrap import Split
from mint.gmi.cpu.distances import add_rest, full_matrix, gather
from mint.gmi.cpu.groups import Base, Group, Layer
from mint.gmi.cpu.linear_assignment import assign


def find_partners(
    parent: Layer, bases: list[Base], split: Split, *, one_to_one: bool, threads: int
) -> NDArray[np.int64]:
    """Return the partners of the rows of B for every parent group, (parent groups, m) row indices.

    With one_to_one, B is matched to R one to one at the least total squared distance in Z, else
    partners are nearest neighbours. Where Z is left out or constant, partners are the rows at the
    same place in B and R.
    """
    m = len(split.second)
    partners = np.tile(split.reference, (sum(len(base.groups) for base in bases), 1))

    def choose(group: Group) -> NDArray[np.int64]:
        by_point, _ = gather(parent, split.second, group.columns, group.scale)
        _, by_feature = gather(parent, split.reference, group.columns, group.scale)
        # A factor common to all distances changes no partner.
        share = group.own_factor / group.base_factor
        cost = np.zeros_like(distances)
        add_rest(by_point, by_feature, 0, len(cost), distances, 1.0, share, cost)
        return assign(cost, m, duals.copy()) if one_to_one else cost[:m, :m].argmin(1)

    with ThreadPoolExecutor(threads) as pool:
        for base in bases:
            groups = [group for group in base.groups if group.base_factor > 0]
            if not groups:
                continue
            by_point, _ = gather(parent, split.second, base.columns, base.scale)
            _, by_feature = gather(parent, split.reference, base.columns, base.scale)
            distances = full_matrix(by_point, by_feature, pool.map)
            duals = distances[:m, :m].min(0).astype(np.float64)
            if one_to_one and len(groups) > 1:
                # The matching in all columns is close to that in most of them.
                assign(distances.copy(), m, duals)
            for group, chosen in zip(groups, pool.map(choose, groups), strict=True):
                partners[group.number] = split.reference[chosen]
    return partners


def match_points(second: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.int64]:
    """Match (m, k) points one to one at the least total squared distance; return the partners."""
    m, k = second.shape
    layer = Layer.of(np.concatenate([second, reference]))
    spread = float(np.abs(layer.values - layer.mean).max())
    columns, scale = np.arange(k), 1 / spread if spread > 0 else 0.0
    by_point, _ = gather(layer, np.arange(m), columns, scale)
    _, by_feature = gather(layer, np.arange(m, 2 * m), columns, scale)
    cost = full_matrix(by_point, by_feature)
    return assign(cost, m, cost[:m, :m].min(0).astype(np.float64))
