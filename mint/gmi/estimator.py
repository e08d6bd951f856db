"""Geometric estimates of conditional mutual information, with error bars.

Sources: Ganesh, Corso and Yasaei Sekeh, MINT (ICPR 2020), for the score of a block; Yasaei Sekeh
and Hero, Geometric Estimation of Multivariate Dependency (Entropy 2019), for the estimator;
Friedman and Rafsky (Annals of Statistics 1979) for the count of edges it rests on and its null.

With p(x, y, z) the joint density and q = p(x|z) p(y|z) p(z), the quantity is

    GMI(X; Y | Z) = 1 - 2 * integral of p q / (p + q)

It lies in [0, 1], and is 0 where X and Y are independent given Z and nowhere else. One bootstrap
splits the rows at random into A, B and R of a third each, and turns B into a sample of q: every y
of B is replaced by that of its partner in R, which has a similar z. With C the number of edges
between A and B in the Euclidean minimum spanning tree of both, the estimate is
1 - C (nA + nB) / (2 nA nB).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from scipy.special import ndtr

from mint.gmi.cpu.assignment import match
from mint.gmi.cpu.engine import Counts, Split, count_blocks
from mint.rng import stream

Floats = NDArray[np.float64]
Groups = int | ArrayLike
Progress = Callable[[int, int], None]

# Of Z against X and Y together, which have variance 2: Z only has to be matched, not told apart.
_VARIANCE_OF_Z = 0.1
# Keeps the joint metric finite where Y is a copy of X.
_RIDGE_OF_METRIC = 0.02
_RIDGES_OF_REGRESSION = 10.0 ** np.arange(-6, 1)
_EXPLAINED = 1e-10
_HALVINGS = 20


@dataclass(frozen=True)
class Estimate:
    """How much X and Y depend on each other given Z.

    Attributes:
        value: mean over the bootstraps; may be slightly negative.
        standard_error: of that mean over the bootstraps of these rows; nan for one bootstrap.
        z_score: mean over the bootstraps of the Friedman-Rafsky statistic, in standard deviations
            of its null, where it has mean 0; positive is dependence.
        p_value: one-sided normal probability of the z-score. For several bootstraps it is
            conservative, for their mean varies less than one of them.
    """

    value: float
    standard_error: float
    z_score: float
    p_value: float


@dataclass(frozen=True)
class Scores:
    """Estimates for every pair of a child group and a parent group.

    Attributes:
        value: (C, P) means over the bootstraps.
        standard_error: (C, P) of those means; nan for one bootstrap.
        z_score: (C, P) as in Estimate.
        reliability: rank correlation to expect between these values and those of as many other
            bootstraps of the same rows; nan for one bootstrap, for fewer than three blocks, and
            where all means are the same.
        bootstraps: how many were averaged.
    """

    value: Floats
    standard_error: Floats
    z_score: Floats
    reliability: float
    bootstraps: int


@dataclass(frozen=True)
class Bootstrap:
    """One bootstrap of all blocks: value and z_score, both (C, P)."""

    value: Floats
    z_score: Floats


def conditional_gmi(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike | None = None,
    *,
    bootstraps: int = 1,
    seed: int = 0,
    scaled: bool = True,
    one_to_one: bool = True,
    refined: bool = True,
) -> Estimate:
    """Estimate GMI(X; Y | Z), or GMI(X; Y) without Z.

    The paper's choices are the split, the tree and the count. Ours leave the population value as
    it is, for it does not change under one-to-one maps of (x, y, z), and can be switched off.

    Example:
        ```python
        rng = np.random.default_rng(0)
        z = rng.normal(size=(3000, 1))
        x, y = z + rng.normal(size=(3000, 1)), z + rng.normal(size=(3000, 1))
        conditional_gmi(x, y, bootstraps=50)  # X and Y depend on each other
        conditional_gmi(x, y, z, bootstraps=50)  # but not given Z
        ```

    Args:
        x: (n, dx), n at least 6.
        y: (n, dy), the same rows.
        z: (n, dz), the same rows, or None.
        bootstraps: fresh splits to average.
        seed: of the splits.
        scaled: scale each of X, Y and Z to unit total variance. The paper takes them as they are.
        one_to_one: match B to R one to one at the least total squared distance in Z. The paper
            takes the nearest neighbour, which serves several b and biases the null.
        refined: what is too dear for all blocks of a layer. Distances are between what a linear
            regression on Z leaves of X and Y, in the metric that makes those jointly isotropic,
            with Z at a lower weight: fewer points then show the same dependence, and a
            coordinate of Z that X and Y share is no false alarm. And the estimate is corrected by
            what halving the samples does to it (a jackknife), for less bias and more variance.
            Implies scaled. Without it the estimate is that of gmi_scores.

    Raises:
        ValueError: values that are not finite, rows that differ or are too few, no columns.
    """
    blocks = {"x": x, "y": y} | ({} if z is None else {"z": z})
    arrays = {name: _matrix(name, block) for name, block in blocks.items()}
    _check_rows(arrays)
    _check_whole("bootstraps", bootstraps, 1)
    _check_whole("seed", seed, 0)
    child, parent = arrays["x"], arrays["y"]
    others = arrays.get("z", np.empty((len(child), 0)))
    if refined:
        estimates = _refined(child, parent, others, seed=seed, one_to_one=one_to_one)
    else:
        estimates = _bootstraps(
            child,
            np.hstack([parent, others]),
            [np.arange(child.shape[1])],
            [np.arange(parent.shape[1])],
            seed=seed,
            scaled=scaled,
            count=partial(count_blocks, scaled=scaled, one_to_one=one_to_one),
        )
    scores = summarize(list(islice(estimates, bootstraps)))
    z_score = float(scores.z_score[0, 0])
    return Estimate(
        value=float(scores.value[0, 0]),
        standard_error=float(scores.standard_error[0, 0]),
        z_score=z_score,
        p_value=float(ndtr(-z_score)),
    )


def gmi_scores(
    child: ArrayLike,
    parent: ArrayLike,
    child_groups: Groups,
    parent_groups: Groups,
    *,
    bootstraps: int = 1,
    seed: int = 0,
    device: str = "cpu",
    memory_limit: int | str = "2GiB",
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    on_progress: Progress | None = None,
) -> Scores:
    """Estimate how much each child group depends on each parent group given all other parents.

    One split serves all blocks of a bootstrap, which lets every block be the sum of a matrix of
    the child group and one of the parent group; bootstraps have splits of their own. Measured on
    MNIST (fc1 -> fc2, 20 x 20 groups, 2500 rows), the noise of one bootstrap has a standard
    deviation of 0.015 common to all blocks, 0.014 common to a column and 0.014 of the block's
    own; blocks differ by 0.003. The first part moves no rank, so the ranking has a noise of
    0.019, where a split for every block would leave it 0.024 and take about 100 times as long, a
    split for every column about 20 times. The choices are those of conditional_gmi with
    refined=False, which equals this on each block.

    Example:
        ```python
        scores = gmi_scores(child, parent, 20, 20, bootstraps=50)
        scores.value, scores.standard_error  # (20, 20) each
        ```

    Args:
        child: (n, c) activations, n at least 6.
        parent: (n, p) activations of the same rows.
        child_groups: the number C of contiguous groups, or a label from 0 to C - 1 per filter.
        parent_groups: likewise for the P groups of parent filters.
        bootstraps: splits to average.
        seed: of the splits.
        device: cpu, or cuda for the same on a GPU.
        memory_limit: bytes, or such as 2GiB, that may be used beyond the arguments.
        scaled: as in conditional_gmi.
        one_to_one: as in conditional_gmi.
        conditional: False leaves Z out: GMI(X; Y) of every block.
        on_progress: called with (work done, work in all) as it goes on.

    Raises:
        ValueError: an argument that cannot be, by its name.
    """
    _check_whole("bootstraps", bootstraps, 1)

    def on_bootstrap(index: int, done: int, total: int) -> None:
        if on_progress:
            on_progress(index * total + done, bootstraps * total)

    estimates = gmi_bootstraps(
        child,
        parent,
        child_groups,
        parent_groups,
        seed=seed,
        device=device,
        memory_limit=memory_limit,
        scaled=scaled,
        one_to_one=one_to_one,
        conditional=conditional,
        on_bootstrap=on_bootstrap,
    )
    return summarize(list(islice(estimates, bootstraps)))


def gmi_bootstraps(
    child: ArrayLike,
    parent: ArrayLike,
    child_groups: Groups,
    parent_groups: Groups,
    *,
    seed: int = 0,
    device: str = "cpu",
    memory_limit: int | str = "2GiB",
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    on_bootstrap: Callable[[int, int, int], None] | None = None,
) -> Iterator[Bootstrap]:
    """Yield the bootstraps that gmi_scores averages, one after the other without end.

    For who decides on the way how many are enough. The arguments are those of gmi_scores, but
    on_bootstrap is called with (number of the bootstrap from 0, work done in it, work in it).
    """
    _check_whole("seed", seed, 0)
    arrays = {"child": _matrix("child", child), "parent": _matrix("parent", parent)}
    _check_rows(arrays)
    return _bootstraps(
        arrays["child"],
        arrays["parent"],
        _members("child_groups", child_groups, arrays["child"].shape[1]),
        _members("parent_groups", parent_groups, arrays["parent"].shape[1]),
        seed=seed,
        scaled=scaled,
        count=partial(
            _count_blocks_of(device),
            scaled=scaled,
            one_to_one=one_to_one,
            conditional=conditional,
            memory_limit=_parse_bytes(memory_limit),
        ),
        on_bootstrap=on_bootstrap,
    )


def summarize(bootstraps: Sequence[Bootstrap]) -> Scores:
    """Average bootstraps of the same blocks; at least one."""
    values = np.stack([bootstrap.value for bootstrap in bootstraps])
    count = len(values)
    return Scores(
        value=values.mean(0),
        standard_error=(
            values.std(0, ddof=1) / math.sqrt(count)
            if count > 1
            else np.full(values.shape[1:], np.nan)
        ),
        z_score=np.mean([bootstrap.z_score for bootstrap in bootstraps], axis=0),
        reliability=reliability(values),
        bootstraps=count,
    )


def reliability(values: ArrayLike) -> float:
    """Return the rank correlation to expect between means of so many bootstraps each.

    Spearman's correlation between the means of two halves, averaged over random ways to halve
    them, and stepped up from a half to the whole by the Spearman-Brown formula.

    Args:
        values: (bootstraps, ...) estimates of the same blocks.

    Returns:
        At most 1; nan for one bootstrap, for fewer than three blocks, or where the means of a half
        are all the same.
    """
    table = np.asarray(values, np.float64)
    table = table.reshape(len(table), -1)
    half = len(table) // 2
    if half == 0 or table.shape[1] < 3:
        return math.nan
    generator = np.random.default_rng(0)  # the way to halve is no part of the result
    correlations = []
    for _ in range(_HALVINGS if half > 1 else 1):
        order = generator.permutation(len(table))
        halves = table[order[:half]].mean(0), table[order[half : 2 * half]].mean(0)
        if any(np.ptp(means) == 0 for means in halves):
            return math.nan
        ranks = np.array([_ranks(means) for means in halves])
        correlations.append(np.corrcoef(ranks)[0, 1])
    correlation = float(np.mean(correlations))
    lengthening = len(table) / half
    # A negative correlation of halves is noise around none; lengthening it means nothing.
    return max(correlation, lengthening * correlation / (1 + (lengthening - 1) * abs(correlation)))


def _ranks(values: Floats) -> Floats:
    """Return ranks from 1, equal values sharing the mean of theirs; scipy.stats takes a second."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[place]


