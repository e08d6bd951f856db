"""One bootstrap of all blocks, on both engines, against scipy's matching and trees."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from mint.gmi.bootstrap import EdgeCounts, Split
from mint.gmi.cpu.engine import count_blocks
from mint.gmi.gpu.engine import count_blocks_on
from mint.machine import limited_threads

Floats = NDArray[np.float32]
Groups = list[NDArray[np.int64]]
Case = tuple[Floats, Floats, Groups, Groups, Split]
Count = Callable[..., EdgeCounts]

ENGINES: dict[str, Count] = {"cpu": count_blocks, "torch": partial(count_blocks_on, "cpu")}
OPTIONS = [
    {"scaled": scaled, "one_to_one": one_to_one, "conditional": conditional}
    for scaled in (True, False)
    for one_to_one in (True, False)
    for conditional in (True, False)
]


@pytest.fixture(params=ENGINES)
def count(request: pytest.FixtureRequest) -> Count:
    return ENGINES[request.param]


def activations(n: int, filters: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(n, 4)) @ generator.normal(size=(4, filters))
    values = hidden + generator.normal(size=(n, filters))
    # Skewed as behind a ReLU, but without equal points.
    return np.maximum(values, 0.01 * values).astype(np.float32)


def random_split(rows: int, seed: int, extra: int = 0) -> Split:
    order = np.random.default_rng(seed).permutation(rows)
    m = (rows - extra) // 3
    return Split(order[: m + extra], order[m + extra : 2 * m + extra], order[-m:])


def uneven_groups(filters: int, count: int) -> Groups:
    """Return groups that are not contiguous, differ in size, and do not cover all filters."""
    labels = np.arange(filters) % count
    return [np.flatnonzero(labels == group)[: 2 + group] for group in range(count)]


def case_of(rows: int, child: int, parent: int, groups: tuple[int, int], extra: int = 0) -> Case:
    return (
        activations(rows, child, seed=0),
        activations(rows, parent, seed=1),
        uneven_groups(child, groups[0]),
        uneven_groups(parent, groups[1]),
        random_split(rows, seed=0, extra=extra),
    )


def reference(
    child: Floats,
    parent: Floats,
    child_groups: Groups,
    parent_groups: Groups,
    split: Split,
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
) -> EdgeCounts:
    """Return what the engines should, in float64 and one tree after the other."""

    def block(table: Floats, columns: NDArray[np.int64]) -> NDArray[np.float64]:
        values = table[:, columns].astype(np.float64)
        values -= values.mean(0)
        variance = values.var(0).sum()
        return values / np.sqrt(variance) if scaled and variance > 0 else values

    pooled = np.concatenate([split.first, split.second])
    in_first = np.arange(len(pooled)) < len(split.first)
    counts = np.zeros((2, len(child_groups), len(parent_groups)), np.int64)
    for j, columns in enumerate(parent_groups):
        others = np.setdiff1d(np.arange(parent.shape[1]), columns)
        y, z = block(parent, columns), block(parent, others)
        partner = split.reference
        if conditional and z.any():
            cost = cdist(z[split.second], z[split.reference], "sqeuclidean")
            found = linear_sum_assignment(cost)[1] if one_to_one else cost.argmin(1)
            partner = split.reference[found]
        parts = [y[np.concatenate([split.first, partner])]]
        if conditional:
            parts.append(z[pooled])
        for i, child_columns in enumerate(child_groups):
            points = np.hstack([block(child, child_columns)[pooled], *parts])
            distances = cdist(points, points, "sqeuclidean")
            # scipy ignores edges of length zero, so all edges are made longer.
            tree = minimum_spanning_tree(distances / distances.mean() + 1e-3).tocoo()
            degree = np.bincount(np.concatenate([tree.row, tree.col]))
            counts[0, i, j] = (in_first[tree.row] != in_first[tree.col]).sum()
            counts[1, i, j] = (degree * (degree - 1) // 2).sum()
    return EdgeCounts(*counts)


def assert_equal(one: EdgeCounts, other: EdgeCounts) -> None:
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_counts_equal_those_of_scipy(count: Count, options: dict[str, Any]) -> None:
    for extra in range(3):
        case = case_of(150 + extra, 20, 33, (5, 4), extra)
        assert_equal(count(*case, **options), reference(*case, **options))


@pytest.mark.parametrize("rows", range(5, 11))
def test_few_rows(count: Count, rows: int) -> None:
    case = case_of(rows, 6, 7, (2, 3), extra=(rows - 3) % 3 if rows > 5 else 2)
    assert_equal(count(*case), reference(*case))


def test_one_parent_group_has_no_rest(count: Count) -> None:
    child, parent, groups, _, split = case_of(120, 6, 7, (2, 3))
    case = child, parent, groups, [np.arange(7)], split
    assert_equal(count(*case), reference(*case))
    assert_equal(count(*case), count(*case, conditional=False))


def test_constant_filters_and_groups(count: Count) -> None:
    case = case_of(150, 8, 12, (3, 3))
    child, parent, groups, parent_groups, _ = case
    child[:, groups[0]] = 0.1
    parent[:, parent_groups[1]] = 3
    assert_equal(count(*case), reference(*case))


def test_constant_rest_equals_no_rest(count: Count) -> None:
    child, parent, groups, parent_groups, split = case_of(70, 8, 12, (3, 3))
    parent[:, np.setdiff1d(np.arange(12), parent_groups[0])] = 0.7
    case = child, parent, groups, parent_groups[:1], split
    assert_equal(count(*case), count(*case, conditional=False))


def test_trees_exist_where_nothing_varies(count: Count) -> None:
    child, parent = np.ones((30, 4), np.float32), np.full((30, 6), 0.3, np.float32)
    case = child, parent, uneven_groups(4, 2), uneven_groups(6, 2), random_split(30, 0)
    for scaled in (True, False):
        crossing = count(*case, scaled=scaled).crossing
        assert ((crossing > 0) & (crossing < 20)).all()


@pytest.mark.parametrize("scales", [(1e-20, 1e15), (1e15, 1e-20), (1e-20, 1e-20), (1e15, 1e15)])
def test_scale_of_a_group_does_not_matter(scales: tuple[float, float]) -> None:
    case = case_of(150, 8, 12, (3, 3))
    child, parent, groups, parent_groups, _ = case
    # The parent group then has nearly all or nearly nothing of the variance of its layer.
    child[:, groups[1]] *= np.float32(scales[0])
    parent[:, parent_groups[2]] *= np.float32(scales[1])
    assert_equal(count_blocks(*case), reference(*case))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_common_scale_of_unscaled_blocks_does_not_matter(scale: float) -> None:
    case = case_of(150, 8, 12, (3, 3))
    for layer in case[:2]:
        layer *= np.float32(scale)
    assert_equal(count_blocks(*case, scaled=False), reference(*case, scaled=False))


def test_too_little_variance_for_the_gpu_is_an_error() -> None:
    case = case_of(30, 8, 12, (3, 3))
    child = case[0]
    child *= np.float32(1e-25)
    with pytest.raises(ValueError, match="vary too little"):
        count_blocks_on("cpu", *case)


def test_maps_that_keep_distances_keep_counts(count: Count) -> None:
    generator = np.random.default_rng(0)
    child, parent = (generator.normal(size=(150, 6)).astype(np.float32) for _ in range(2))
    split = Split(*np.split(generator.permutation(150), 3))
    groups = [np.arange(3), np.arange(3, 6)]
    original = count(child, parent, groups, groups, split)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    both = np.kron(np.eye(2), rotation).astype(np.float32)
    within = [2, 0, 1, 5, 3, 4]
    for mapped in (
        (child[:, within], parent[:, within]),
        (child @ both, parent @ both),
        (child * np.float32(0.25), parent * np.float32(0.25)),
        (child + np.float32(2), parent - np.float32(1)),
    ):
        assert_equal(count(*mapped, groups, groups, split), original)
    order = generator.permutation(150)
    place = np.argsort(order)
    moved = Split(*(place[rows] for rows in split))
    assert_equal(count(child[order], parent[order], groups, groups, moved), original)


def test_counts_do_not_depend_on_threads() -> None:
    case = case_of(360, 8, 12, (3, 3))
    # Equal rows have many equally short trees; the same one must be found each time.
    for layer in case[:2]:
        layer[:] = np.tile(layer[:90], (4, 1))
    found = []
    for number in (1, 2, 3):
        with limited_threads(number):
            found += [count_blocks(*case), count_blocks(*case)]
    for other in found[1:]:
        assert_equal(found[0], other)
    assert (found[0].crossing > 20).all()


def test_counts_do_not_depend_on_the_memory_limit(count: Count) -> None:
    case = case_of(120, 40, 50, (9, 4))
    case[1][:, case[3][1]] *= 100  # the rest of this group has its own base
    whole = count(*case)
    with pytest.raises(ValueError, match=r"memory_limit 1000: .* at least (\d+) bytes") as error:
        count(*case, memory_limit=1000)
    least = int(str(error.value).split("least ")[1].split()[0])
    with pytest.raises(ValueError, match="memory_limit"):
        count(*case, memory_limit=least - 1)
    for limit in (least, least + 2**17, least + 2**20):
        assert_equal(count(*case, memory_limit=limit), whole)


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from mint.gmi.bootstrap import Split
from mint.gmi.cpu.engine import count_blocks
def run(rows, limit):
    generator = np.random.default_rng(0)
    child = generator.normal(size=(rows, 200)).astype(np.float32)
    parent = generator.normal(size=(rows, 300)).astype(np.float32)
    order, m = generator.permutation(rows), rows // 3
    split = Split(order[:rows - 2 * m], order[rows - 2 * m:rows - m], order[rows - m:])
    groups = np.array_split(np.arange(200), 40), np.array_split(np.arange(300), 3)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = peak()
    count_blocks(child, parent, *groups, split, memory_limit=limit)
    return peak() - before
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
run(30, 2**30)
print(*(run(1500, int(limit)) for limit in sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_stays_within_the_limit() -> None:
    limits = 40 * 2**20, 120 * 2**20
    command = [sys.executable, "-c", _MEASURE, *map(str, limits)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for limit, used in zip(limits, printed.split(), strict=True):
        assert limit / 2 < int(used) < limit
