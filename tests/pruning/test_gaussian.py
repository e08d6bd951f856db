"""The closed form of Gaussian information agrees with what it stands for."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from mint.config.schema import Experiment
from mint.data.loading import Dataset
from mint.models.mlp import mlp
from mint.pruning.gaussian import gaussian_information
from mint.training.loop import train
from mint.trial.in_memory import score_network

Floats = NDArray[np.float64]

# Groups need not be contiguous, nor of equal size.
CHILD_GROUPS = [np.array([3, 0]), np.array([1, 4, 2])]
PARENT_GROUPS = [np.array([5, 2]), np.array([0]), np.array([1, 3, 4])]


def _layer(positions: int = 1) -> tuple[Floats, Floats]:
    """Return a weight (positions, 5, 6) and correlated activations (rows, 6)."""
    generator = np.random.default_rng(0)
    activations = generator.normal(size=(300, 6)) @ generator.normal(size=(6, 6))
    return generator.normal(size=(positions, 5, 6)), activations + generator.normal(size=6)


def _information(weight: Floats, activations: Floats, **settings: Any) -> Floats:
    groups = {"child_groups": CHILD_GROUPS, "parent_groups": PARENT_GROUPS}
    chosen = {"noise": 0.1, "damping": 1e-9, "conditional": True, **groups, **settings}
    values: Floats = gaussian_information(
        torch.from_numpy(weight), torch.from_numpy(activations), **chosen
    ).numpy()
    return values


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("damping", [1e-9, 0.3])
@pytest.mark.parametrize("positions", [1, 4])
def test_information_is_that_of_the_joint_covariance(
    conditional: bool, damping: float, positions: int
) -> None:
    weight, activations = _layer(positions)
    found = _information(weight, activations, damping=damping, conditional=conditional)
    covariance = np.kron(np.eye(positions), np.cov(activations.T, bias=True))
    parents, flat = len(covariance), np.moveaxis(weight, 0, 1).reshape(5, -1)
    level = 0.1 * (flat @ covariance @ flat.T).diagonal().mean()
    for i, j in product(range(2), range(3)):
        own = np.concatenate([PARENT_GROUPS[j] + 6 * position for position in range(positions)])
        others = np.setdiff1d(np.arange(parents), own)
        read = flat[CHILD_GROUPS[i]]
        if conditional:  # what the other parents contribute to the pre-activations is known
            read[:, others] = 0
        # Jointly: the pre-activations, and the parents without and with noise.
        maps = np.vstack([read, np.eye(parents), np.eye(parents)])
        joint = maps @ covariance @ maps.T
        child, exact, noisy = np.split(np.arange(len(joint)), [len(read), len(read) + parents])
        joint[child, child] += level
        joint[noisy, noisy] += damping * covariance.diagonal().mean()
        about, given = (exact[own], noisy[others]) if conditional else (noisy[own], noisy[:0])

        def entropy(*variables: NDArray[np.int64], joint: Floats = joint) -> float:
            """Return the entropy, up to what the number of variables adds."""
            of = np.concatenate(variables)
            return float(np.linalg.slogdet(joint[np.ix_(of, of)])[1]) / 2

        expected = entropy(child, given) + entropy(about, given)
        expected -= entropy(child, about, given) + entropy(given)
        assert found[i, j] == pytest.approx(expected, rel=1e-5)


def test_to_first_order_it_is_the_error_that_a_least_squares_refit_leaves() -> None:
    (weight,), activations = _layer()
    centred = activations - activations.mean(0)
    outputs = centred @ weight.T
    noise = 1e6 * outputs.var(0).mean()
    found = _information(weight[None], activations, noise=1e6)
    for i, j in product(range(2), range(3)):
        rest = np.delete(centred, PARENT_GROUPS[j], axis=1)
        target = outputs[:, CHILD_GROUPS[i]]
        refit = np.linalg.lstsq(rest, target, rcond=None)[0]
        error = ((target - rest @ refit) ** 2).sum(1).mean()
        assert found[i, j] == pytest.approx(error / (2 * noise), rel=1e-4)


def test_single_weights_are_ordered_as_by_optimal_brain_compression() -> None:
    (weight,), activations = _layer()
    singles = {"child_groups": np.arange(5)[:, None], "parent_groups": np.arange(6)[:, None]}
    found = _information(weight[None], activations, **singles)
    inverse = np.linalg.inv(np.cov(activations.T))
    saliency = weight**2 / inverse.diagonal()
    np.testing.assert_array_equal(found.argsort(axis=None), saliency.argsort(axis=None))


def test_constant_and_duplicate_parents_may_make_the_covariance_singular() -> None:
    weight, activations = _layer()
    # A dead unit has no information.
    dead = activations.copy()
    dead[:, 0] = 3
    found = _information(weight, dead)
    assert np.abs(found[:, 1]).max() < 1e-12
    # A duplicate in another group leaves next to nothing to know, but not without the condition.
    copied = activations.copy()
    copied[:, 0] = copied[:, 1]
    assert _information(weight, copied)[:, 1].max() < 1e-6
    assert _information(weight, copied, conditional=False)[:, 1].min() > 1e-3
    # Fewer rows than parents: the others explain every parent.
    few = _information(weight, activations[:4], damping=1e-6)
    assert (few >= 0).all()
    assert few.max() < 0.01
    for constant in (np.zeros_like(weight), weight):
        silent = _information(constant, np.ones_like(activations))
        np.testing.assert_array_equal(silent, np.zeros((2, 3)))


@pytest.mark.parametrize("conditional", [True, False])
def test_information_does_not_depend_on_units_or_on_the_order_of_filters(conditional: bool) -> None:
    weight, activations = _layer()
    expected = _information(weight, activations, conditional=conditional, damping=0.01)
    assert expected.min() > 0
    # A common unit of the parents, or of the children, and a shift.
    for other in (
        _information(weight, 7 * activations + 1, conditional=conditional, damping=0.01),
        _information(-5 * weight, activations, conditional=conditional, damping=0.01),
    ):
        np.testing.assert_allclose(other, expected, rtol=1e-9)
    # Units of single parents, and any basis of a group, as long as the damping is negligible.
    exact = _information(weight, activations, conditional=conditional)
    basis = np.diag([2.0, 1, 0.5, 1, 1, 3])
    basis[5, 2] = 0.7
    turned = _information(
        weight @ np.linalg.inv(basis).T, activations @ basis, conditional=conditional
    )
    np.testing.assert_allclose(turned, exact, rtol=1e-5)


def _of_network(network: nn.Module, images: torch.Tensor, groups: int) -> Floats:
    scores = score_network(network, images, criterion="mint-gaussian", groups=groups)
    return next(iter(scores.values())).value


def test_kernel_positions_and_columns_of_a_flattened_parent_count_one_by_one() -> None:
    torch.manual_seed(0)
    images = torch.randn(50, 3, 2, 2)
    parent = nn.Conv2d(3, 4, 1)
    child = nn.Conv2d(4, 6, 2)
    flattened = nn.Linear(16, 6)
    with torch.no_grad():
        flattened.weight.copy_(child.weight.flatten(1))
    by_kernel = _of_network(nn.Sequential(parent, child), images, groups=2)
    by_column = _of_network(nn.Sequential(parent, nn.Flatten(), flattened), images, groups=2)
    np.testing.assert_allclose(by_kernel, by_column)
    activations = parent(images).mean((2, 3)).detach().double().numpy()
    weight = np.moveaxis(child.weight.detach().double().numpy().reshape(6, 4, 4), 2, 0)
    halves = {
        "child_groups": np.arange(6).reshape(2, 3),
        "parent_groups": np.arange(4).reshape(2, 2),
    }
    expected = _information(weight, activations, damping=0.01, **halves)
    np.testing.assert_allclose(by_kernel, expected, rtol=1e-4)


def test_filters_of_a_grouped_convolution_know_only_the_parents_that_they_read() -> None:
    torch.manual_seed(0)
    grouped = nn.Conv2d(4, 6, 2, groups=2)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), grouped)
    images = torch.randn(50, 3, 3, 3)
    found = _of_network(network, images, groups=2)
    assert (np.diag(found) > 0).all()
    np.testing.assert_allclose(found[[0, 1], [1, 0]], 0, atol=1e-12)
    dense = nn.Conv2d(4, 6, 2)
    with torch.no_grad():
        dense.weight.zero_()
        for half in range(2):
            own = slice(3 * half, 3 * half + 3), slice(2 * half, 2 * half + 2)
            dense.weight[own] = grouped.weight[own[0]]
    np.testing.assert_allclose(_of_network(nn.Sequential(network[0], dense), images, 2), found)


def test_disjoint_halves_of_the_images_rank_blocks_alike(
    quick: Experiment, digits_dataset: Dataset
) -> None:
    torch.manual_seed(0)
    network = mlp((64, 100, 60, 10))
    train(network, digits_dataset, quick.training, seed=0)
    ((images, _),) = digits_dataset.train.batches(2000)
    first, second = (_of_network(network, part, groups=20) for part in (images[::2], images[1::2]))
    assert stats.spearmanr(first.ravel(), second.ravel()).statistic > 0.9