def contiguous_groups(filters: int, groups: int) -> NDArray[np.int64]:
    """Label filters with contiguous groups whose sizes differ by one at most."""
    return np.arange(filters) * groups // filters


def friedman_rafsky_z(
    crossing: NDArray[np.int64], adjacent: NDArray[np.int64], first: int, second: int
) -> Floats:
    """Standardise the edges between two samples by their null given the tree.

    Friedman and Rafsky (1979): with N = first + second points, E[R] = 2 first second / N, and the
    variance given the tree depends on it through the number of pairs of edges that share a node.

    Args:
        crossing: edges between the samples.
        adjacent: pairs of edges that share a node.
        first: points of the first sample.
        second: points of the second sample.

    Returns:
        Positive where fewer edges cross than under the null: where the samples differ.
    """
    total, product = first + second, 2 * first * second
    expected = product / total
    variance = (
        product
        / (total * (total - 1))
        * (
            (product - total) / total
            + (adjacent - total + 2)
            / ((total - 2) * (total - 3))
            * (total * (total - 1) - 2 * product + 2)
        )
    )
    # A star of four points crosses as often whatever the samples: it tells nothing.
    told = variance > 1e-9
    return np.where(told, (expected - crossing) / np.sqrt(np.where(told, variance, 1)), 0.0)


