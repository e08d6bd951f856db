"""Distances against scipy's, and bounds that are never too high."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from mint.gmi.cpu.distances import (
    bound_rows,
    empty_matrices,
    full_matrix,
    gather,
    write_group,
)
from mint.gmi.cpu.groups import Group, Layer
from mint.gmi.cpu.sizes import LANES, matrix_nbytes


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 3), (65, 17), (130, 0), (200, 40)])
def test_distances_equal_those_of_scipy(n: int, k: int) -> None:
    table = np.random.default_rng(n).normal(size=(n + 5, k + 3)).astype(np.float32)
    rows, columns = np.arange(n)[::-1].copy() + 2, np.arange(k) + 1
    by_point, by_feature = gather(Layer.of(table), rows, columns, 0.5)
    found = full_matrix(by_point, by_feature)[:n, :n]
    chosen = table[np.ix_(rows, columns)] * 0.5
    expected = cdist(chosen, chosen, "sqeuclidean") if k else np.zeros((n, n))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


def test_distances_of_a_group_and_the_rest() -> None:
    generator = np.random.default_rng(0)
    n = 77
    table = generator.normal(size=(2 * n, 9)).astype(np.float32)
    layer = Layer.of(table)
    rows, own_rows, columns = np.arange(n) + n, np.arange(n), np.array([2, 5])
    base = full_matrix(*gather(layer, own_rows, np.arange(9), 1.0))
    (matrix,) = empty_matrices(1, n).unstack()
    # The group scaled by 2 and the rest by 3: 9 times the base less the group.
    write_group(layer, Group(0, columns, 2.0, 9.0, 9 / 4), rows, own_rows, base, 1.0, matrix)
    own = 2 * table[np.ix_(rows, columns)]
    rest = 3 * np.delete(table[own_rows], columns, axis=1)
    expected = cdist(own, own, "sqeuclidean") + cdist(rest, rest, "sqeuclidean")
    assert np.allclose(matrix.distances[:n, :n], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 41.7, 1e6, 1e30])
def test_bounds_are_below_and_close(scale: float) -> None:
    n = 100
    (matrix,) = empty_matrices(1, n).unstack()
    distances, bounds, chunk_bounds = matrix
    assert sum(part.nbytes for part in matrix) == matrix_nbytes(n)
    distances[:] = 10.0 ** np.random.default_rng(0).uniform(-30, 30, size=distances.shape)
    distances[:, :3] = 0
    bound_rows(n, 0, len(distances), scale, matrix)
    exact = np.minimum(distances[:, :n].astype(np.float64) * scale, 255)
    assert (bounds[:, :n] <= exact).all()
    assert (bounds[:, :n] >= np.floor(exact * (1 - 2e-5))).all()
    chunks = bounds.reshape(len(bounds), -1, LANES).min(2)
    assert np.array_equal(chunk_bounds[:, : chunks.shape[1]], chunks)
    assert (chunk_bounds[:, chunks.shape[1] :] == 255).all()
