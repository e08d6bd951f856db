"""One bootstrap: the random split of the rows, and the estimate from the edges that are counted."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.rng import stream

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MEMORY_LIMIT = 2 * 2**30  # bytes


class Split(NamedTuple):
    """Row indices of samples A, B and R, all disjoint; the rows of B find their partners in R."""

    first: Integers
    second: Integers
    reference: Integers


class EdgeCounts(NamedTuple):
    """Edges between A and B in every tree, (C, P), and pairs of edges that share a node, (C, P)."""

    crossing: Integers
    adjacent: Integers


class Bootstrap(NamedTuple):
    """Estimates of all blocks from one bootstrap: value and z_score, both (C, P)."""

    value: Floats
    z_score: Floats


def random_splits(rows: int, seed: int) -> Iterator[Split]:
    """Yield the splits of bootstrap 0, 1, 2, ... without end."""
    third = rows // 3
    for index in count():
        order = stream(seed, f"bootstrap {index}").permutation(rows)
        # The remainder of rows / 3 goes to A, because matching needs B and R of one size.
        yield Split(*np.split(order, [rows - 2 * third, rows - third]))


def estimate(counts: EdgeCounts, first: int, second: int) -> Bootstrap:
    """Return the estimates from a sample A of `first` points and a sample B of `second` points.

    Friedman and Rafsky (1979) give the null distribution of the crossing edges: its mean is
    2 first second / N for N points, and its variance depends on the pairs of edges that share a
    node. The z-score is positive where fewer edges cross than expected.
    """
    total, product = first + second, 2 * first * second
    pairs = total * (total - 1)
    shared = (counts.adjacent - total + 2) / ((total - 2) * (total - 3))
    variance = product / pairs * ((product - total) / total + shared * (pairs - 2 * product + 2))
    # In a star of four points the count is the same for all samples.
    varies = variance > 1e-9
    deviation = product / total - counts.crossing
    return Bootstrap(
        value=1 - counts.crossing * total / product,
        z_score=np.where(varies, deviation / np.sqrt(np.where(varies, variance, 1)), 0.0),
    )


def scale_near_one(values: Floats) -> Floats:
    """Multiply by the power of two that brings the largest value near one; nothing is rounded."""
    exponent = np.frexp(np.abs(values).max(initial=0))[1]
    near: Floats = np.ldexp(values, -exponent)
    return near


def centred_single(values: Floats) -> NDArray[np.float32]:
    """Return float32 values less their mean; a large offset would cost significant digits."""
    return np.asarray(values - values.mean(0), np.float32)