def _bootstraps(
    child: Floats,
    parent: Floats,
    child_groups: Sequence[NDArray[np.int64]],
    parent_groups: Sequence[NDArray[np.int64]],
    *,
    seed: int,
    scaled: bool,
    count: Callable[..., Counts],
    on_bootstrap: Callable[[int, int, int], None] | None = None,
) -> Iterator[Bootstrap]:
    # A constant group says nothing of any other, and the tree of the rest says nothing of it.
    telling = np.outer(
        [np.ptp(child[:, group], axis=0).any() for group in child_groups],
        [np.ptp(parent[:, group], axis=0).any() for group in parent_groups],
    )
    if scaled:
        child, parent = _near_one(child), _near_one(parent)
    else:
        child, parent = np.split(_near_one(np.hstack([child, parent])), [child.shape[1]], axis=1)
    children, parents = _single_precision(child), _single_precision(parent)
    for index, split in enumerate(_splits(len(child), seed)):

        def on_column(done: int, total: int, index: int = index) -> None:
            if on_bootstrap:
                on_bootstrap(index, done, total)

        counts = count(children, parents, child_groups, parent_groups, split, on_column=on_column)
        estimate = _estimate(counts, len(split.first), len(split.second))
        yield Bootstrap(
            np.where(telling, estimate.value, 0), np.where(telling, estimate.z_score, 0)
        )


