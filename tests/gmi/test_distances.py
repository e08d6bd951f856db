"""Distances against scipy's, and bounds that never rule out what they should not."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from mint.gmi.cpu.distances import (
    block_matrix,
    bound_rows,
    empty_matrices,
    full_matrix,
    gather,
    gathered_nbytes,
    shape_of,
)
from mint.gmi.cpu.simd import LANES


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 3), (65, 17), (130, 0), (200, 40)])
def test_distances_are_those_of_scipy(n: int, k: int) -> None:
    table = np.random.default_rng(n).normal(size=(n + 5, k + 3)).astype(np.float32)
    rows, columns = np.arange(n)[::-1].copy() + 2, np.arange(k) + 1
    mean = table.mean(0, dtype=np.float64)
    by_point, by_feature = gather(table, rows, columns, mean, 0.5)
    assert by_point.nbytes + by_feature.nbytes == gathered_nbytes(n, k)
    found = full_matrix(by_point, by_feature)[:n, :n]
    chosen = table[np.ix_(rows, columns)] * 0.5
    expected = cdist(chosen, chosen, "sqeuclidean") if k else np.zeros((n, n))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


def test_group_and_all_others() -> None:
    generator = np.random.default_rng(0)
    n = 77
    table = generator.normal(size=(2 * n, 9)).astype(np.float32)
    rows, own_rows = np.arange(n) + n, np.arange(n)
    group, mean = np.array([2, 5]), table.mean(0, dtype=np.float64)
    everything = full_matrix(*gather(table, own_rows, np.arange(9), mean, 1.0))
    matrices = empty_matrices(1, n)
    parts = [part[0] for part in matrices]
    # Y scaled by 2, Z by 3: the distances of all, without Y, at 9 times the square.
    block_matrix(table, rows, own_rows, group, mean, 2.0, everything, 9.0, 9 / 4, 1.0, *parts)
    own = 2 * table[np.ix_(rows, group)]
    others = 3 * np.delete(table[own_rows], group, axis=1)
    expected = cdist(own, own, "sqeuclidean") + cdist(others, others, "sqeuclidean")
    assert np.allclose(parts[0][:n, :n], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 41.7, 1e6, 1e30])
def test_bounds_are_below_and_close(scale: float) -> None:
    n = 100
    matrices = empty_matrices(1, n)
    distances, bounds, chunk_bounds = (part[0] for part in matrices)
    assert matrices.nbytes == shape_of(n).nbytes
    values = 10.0 ** np.random.default_rng(0).uniform(-30, 30, size=distances.shape)
    distances[:] = values
    distances[:, :3] = 0
    bound_rows(n, 0, len(distances), scale, distances, bounds, chunk_bounds)
    exact = np.minimum(distances[:, :n].astype(np.float64) * scale, 255)
    assert (bounds[:, :n] <= exact).all()
    assert (bounds[:, :n] >= np.floor(exact * (1 - 2e-5))).all()
    chunks = bounds.reshape(len(bounds), -1, LANES).min(2)
    assert np.array_equal(chunk_bounds[:, : chunks.shape[1]], chunks)
    assert (chunk_bounds[:, chunks.shape[1] :] == 255).all()
