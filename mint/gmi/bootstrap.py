"""One bootstrap: the random split of the rows, and the estimate from the edges that are counted."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.rng import stream

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MEMORY_LIMIT = 2 * 2**30  # bytes


class Split(NamedTuple):
    """Disjoint rows of one bootstrap.

    Attributes:
        first: (nA,) row indices of sample A, int64.
        second: (m,) row indices of sample B, int64.
        reference: (m,) row indices of sample R, where the rows of B find their partners, int64.
    """

    first: Integers
    second: Integers
    reference: Integers


class EdgeCounts(NamedTuple):
    """Edges counted in the minimum spanning tree of every block.

    Attributes:
        crossing: (child groups, parent groups) int64, edges between A and B.
        adjacent: (child groups, parent groups) int64, pairs of edges that share a node: the sum
            over nodes of degree * (degree - 1) / 2.
    """

    crossing: Integers
    adjacent: Integers


class Bootstrap(NamedTuple):
    """Estimates of all blocks from one bootstrap: value and z_score, both (C, P)."""

    value: Floats
    z_score: Floats


def random_splits(rows: int, seed: int) -> Iterator[Split]:
    """Yield the splits of bootstrap 0, 1, 2, ... without end."""
    third = rows // 3
    index = 0
    while True:
        order = stream(seed, f"bootstrap {index}").permutation(rows)
        # The remainder of rows / 3 goes to A, because matching needs B and R of one size.
        yield Split(*np.split(order, [rows - 2 * third, rows - third]))
        index += 1


def estimate(counts: EdgeCounts, first: int, second: int) -> Bootstrap:
    """Return 1 - C (nA + nB) / (2 nA nB) and the z-score for the sizes of A and B."""
    return Bootstrap(
        value=1 - counts.crossing * (first + second) / (2 * first * second),
        z_score=friedman_rafsky_z(counts, first, second),
    )


def friedman_rafsky_z(counts: EdgeCounts, first: int, second: int) -> Floats:
    """Standardise the crossing edges by their null distribution given the tree.

    Friedman and Rafsky (1979): with N = first + second points, E[R] = 2 first second / N, and the
    variance depends on the tree through the number of pairs of edges that share a node.

    Args:
        counts: edges of every block.
        first: points of the first sample.
        second: points of the second sample.

    Returns:
        (C, P), positive where fewer edges cross than under the null.
    """
    total, product = first + second, 2 * first * second
    expected = product / total
    variance = (
        product
        / (total * (total - 1))
        * (
            (product - total) / total
            + (counts.adjacent - total + 2)
            / ((total - 2) * (total - 3))
            * (total * (total - 1) - 2 * product + 2)
        )
    )
    # In a star of four points the count is the same for all samples.
    varies = variance > 1e-9
    deviation = expected - counts.crossing
    return np.where(varies, deviation / np.sqrt(np.where(varies, variance, 1)), 0.0)


def scale_near_one(values: Floats) -> Floats:
    """Multiply by the power of two that brings the largest value near one; nothing is rounded."""
    exponent = np.frexp(np.abs(values).max(initial=0))[1]
    near: Floats = np.ldexp(values, -exponent)
    return near


def centred_single(values: Floats) -> NDArray[np.float32]:
    """Return float32 values less their mean; a large offset would cost significant digits."""
    single: NDArray[np.float32] = (values - values.mean(0)).astype(np.float32)
    return single