def _refined(
    x: Floats, y: Floats, z: Floats, *, seed: int, one_to_one: bool
) -> Iterator[Bootstrap]:
    x, y, z = _near_one(x), _near_one(y), _near_one(z)
    z = _unit_variance(z) if z.shape[1] else z
    if z.any():
        x, y = _residuals(z, x, y)
    x, y = _unit_variance(x) * math.sqrt(x.shape[1]), _unit_variance(y) * math.sqrt(y.shape[1])
    telling = x.any() and y.any()
    joint = np.hstack([x, y])
    coordinates = joint.shape[1]
    covariance = joint.T @ joint / len(joint) + _RIDGE_OF_METRIC * np.eye(coordinates)
    metric = np.linalg.inv(np.linalg.cholesky(covariance)).T * math.sqrt(2 / coordinates)
    weighted = math.sqrt(_VARIANCE_OF_Z) * z
    for split in _splits(len(x), seed):
        if not telling:
            yield Bootstrap(np.zeros((1, 1)), np.zeros((1, 1)))
            continue
        pooled = np.concatenate([split.first, split.second])
        swapped = np.concatenate([y[split.first], y[_partners(z, split, one_to_one)]])
        points = np.hstack([np.hstack([x[pooled], swapped]) @ metric, weighted[pooled]])
        sizes = len(split.first), len(split.second)
        whole = _estimate(_count_tree(points, *sizes), *sizes)
        if min(sizes) < 4:  # halves too small for a tree
            yield whole
            continue
        halves = [_estimate_of_half(points, *sizes, half).value for half in (0, 1)]
        yield Bootstrap(2 * whole.value - np.mean(halves, axis=0), whole.z_score)


def _estimate_of_half(points: Floats, first: int, second: int, half: int) -> Bootstrap:
    samples = points[:first][half::2], points[first:][half::2]
    sizes = len(samples[0]), len(samples[1])
    return _estimate(_count_tree(np.vstack(samples), *sizes), *sizes)


def _partners(z: Floats, split: Split, one_to_one: bool) -> NDArray[np.int64]:
    """Return the row of R that every row of B takes its y from."""
    if not z.any():
        return split.reference
    if one_to_one:
        single = _single_precision(z)
        return split.reference[match(single[split.second], single[split.reference])]
    _, nearest = KDTree(z[split.reference]).query(z[split.second])
    return split.reference[nearest]


def _count_tree(points: Floats, first: int, second: int) -> Counts:
    """Count the edges of one tree: of blocks whose parent says nothing."""
    unused = np.zeros((second, points.shape[1]))  # where partners would be looked for
    child = _single_precision(np.vstack([points, unused]))
    rows = np.arange(len(child))
    return count_blocks(
        child,
        np.zeros((len(child), 1), np.float32),
        [np.arange(child.shape[1])],
        [np.zeros(1, np.int64)],
        Split(*np.split(rows, [first, first + second])),
        scaled=False,
        conditional=False,
    )


def _count_blocks_of(device: str) -> Callable[..., Counts]:
    if device == "cpu":
        return count_blocks
    if device == "cuda":
        import torch  # takes seconds, and the CPU needs none of it

        from mint.gmi.gpu.engine import count_blocks_on

        if not torch.cuda.is_available():
            raise ValueError("device: there is no cuda on this machine; use cpu")
        return partial(count_blocks_on, device)
    raise ValueError(f"device: must be cpu or cuda, not {device!r}")


def _estimate(counts: Counts, first: int, second: int) -> Bootstrap:
    return Bootstrap(
        value=1 - counts.crossing * (first + second) / (2 * first * second),
        z_score=friedman_rafsky_z(counts.crossing, counts.adjacent, first, second),
    )


