"""The compiled assignment against scipy's."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from mint.gmi.cpu.linear_assignment import assign
from mint.gmi.cpu.matching import match_points
from mint.gmi.cpu.sizes import padded

Floats = NDArray[np.float32]


def _cost(second: Floats, reference: Floats, partner: NDArray[np.int64]) -> float:
    difference = second.astype(np.float64) - reference[partner]
    return float((difference**2).sum())


def _least(second: Floats, reference: Floats) -> float:
    cost = cdist(second.astype(np.float64), reference.astype(np.float64), "sqeuclidean")
    return float(cost[linear_sum_assignment(cost)].sum())


@pytest.mark.parametrize("case", range(30))
def test_total_equals_that_of_scipy(case: int) -> None:
    generator = np.random.default_rng(case)
    m = int(generator.integers(1, 300))
    k = int(generator.integers(1, 20))
    scale = float(10.0 ** generator.integers(-15, 15))
    second, reference = (
        (generator.standard_t(3, size=(m, k)) * scale).astype(np.float32) for _ in range(2)
    )
    partner = match_points(second, reference)
    assert np.array_equal(np.sort(partner), np.arange(m))
    largest = cdist(second, reference, "sqeuclidean").max()
    least = _least(second, reference)
    assert _cost(second, reference, partner) - least <= m * largest / 2**26 + 1e-6 * least


def test_integers_are_matched_exactly() -> None:
    generator = np.random.default_rng(0)
    second, reference = (
        generator.integers(0, 6, size=(200, 2)).astype(np.float32) for _ in range(2)
    )
    partner = match_points(second, reference)
    assert _cost(second, reference, partner) == _least(second, reference)


def test_samples_far_apart_and_equal_ones() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert np.array_equal(match_points(points, points), np.arange(100))
    assert np.array_equal(match_points(points[::-1].copy(), points), np.arange(100)[::-1])
    shifted = points + np.float32(1000)
    total = _cost(points, shifted, match_points(points, shifted))
    assert total == pytest.approx(_least(points, shifted), rel=1e-5)
    same = np.ones((50, 2), np.float32)
    assert np.array_equal(np.sort(match_points(same, same)), np.arange(50))


def test_total_does_not_depend_on_the_first_duals() -> None:
    generator = np.random.default_rng(0)
    m = 180
    cost = np.zeros((m, padded(m)), np.float32)
    cost[:m, :m] = generator.exponential(size=(m, m))
    rows, columns = linear_sum_assignment(cost[:m, :m])
    least = cost[rows, columns].sum()
    optimal = np.zeros(m)
    assign(cost.copy(), m, optimal)
    for duals in (np.zeros(m), optimal, np.full(m, 1e30), np.full(m, -1e30)):
        found = assign(cost.copy(), m, duals)
        assert cost[rows, found].sum() == pytest.approx(least, rel=1e-6)
