"""The estimator against closed forms, and the kernel against scipy's trees."""

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from mint.information import gmi_scores, squared_distances, unit_variance
from mint.mst import cross_edges

# GMI = E_p[tanh(i / 2)] of two Gaussians of correlation rho, i the information density.
GAUSSIAN_GMI = {0.0: 0.0, 0.3: 0.02310, 0.5: 0.06833, 0.7: 0.15344, 0.9: 0.35173}


def _correlated(rho: float, n: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    x = generator.normal(size=(n, 1))
    y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=(n, 1))
    return x, y


@pytest.mark.parametrize("rho", GAUSSIAN_GMI)
def test_conditional_gaussian(rho: float) -> None:
    generator = np.random.default_rng(int(10 * rho))
    x, y = _correlated(rho, 3000, generator)
    z = generator.normal(size=(3000, 1))
    parent = np.hstack([y + z, z]).astype(np.float32)
    child = (x - 2 * z).astype(np.float32)
    value = gmi_scores(child, parent, 1, 2, bootstraps=20, seed=0).value[0, 0]
    # At this size the estimate falls up to a quarter short of strong dependence.
    assert 0.75 * GAUSSIAN_GMI[rho] - 0.02 <= value <= GAUSSIAN_GMI[rho] + 0.02


def test_conditional_independence_of_two_readers() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(1500, 1))
    child = (z + 0.5 * generator.normal(size=(1500, 1))).astype(np.float32)
    reader = z + 0.5 * generator.normal(size=(1500, 1))
    parent = np.hstack([reader, z]).astype(np.float32)
    value = gmi_scores(child, parent, 1, 2, bootstraps=20, seed=0).value[0, 0]
    assert abs(value) < 0.03


def test_copy_is_found_among_hundreds_of_others() -> None:
    generator = np.random.default_rng(0)
    parent = generator.normal(size=(1500, 200)).astype(np.float32)
    child = np.hstack([parent[:, :10], generator.normal(size=(1500, 10))]).astype(np.float32)
    value = gmi_scores(child, parent, 2, 20, bootstraps=4, seed=0).value
    assert value[0, 0] > 0.25
    assert np.abs(value[1]).max() < 0.1


def test_same_seed_same_scores_and_no_other() -> None:
    generator = np.random.default_rng(0)
    child, parent = (generator.normal(size=(90, 6)).astype(np.float32) for _ in range(2))
    scores = [gmi_scores(child, parent, 2, 3, bootstraps=2, seed=s).value for s in (0, 0, 1)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_dead_filters_do_no_harm() -> None:
    generator = np.random.default_rng(0)
    parent = generator.normal(size=(90, 6)).astype(np.float32)
    child = parent.copy()
    child[:, :3] = 1
    parent[:, :2] = 0
    value = gmi_scores(child, parent, 2, 3, bootstraps=3, seed=0).value
    assert np.isfinite(value).all()


def test_cross_edges_are_those_of_scipys_tree() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        n = int(generator.integers(6, 60))
        child, parent = (
            squared_distances(generator.normal(size=(n, 3)).astype(np.float32)) for _ in range(2)
        )
        in_first = generator.random(n) < 0.5
        tree = minimum_spanning_tree((child + parent).astype(np.float64)).tocoo()
        expected = int((in_first[tree.row] != in_first[tree.col]).sum())
        assert cross_edges(child[None], parent, in_first).tolist() == [expected]


def test_equal_points_are_joined() -> None:
    zeros = np.zeros((1, 9, 9), np.float32)
    in_first = np.arange(9) < 5
    # Any tree will do where all points are one, but it has to be a tree.
    assert 1 <= int(cross_edges(zeros, zeros[0], in_first)[0]) <= 8


def test_distances_of_points_that_are_equal_or_known() -> None:
    points = np.array([[0, 0], [3, 4], [3, 4]], np.float32)
    assert squared_distances(points).tolist() == [[0, 25, 25], [25, 0, 0], [25, 0, 0]]


def test_unit_variance_scales_the_block_as_a_whole() -> None:
    block = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * [1, 2, 3] + 7
    scaled = unit_variance(block.astype(np.float32))
    assert scaled.var(0).sum() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(scaled[:, 2], block[:, 2])[0, 1] == pytest.approx(1)
    assert not unit_variance(np.full((9, 2), 3, np.float32)).any()
