"""One bootstrap of all blocks against the same thing put together from scipy's parts."""

import subprocess
import sys
from collections.abc import Iterator
from typing import TypedDict

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from mint.gmi.cpu.engine import Counts, Split, count_blocks

Floats = NDArray[np.float32]


class _Options(TypedDict):
    scaled: bool
    one_to_one: bool
    conditional: bool


@pytest.fixture
def threads() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


def _activations(n: int, filters: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(n, 4)) @ generator.normal(size=(4, filters))
    values = hidden + generator.normal(size=(n, filters))
    # Skewed as behind a ReLU, but no two points are the same.
    return np.maximum(values, 0.01 * values).astype(np.float32)


def _split(rows: int, seed: int, extra: int = 0) -> Split:
    order = np.random.default_rng(seed).permutation(rows)
    m = (rows - extra) // 3
    return Split(order[: m + extra], order[m + extra : 2 * m + extra], order[-m:])


def _groups(filters: int, count: int) -> list[NDArray[np.int64]]:
    """Groups that are neither contiguous, nor of one size, nor cover all filters."""
    labels = np.arange(filters) % count
    return [np.flatnonzero(labels == group)[: 2 + group] for group in range(count)]


def _reference(
    child: Floats,
    parent: Floats,
    child_groups: list[NDArray[np.int64]],
    parent_groups: list[NDArray[np.int64]],
    split: Split,
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
) -> Counts:
    """Return what count_blocks should, in float64 and one tree after the other."""

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
            # To scipy what is next to zero is no edge.
            tree = minimum_spanning_tree(distances / distances.mean() + 1e-3).tocoo()
            degree = np.bincount(np.concatenate([tree.row, tree.col]))
            counts[0, i, j] = (in_first[tree.row] != in_first[tree.col]).sum()
            counts[1, i, j] = (degree * (degree - 1) // 2).sum()
    return Counts(*counts)


def _assert_equal(one: Counts, other: Counts) -> None:
    assert np.array_equal(one.crossing, other.crossing)
    assert np.array_equal(one.adjacent, other.adjacent)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("one_to_one", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_counts_are_those_of_scipy(
    scaled: bool, one_to_one: bool, conditional: bool, extra: int
) -> None:
    for seed in range(3):
        child, parent = _activations(210 + seed, 20, seed), _activations(210 + seed, 33, seed + 10)
        given = (child, parent, _groups(20, 5), _groups(33, 4), _split(210, seed, extra))
        options: _Options = {
            "scaled": scaled,
            "one_to_one": one_to_one,
            "conditional": conditional,
        }
        _assert_equal(count_blocks(*given, **options), _reference(*given, **options))


@pytest.mark.parametrize("rows", [5, 6, 7, 8, 9, 10])
def test_a_handful_of_rows(rows: int) -> None:
    child, parent = _activations(rows, 6, 0), _activations(rows, 7, 1)
    extra = (rows - 3) % 3 if rows > 5 else 2
    given = (child, parent, _groups(6, 2), _groups(7, 3), _split(rows, 0, extra))
    _assert_equal(count_blocks(*given), _reference(*given))


def test_one_parent_group_leaves_no_others() -> None:
    child, parent = _activations(120, 6, 0), _activations(120, 7, 1)
    given = (child, parent, _groups(6, 2), [np.arange(7)], _split(120, 0))
    found = count_blocks(*given)
    _assert_equal(found, _reference(*given))
    _assert_equal(found, count_blocks(*given, conditional=False))


@pytest.mark.parametrize("scales", [(1e-20, 1e15), (1e15, 1e-20), (1e-20, 1e-20), (1e15, 1e15)])
def test_scale_of_a_block_does_not_matter(scales: tuple[float, float]) -> None:
    child, parent = _activations(150, 8, 0), _activations(150, 12, 1)
    groups, parent_groups, split = _groups(8, 3), _groups(12, 3), _split(150, 0)
    # One child group, and one parent group that is then next to all or nothing of its layer.
    child[:, groups[1]] *= np.float32(scales[0])
    parent[:, parent_groups[2]] *= np.float32(scales[1])
    given = (child, parent, groups, parent_groups, split)
    _assert_equal(count_blocks(*given), _reference(*given))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_a_scale_common_to_all_does_not_matter_where_blocks_are_not_scaled(scale: float) -> None:
    child, parent = _activations(150, 8, 0), _activations(150, 12, 1)
    given = (child * np.float32(scale), parent * np.float32(scale), _groups(8, 3), _groups(12, 3))
    split = _split(150, 0)
    found = count_blocks(*given, split, scaled=False)
    _assert_equal(found, _reference(*given, split, scaled=False))


def test_dead_filters_and_groups() -> None:
    child, parent = _activations(150, 8, 0), _activations(150, 12, 1)
    groups, parent_groups = _groups(8, 3), _groups(12, 3)
    child[:, groups[0]] = 0.1
    parent[:, parent_groups[1]] = 3
    given = (child, parent, groups, parent_groups, _split(150, 0))
    _assert_equal(count_blocks(*given), _reference(*given))


def test_nothing_varies() -> None:
    child, parent = np.ones((30, 4), np.float32), np.full((30, 6), 0.3, np.float32)
    groups, parent_groups, split = _groups(4, 2), _groups(6, 2), _split(30, 0)
    for scaled in (True, False):
        found = count_blocks(child, parent, groups, parent_groups, split, scaled=scaled)
        assert (found.crossing > 0).all()
        assert (found.crossing < 20).all()


def test_equal_rows_give_the_same_counts_every_time(threads: None) -> None:
    child, parent = _activations(90, 8, 0), _activations(90, 12, 1)
    child, parent = np.tile(child, (4, 1)), np.tile(parent, (4, 1))
    given = (child, parent, _groups(8, 3), _groups(12, 3), _split(360, 0))
    found = []
    for count in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(count)
        found += [count_blocks(*given), count_blocks(*given)]
    for other in found[1:]:
        _assert_equal(found[0], other)
    assert (found[0].crossing > 20).all()


def test_threads_change_nothing(threads: None) -> None:
    child, parent = _activations(400, 40, 0), _activations(400, 50, 1)
    given = (child, parent, _groups(40, 9), _groups(50, 11), _split(400, 0))
    found = []
    for count in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(count)
        found.append(count_blocks(*given))
    _assert_equal(*found)


def test_memory_changes_nothing_but_the_chunks() -> None:
    child, parent = _activations(400, 40, 0), _activations(400, 50, 1)
    given = (child, parent, _groups(40, 9), _groups(50, 4), _split(400, 0))
    parent[:, given[3][1]] *= 100  # a group whose others have a matrix of their own
    seen: list[tuple[int, int]] = []
    whole = count_blocks(*given, on_column=lambda *step: seen.append(step))
    assert seen == [(done, 4) for done in range(1, 5)]
    with pytest.raises(ValueError, match=r"memory_limit 1000: .* need (\d+) bytes") as refusal:
        count_blocks(*given, memory_limit=1000)
    least = int(str(refusal.value).split("need ")[1].split()[0])
    with pytest.raises(ValueError, match="memory_limit"):
        count_blocks(*given, memory_limit=least - 1)
    for limit in (least, least + 2**20, 3 * 2**20):
        seen.clear()
        found = count_blocks(*given, memory_limit=limit, on_column=lambda *s: seen.append(s))
        assert len(seen) == seen[-1][0] == seen[-1][1]
        _assert_equal(whole, found)
    seen.clear()
    count_blocks(*given, memory_limit=least, on_column=lambda *step: seen.append(step))
    assert len(seen) == 4 * 9


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from mint.gmi.cpu.engine import Split, count_blocks
def run(rows, limit):
    generator = np.random.default_rng(0)
    child = generator.normal(size=(rows, 200)).astype(np.float32)
    parent = generator.normal(size=(rows, 300)).astype(np.float32)
    order, m = generator.permutation(rows), rows // 3
    split = Split(order[:rows - 2 * m], order[rows - 2 * m:rows - m], order[rows - m:])
    groups = np.array_split(np.arange(200), 40), np.array_split(np.arange(300), 3)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak()
    count_blocks(child, parent, *groups, split, memory_limit=limit)
    return peak() - before
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
run(30, 2**30)
print(run(1500, int(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("limit", [40 * 2**20, 120 * 2**20])
def test_memory_stays_within_the_limit(limit: int) -> None:
    command = [sys.executable, "-c", _MEASURE, str(limit)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < limit
    assert grown > limit / 2


def test_an_error_of_the_caller_ends_the_work() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    child, parent = _activations(100, 8, 0), _activations(100, 12, 1)
    with pytest.raises(KeyboardInterrupt):
        count_blocks(child, parent, _groups(8, 3), _groups(12, 3), _split(100, 0), on_column=stop)


def test_what_does_not_fit_is_refused() -> None:
    child, parent, split = _activations(30, 4, 0), _activations(30, 6, 1), _split(30, 0)
    groups, parent_groups = _groups(4, 2), _groups(6, 2)
    first, second, reference = split
    wrong = [
        ((child[:20], parent, groups, parent_groups, split), "share rows"),
        ((child, parent, groups, parent_groups, Split(first, second, reference[1:])), "one size"),
        ((child, parent, groups, parent_groups, Split(first, second, first)), "differ"),
        ((child, parent, groups, parent_groups, Split(first, second, reference + 30)), "0 to 29"),
        ((child, parent, [np.array([4])], parent_groups, split), "child group 0"),
        ((child, parent, groups, [groups[0], np.array([1, 1])], split), "parent group 1"),
    ]
    for given, message in wrong:
        with pytest.raises(ValueError, match=message):
            count_blocks(*given)
    assert count_blocks(child, parent, [], parent_groups, split).crossing.shape == (0, 2)
