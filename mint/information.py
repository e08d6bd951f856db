"""Geometric estimates of conditional mutual information between groups of filters.

Sources: Ganesh, Corso and Yasaei Sekeh, MINT (ICPR 2020), for the score of a block; Yasaei Sekeh
and Hero, Geometric Estimation of Multivariate Dependency (Entropy 2019), for the estimator;
Friedman and Rafsky (Annals of Statistics 1979) for the count of edges it rests on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mint.mst import cross_edges
from mint.seeds import stream

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Estimates for every pair of a child group and a parent group.

    Attributes:
        value: (child groups, parent groups) estimates of GMI, which lies in [0, 1]; an estimate
            may be slightly negative.
    """

    value: NDArray[np.float64]


def contiguous_groups(filters: int, groups: int) -> NDArray[np.int64]:
    """Label filters with contiguous groups whose sizes differ by one at most."""
    return np.arange(filters) * groups // filters


def gmi_scores(
    child: Floats,
    parent: Floats,
    child_groups: int,
    parent_groups: int,
    *,
    bootstraps: int,
    seed: int,
    on_column: Callable[[int, int], None] | None = None,
) -> Scores:
    """Estimate how much each child group depends on each parent group given all other parents.

    GMI(X;Y|Z) = 1 - 2 * integral of pq / (p + q), with p the joint density of child group X,
    parent group Y and the other parent filters Z, and q = p(x|z) p(y|z) p(z). Rows are split
    into A, B and R; B becomes a sample of q when every y of B is replaced by that of its partner
    in R; the estimate is 1 - R (nA + nB) / (2 nA nB), R being the number of edges between A and
    B in the minimum spanning tree of both.

    The paper's choices: the split into thirds, the tree, the count. Ours, which leave the
    population value as it is: partners are matched one to one (least total squared distance in
    Z) where the paper takes the nearest neighbour, and X, Y and Z are each scaled to unit total
    variance, so that hundreds of coordinates of Z do not drown the others.

    Args:
        child: (n, c) activations.
        parent: (n, p) activations of the same rows.
        child_groups: number of contiguous groups of child filters.
        parent_groups: number of contiguous groups of parent filters.
        bootstraps: splits to average; one split serves all blocks of a bootstrap.
        seed: of the splits.
        on_column: called with (parent groups done, parent groups in all) as the work goes on.
    """
    child_labels = contiguous_groups(child.shape[1], child_groups)
    parent_labels = contiguous_groups(parent.shape[1], parent_groups)
    generator = stream(seed, "bootstraps")
    total = np.zeros((child_groups, parent_groups))
    for bootstrap in range(bootstraps):
        first, second, reference = _thirds(len(child), generator)
        pooled = np.concatenate([first, second])
        in_first = np.arange(len(pooled)) < len(first)
        child_distances = np.stack(
            [
                squared_distances(unit_variance(child[:, child_labels == group])[pooled])
                for group in range(child_groups)
            ]
        )
        for group in range(parent_groups):
            block = unit_variance(parent[:, parent_labels == group])
            others = unit_variance(parent[:, parent_labels != group])
            partner = _match(others[second], others[reference])
            swapped = np.concatenate([block[first], block[reference[partner]]])
            distances = squared_distances(np.hstack([swapped, others[pooled]]))
            crossing = cross_edges(child_distances, distances, in_first)
            harmonic = len(pooled) / (2 * len(first) * len(second))
            total[:, group] += 1 - crossing * harmonic
            if on_column:
                on_column(bootstrap * parent_groups + group + 1, bootstraps * parent_groups)
    return Scores(total / bootstraps)


def unit_variance(block: Floats) -> Floats:
    """Centre a block of columns and scale it as a whole so that their variances sum to one.

    A block that is constant stays at zero.
    """
    centred = block - block.mean(0, dtype=np.float64)
    variance = centred.var(0).sum()
    scaled: Floats = (centred / np.sqrt(variance) if variance > 0 else centred).astype(np.float32)
    return scaled


def squared_distances(points: Floats) -> Floats:
    """Return the (n, n) squared Euclidean distances of (n, d) points, exactly symmetric."""
    product = points @ points.T
    squares = np.diag(product)
    distances = squares[:, None] + squares[None, :] - 2 * product
    np.maximum(distances, 0, out=distances)
    symmetric: Floats = np.maximum(distances, distances.T)
    return symmetric


def _thirds(
    rows: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    order = generator.permutation(rows)
    third = rows // 3
    # What does not divide by three goes to A: B and R must be of one size to be matched.
    return order[: rows - 2 * third], order[rows - 2 * third : rows - third], order[rows - third :]


def _match(second: Floats, reference: Floats) -> NDArray[np.int64]:
    """Return the partner in the reference of every row of the second sample, one to one."""
    cross = -2 * (second @ reference.T)
    cross += (second**2).sum(1)[:, None] + (reference**2).sum(1)[None, :]
    return linear_sum_assignment(cross)[1]