def _splits(rows: int, seed: int) -> Iterator[Split]:
    third = rows // 3
    index = 0
    while True:
        order = stream(seed, f"bootstrap {index}").permutation(rows)
        # What does not divide by three goes to A: B and R must be of one size to be matched.
        bounds = [rows - 2 * third, rows - third]
        yield Split(*np.split(order, bounds))
        index += 1


def _residuals(others: Floats, *blocks: Floats) -> list[Floats]:
    """Return what a ridge regression on the others, fitted without the row itself, leaves of each.

    Fitted with the row, hundreds of coordinates would explain noise of its own. The ridge is the
    one of the least error, and leaving a row out has a closed form.
    """
    rows, columns = others.shape
    if columns <= rows:
        variances, right = np.linalg.eigh(others.T @ others)
        kept = variances > 1e-10 * variances[-1]
        left = others @ right[:, kept] / np.sqrt(variances[kept])
    else:
        variances, left = np.linalg.eigh(others @ others.T)
        kept = variances > 1e-10 * variances[-1]
        left = left[:, kept]
    variances = variances[kept]
    shrinkages = [variances / (variances + r * variances.sum()) for r in _RIDGES_OF_REGRESSION]

    def residual(block: Floats) -> Floats:
        block = block - block.mean(0)
        best, least = block, float((block**2).sum())
        for shrinkage in shrinkages:
            own_share = (left**2) @ shrinkage + 1 / rows
            fitted = left @ (shrinkage[:, None] * (left.T @ block))
            found = (block - fitted) / np.maximum(1 - own_share, 1e-6)[:, None]
            error = float((found**2).sum())
            if error < least:
                best, least = found, error
        # What Z says wholly is left with nothing: the rest is the ridge's, alike in X and Y.
        explained = least <= _EXPLAINED * float((block**2).sum())
        return np.zeros_like(block) if explained else best

    return [residual(block) for block in blocks]


def _unit_variance(block: Floats) -> Floats:
    centred = block - block.mean(0)
    variance = float((centred**2).mean(0).sum())
    # What is constant but for rounding stays so: scaling would make a signal of the rounding.
    rounding = 16 * np.finfo(np.float64).eps
    constant = variance <= rounding**2 * float((block**2).mean(0).sum())
    return np.zeros_like(block) if constant else centred / math.sqrt(variance)


def _near_one(values: Floats) -> Floats:
    """Multiply by the power of two that brings the largest value near one: it rounds nothing."""
    exponent = np.frexp(np.abs(values).max(initial=0))[1]
    near: Floats = np.ldexp(values, -exponent)
    return near


def _single_precision(values: Floats) -> NDArray[np.float32]:
    # Large offsets would eat the digits that tell points apart.
    single: NDArray[np.float32] = (values - values.mean(0)).astype(np.float32)
    return single


def _matrix(name: str, values: ArrayLike) -> Floats:
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: must be real numbers")
    try:
        matrix = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: must be a table of numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"{name}: must be (rows, columns) with columns, not {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: holds values that are nan or infinite")
    return matrix


def _check_rows(arrays: dict[str, Floats]) -> None:
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise ValueError(f"{' and '.join(rows)}: must have the same rows, but {told}")
    name, count = next(iter(rows.items()))
    if count < 6:
        raise ValueError(f"{name}: must have at least 6 rows, not {count}")


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: must be a whole number of at least {least}, not {value!r}")


def _members(name: str, groups: Groups, filters: int) -> list[NDArray[np.int64]]:
    labels = np.asarray(groups)
    if labels.ndim == 0 and np.issubdtype(labels.dtype, np.integer):
        if not 1 <= int(labels) <= filters:
            raise ValueError(f"{name}: must be from 1 to the {filters} filters, not {int(labels)}")
        labels = contiguous_groups(filters, int(labels))
    if labels.shape != (filters,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name}: must be a number, or a whole-numbered label for each of the {filters} filters"
        )
    if labels.min() < 0 or labels.max() >= filters:
        raise ValueError(f"{name}: labels must be from 0 to {filters - 1}")
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    empty = [label for label, group in enumerate(members) if not len(group)]
    if empty:
        raise ValueError(f"{name}: no filter has the label {empty[0]}")
    return members


def _parse_bytes(limit: int | str) -> int:
    if isinstance(limit, int | np.integer) and not isinstance(limit, bool):
        return int(limit)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*", str(limit))
    if not found:
        raise ValueError(f"memory_limit: must be bytes, or such as 2GiB or 500MB, not {limit!r}")
    number, unit = found.groups()
    base = 1024 if unit and unit.endswith("i") else 1000
    return int(float(number) * base ** (" KMGT".index(unit[0]) if unit else 0))
