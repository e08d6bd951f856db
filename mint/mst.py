"""Compiled kernels: minimum spanning trees of dense distances, and the edges they send across."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


@njit(cache=True, parallel=True)
def cross_edges(
    child: NDArray[np.float32], parent: NDArray[np.float32], in_first: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Count the edges between two samples in the minimum spanning tree of child[i] + parent.

    One pass of Prim's algorithm a tree, on the sum of two symmetric matrices of squared
    distances that is never written down. Equal points are joined by edges of length zero.

    Args:
        child: (c, n, n) squared distances in each child group.
        parent: (n, n) squared distances in the parent layer.
        in_first: (n,) whether a point belongs to the first sample.

    Returns:
        (c,) numbers of edges between the samples (Friedman and Rafsky 1979).
    """
    groups, n, _ = child.shape
    crossing = np.zeros(groups, np.int64)
    for group in prange(groups):
        nearest = np.full(n, np.inf, np.float32)
        tree_end = np.zeros(n, np.int64)
        inside = np.zeros(n, np.bool_)
        newest = 0
        count = 0
        for _ in range(n - 1):
            inside[newest] = True
            best = -1
            for point in range(n):
                if inside[point]:
                    continue
                distance = child[group, newest, point] + parent[newest, point]
                if distance < nearest[point]:
                    nearest[point] = distance
                    tree_end[point] = newest
                if best < 0 or nearest[point] < nearest[best]:
                    best = point
            newest = best
            count += in_first[newest] != in_first[tree_end[newest]]
        crossing[group] = count
    return crossing
