"""The refined estimator of one block, which costs too much for all blocks of a layer.

Points are the residuals of X and Y after a ridge regression on Z, in the metric that makes them
jointly isotropic, with Z at a lower weight. A jackknife over half the samples reduces the bias.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from mint.gmi.bootstrap import (
    Bootstrap,
    Floats,
    Split,
    centred_single,
    estimate,
    random_splits,
    scale_near_one,
)
from mint.gmi.cpu.engine import count_blocks
from mint.gmi.cpu.matching import match_points

# X and Y together have variance 2. Z matters less: close points need only a similar Z.
_VARIANCE_OF_Z = 0.1
_RIDGE_OF_METRIC = 0.02  # keeps the joint metric finite where Y is a copy of X
_RIDGES_OF_REGRESSION = 10.0 ** np.arange(-6, 1)
_LEAST_UNEXPLAINED = 1e-10  # share of the variance; a residual below it is rounding


def refined_bootstraps(
    x: Floats, y: Floats, z: Floats, *, seed: int, one_to_one: bool
) -> Iterator[Bootstrap]:
    """Yield bootstraps of one block, each of (1, 1) arrays, without end."""
    with _one_blas_thread():
        x, y, z, metric = _isotropic(x, y, z)
    varies = x.any() and y.any()
    weighted = math.sqrt(_VARIANCE_OF_Z) * z
    for split in random_splits(len(x), seed):
        if not varies:
            yield Bootstrap(np.zeros((1, 1)), np.zeros((1, 1)))
            continue
        pooled = np.concatenate([split.first, split.second])
        swapped = np.concatenate([y[split.first], y[_partners(z, split, one_to_one)]])
        with _one_blas_thread():
            points = np.hstack([np.hstack([x[pooled], swapped]) @ metric, weighted[pooled]])
        yield _jackknife(points[: len(split.first)], points[len(split.first) :])


def _one_blas_thread() -> threadpool_limits:
    """Limit BLAS, whose sums depend on its number of threads."""
    return threadpool_limits(1, user_api="blas")


def _isotropic(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the residuals of X and Y, scaled Z, and the metric that makes X and Y isotropic."""
    x, y, z = scale_near_one(x), scale_near_one(y), scale_near_one(z)
    z = _unit_variance(z) if z.shape[1] else z
    if z.any():
        x, y = _residuals(z, x, y)
    x, y = _unit_variance(x) * math.sqrt(x.shape[1]), _unit_variance(y) * math.sqrt(y.shape[1])
    joint = np.hstack([x, y])
    coordinates = joint.shape[1]
    covariance = joint.T @ joint / len(joint) + _RIDGE_OF_METRIC * np.eye(coordinates)
    metric = np.linalg.inv(np.linalg.cholesky(covariance)).T * math.sqrt(2 / coordinates)
    return x, y, z, metric


def _jackknife(first: Floats, second: Floats) -> Bootstrap:
    whole = _estimate_of(first, second)
    if min(len(first), len(second)) < 4:  # half of it is too small for a tree
        return whole
    halves = [_estimate_of(first[half::2], second[half::2]).value for half in (0, 1)]
    return Bootstrap(2 * whole.value - np.mean(halves, axis=0), whole.z_score)


def _estimate_of(first: Floats, second: Floats) -> Bootstrap:
    """Return the estimate from one tree: that of a block whose parent group is constant."""
    reference = np.zeros_like(second)  # a split needs these rows, but the tree leaves them out
    child = centred_single(np.vstack([first, second, reference]))
    parent = np.zeros((len(child), 1), np.float32)
    groups = [np.arange(child.shape[1])], [np.zeros(1, np.int64)]
    sizes = len(first), len(second)
    split = Split(*np.split(np.arange(len(child)), np.cumsum(sizes)))
    counts = count_blocks(child, parent, *groups, split, scaled=False, conditional=False)
    return estimate(counts, *sizes)


def _partners(z: Floats, split: Split, one_to_one: bool) -> NDArray[np.int64]:
    """Return the row of R whose y each row of B takes."""
    if not z.any():
        return split.reference
    if one_to_one:
        single = centred_single(z)
        return split.reference[match_points(single[split.second], single[split.reference])]
    _, nearest = KDTree(z[split.reference]).query(z[split.second])
    return split.reference[nearest]


def _residuals(others: Floats, *blocks: Floats) -> list[Floats]:
    """Return the leave-one-out residuals of a ridge regression of each block on the others.

    A fit that includes the row itself would let hundreds of columns explain noise. The ridge with
    the least error is used; leave-one-out residuals have a closed form.
    """
    rows, columns = others.shape
    gram = others.T @ others if columns <= rows else others @ others.T
    variances, vectors = np.linalg.eigh(gram)
    kept = variances > 1e-10 * variances[-1]
    variances, left = variances[kept], vectors[:, kept]
    if columns <= rows:
        left = others @ left / np.sqrt(variances)
    shrinkages = [variances / (variances + r * variances.sum()) for r in _RIDGES_OF_REGRESSION]

    def residual(block: Floats) -> Floats:
        block = block - block.mean(0)
        best, least = block, float((block**2).sum())
        for shrinkage in shrinkages:
            leverage = (left**2) @ shrinkage + 1 / rows
            fitted = left @ (shrinkage[:, None] * (left.T @ block))
            found = (block - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
            error = float((found**2).sum())
            if error < least:
                best, least = found, error
        # The remainder comes from the ridge and is alike in X and Y: a false dependence.
        explained = least <= _LEAST_UNEXPLAINED * float((block**2).sum())
        return np.zeros_like(block) if explained else best

    return [residual(block) for block in blocks]


def _unit_variance(block: Floats) -> Floats:
    centred = block - block.mean(0)
    variance = float((centred**2).mean(0).sum())
    # A block that is constant up to rounding becomes zero; scaling would amplify the rounding.
    rounding = 16 * np.finfo(np.float64).eps
    constant = variance <= rounding**2 * float((block**2).mean(0).sum())
    return np.zeros_like(block) if constant else centred / math.sqrt(variance)
