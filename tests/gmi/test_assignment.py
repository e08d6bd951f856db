"""The compiled assignment against scipy's."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from mint.gmi.cpu.assignment import Samples, cross_distances, match, match_others, start_duals


def _cost(
    second: NDArray[np.float32], reference: NDArray[np.float32], partner: NDArray[np.int64]
) -> float:
    difference = second.astype(np.float64) - reference[partner]
    return float((difference**2).sum())


def _least(second: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    cost = cdist(second.astype(np.float64), reference.astype(np.float64), "sqeuclidean")
    return float(cost[linear_sum_assignment(cost)].sum())


@pytest.mark.parametrize("case", range(60))
def test_total_is_that_of_scipy(case: int) -> None:
    generator = np.random.default_rng(case)
    m = int(generator.integers(1, 300))
    k = int(generator.integers(1, 20))
    scale = float(10.0 ** generator.integers(-15, 15))
    second, reference = (
        (generator.standard_t(3, size=(m, k)) * scale).astype(np.float32) for _ in range(2)
    )
    partner = match(second, reference)
    assert np.array_equal(np.sort(partner), np.arange(m))
    largest = cdist(second, reference, "sqeuclidean").max()
    least = _least(second, reference)
    assert _cost(second, reference, partner) - least <= m * largest / 2**26 + 1e-6 * least


def test_whole_numbers_are_matched_exactly() -> None:
    generator = np.random.default_rng(0)
    second, reference = (
        generator.integers(0, 6, size=(200, 2)).astype(np.float32) for _ in range(2)
    )
    assert _cost(second, reference, match(second, reference)) == _least(second, reference)


def test_samples_far_apart_and_equal_ones() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert np.array_equal(match(points, points), np.arange(100))
    assert np.array_equal(match(points[::-1].copy(), points), np.arange(100)[::-1])
    shifted = points + np.float32(1000)
    total = _cost(points, shifted, match(points, shifted))
    assert total == pytest.approx(_least(points, shifted), rel=1e-5)
    same = np.ones((50, 2), np.float32)
    assert np.array_equal(np.sort(match(same, same)), np.arange(50))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        match(np.zeros((3, 2), np.float32), np.zeros((4, 2), np.float32))


def test_a_warm_start_changes_the_work_only() -> None:
    generator = np.random.default_rng(0)
    m = 180
    table = generator.normal(size=(2 * m, 12)).astype(np.float32)
    samples = Samples(table, table.mean(0, dtype=np.float64), np.arange(m), np.arange(m, 2 * m))
    between = cross_distances(samples, np.arange(12), 1.0)
    cold = start_duals(between, m)
    warm = cold.copy()
    match_others(samples, between, warm)
    group = np.array([3, 7])
    others = np.delete(table, group, axis=1)
    least = _least(others[:m], others[m:])
    for duals in (cold, warm, np.full_like(cold, 1e30), np.full_like(cold, -1e30)):
        partner = match_others(samples, between, duals, group, scale=1.0, share=1.0)
        assert _cost(others[:m], others[m:], partner) == pytest.approx(least, rel=1e-6)


def test_nearest_neighbours() -> None:
    generator = np.random.default_rng(0)
    m = 90
    table = generator.normal(size=(2 * m, 5)).astype(np.float32)
    samples = Samples(table, np.zeros(5), np.arange(m), np.arange(m, 2 * m))
    between = cross_distances(samples, np.arange(5), 1.0)
    duals = start_duals(between, m)
    group = np.array([1])
    found = match_others(samples, between, duals, group, scale=1.0, share=1.0, one_to_one=False)
    others = np.delete(table, group, axis=1)
    assert np.array_equal(found, cdist(others[:m], others[m:]).argmin(1))
