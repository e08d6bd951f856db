"""The compiled trees against scipy's, on the same float32 matrices."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from mint.gmi.cpu.distances import Matrices, bound_rows, empty_matrices, full_matrix, gather
from mint.gmi.cpu.groups import Layer
from mint.gmi.cpu.mst import count_edges, star_seeds


def _matrices(blocks: list[NDArray[np.float32]], scale: float) -> Matrices:
    n = len(blocks[0])
    stack = empty_matrices(len(blocks), n)
    for block, matrix in zip(blocks, stack.unstack(), strict=True):
        points = gather(Layer.of(block), np.arange(n), np.arange(block.shape[1]), 1.0)
        matrix.distances[:] = full_matrix(*points)
        bound_rows(n, 0, len(matrix.distances), scale, matrix)
    return stack


def _count(
    child: Matrices,
    parent: Matrices,
    in_first: NDArray[np.bool_],
    scale: float,
    seeds: NDArray[np.int32],
) -> NDArray[np.int64]:
    found = np.empty((2, len(child.distances)), np.int64)
    count_edges(child, parent.unstack()[0], in_first, scale, seeds, *found)
    return found


def _scipy_count(distances: NDArray[np.float32], in_first: NDArray[np.bool_]) -> tuple[int, int]:
    # scipy ignores edges of length zero, so all edges are made longer.
    tree = minimum_spanning_tree(distances.astype(np.float64) + 1).tocoo()
    degree = np.bincount(np.concatenate([tree.row, tree.col]), minlength=len(in_first))
    crossing = (in_first[tree.row] != in_first[tree.col]).sum()
    return int(crossing), int((degree * (degree - 1) // 2).sum())


def _activations(generator: np.random.Generator, n: int, k: int) -> NDArray[np.float32]:
    hidden = generator.normal(size=(n, 3)) @ generator.normal(size=(3, k))
    return np.maximum(hidden + generator.normal(size=(n, k)), -0.5).astype(np.float32)


@pytest.mark.parametrize("case", range(20))
def test_counts_equal_those_of_scipy(case: int) -> None:
    generator = np.random.default_rng(case)
    n = int(generator.integers(4, 260))
    child = [_activations(generator, n, int(generator.integers(3, 20))) for _ in range(5)]
    parent = _activations(generator, n, int(generator.integers(3, 60)))
    in_first = generator.permutation(n) < n // 2
    # From bounds that exclude nearly nothing to bounds that are all zero.
    scale = float(10.0 ** generator.integers(-4, 5))
    child_matrices, parent_matrices = _matrices(child, scale), _matrices([parent], scale)
    found = _count(child_matrices, parent_matrices, in_first, scale, star_seeds(n))
    for block, crossing, adjacent in zip(child_matrices.distances, *found, strict=True):
        total = block[:n, :n] + parent_matrices.distances[0, :n, :n]
        assert np.array_equal(total, total.T)
        assert (crossing, adjacent) == _scipy_count(total, in_first)


def test_counts_do_not_depend_on_the_seed_trees() -> None:
    generator = np.random.default_rng(0)
    n, scale = 150, 20.0
    child = _matrices([_activations(generator, n, 4) for _ in range(6)], scale)
    parent = _matrices([_activations(generator, n, 30)], scale)
    in_first = np.arange(n) < 70
    seeds = star_seeds(n)
    found = [_count(child, parent, in_first, scale, seeds) for _ in range(2)]
    path = star_seeds(n)
    path[1, :, 1:] = np.arange(n - 1)
    found.append(_count(child, parent, in_first, scale, path))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_equal_points_are_joined_by_edges() -> None:
    # Four places in a row, two for each sample: one edge joins the samples, whatever the ties.
    places = np.arange(4, dtype=np.float32)[:, None] * 10
    points = np.repeat(places, 25, axis=0)
    child, parent = _matrices([points], 1.0), _matrices([points], 1.0)
    in_first = np.repeat([True, True, False, False], 25)
    crossing, adjacent = _count(child, parent, in_first, 1.0, star_seeds(100))[:, 0]
    assert crossing == 1
    assert 98 <= adjacent <= 99 * 98 // 2
    # One point of each place is in the second sample; it has at least one crossing edge.
    in_first = np.arange(100) % 25 > 0
    crossing, _ = _count(child, parent, in_first, 1.0, star_seeds(100))[:, 0]
    assert 4 <= crossing <= 99


@pytest.mark.parametrize("n", [63, 64, 65, 128, 129])
def test_sizes_at_the_edges_of_chunks(n: int) -> None:
    generator = np.random.default_rng(n)
    child = _matrices([_activations(generator, n, 5)], 10.0)
    parent = _matrices([_activations(generator, n, 9)], 10.0)
    in_first = np.arange(n) % 2 == 0
    total = child.distances[0, :n, :n] + parent.distances[0, :n, :n]
    found = _count(child, parent, in_first, 10.0, star_seeds(n))[:, 0]
    assert tuple(found) == _scipy_count(total, in_first)
