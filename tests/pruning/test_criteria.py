"""Criteria give the scores that were computed by hand for a small layer."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from mint.config.estimate import EstimateConfig
from mint.config.schema import CRITERIA
from mint.errors import InputError
from mint.gmi.estimator import contiguous_groups, gmi_scores
from mint.models.layers import LayerPair
from mint.models.tracing import trace
from mint.pruning.criteria import FUNCTIONS, CriterionInputs, score
from mint.pruning.grouping import PairGroups
from mint.pruning.scores import BlockScores
from mint.trial.in_memory import score_network

# The child's weight, in 2 x 2 blocks of 2 x 2 weights.
WEIGHT = [[1, -2, 3, 0], [0, 1, -1, 2], [4, 0, 0, -1], [1, 1, 1, 0.5]]
SCALE = [-3, 1, 2, 0.5]
PARENT_ACTIVATIONS = [[1, 0, -2, 0], [1, 0, 2, 1]]  # mean absolute values 1, 0, 2, 0.5

EXPECTED = {
    "block-magnitude": [[1, 1.5], [1.5, 0.625]],
    "magnitude": [[1, 2, 3, 0], [0, 1, 1, 2], [4, 0, 0, 1], [1, 1, 1, 0.5]],
    "l1-filters": [[6], [4], [5], [3.5]],
    "bn-scale": [[3], [1], [2], [0.5]],
    # Sums of the blocks 0, 4, 6 and 0.5 with a gradient of ones.
    "taylor": [[0, 16], [36, 0.25]],
    "activation-magnitude": [[0.25, 2.25], [1.25, 0.6875]],
}


def _linear_pair() -> tuple[LayerPair, CriterionInputs]:
    network = nn.Sequential(
        OrderedDict(parent=nn.Linear(3, 4), child=nn.Linear(4, 4), norm=nn.BatchNorm1d(4))
    )
    with torch.no_grad():
        network.get_parameter("child.weight").copy_(torch.tensor(WEIGHT))
        network.get_parameter("norm.weight").copy_(torch.tensor(SCALE))
    return _inputs(network, torch.zeros(2, 3))


def _inputs(
    network: nn.Module, example: torch.Tensor, groups: int = 2, seed: int = 0
) -> tuple[LayerPair, CriterionInputs]:
    traced = trace(network, example)
    (pair,) = traced.pairs
    return pair, CriterionInputs(
        traced=traced,
        groups=lambda pair: PairGroups(
            contiguous_groups(pair.child_filters, groups),
            contiguous_groups(pair.parent_filters, groups),
        ),
        estimate=EstimateConfig(bootstraps=1),
        device="cpu",
        memory_limit=2**30,
        seed=seed,
        activations=lambda: {pair.parent_node: np.array(PARENT_ACTIVATIONS, np.float32)},
        magnitudes=lambda: {pair.parent_node: np.abs(np.array(PARENT_ACTIVATIONS, np.float32))},
        gradients=lambda: {pair.weight: torch.ones_like(traced.network.get_parameter(pair.weight))},
    )


def test_every_criterion_of_the_configuration_has_a_function() -> None:
    assert list(FUNCTIONS) == list(CRITERIA)


@pytest.mark.parametrize("criterion", EXPECTED)
def test_scores_are_those_computed_by_hand(criterion: str) -> None:
    pair, inputs = _linear_pair()
    expected = np.array(EXPECTED[criterion])
    scores = FUNCTIONS[criterion](pair, inputs)
    np.testing.assert_allclose(scores.value, expected, rtol=1e-6)
    np.testing.assert_array_equal(scores.sizes, np.full(expected.shape, 16 / expected.size))
    # Random blocks have the same form for the group criteria, and other scores.
    random = FUNCTIONS["random"](pair, inputs)
    assert random.value.shape == (2, 2)
    assert not np.array_equal(random.value, scores.value)


@pytest.mark.parametrize("criterion", ["random", *EXPECTED])
def test_a_mask_of_the_lowest_block_prunes_what_the_criterion_scored(criterion: str) -> None:
    pair, inputs = _linear_pair()
    scores = FUNCTIONS[criterion](pair, inputs)
    child, parent = np.unravel_index(scores.value.argmin(), scores.value.shape)
    kept = np.ones(scores.value.shape, bool)
    kept[child, parent] = False
    rows, columns = (4 // length for length in scores.value.shape)
    expected = np.ones((4, 4), bool)
    expected[child * rows : (child + 1) * rows, parent * columns : (parent + 1) * columns] = False
    np.testing.assert_array_equal(scores.expand(kept), expected)


def _grouped_pair() -> tuple[LayerPair, CriterionInputs]:
    """A grouped convolution: child filters 0 and 1 read parents 0 and 1, the others 2 and 3."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, (1, 2), groups=2))
    weight = torch.arange(1.0, 9).reshape(4, 2, 1, 1)
    with torch.no_grad():
        network.get_parameter("1.weight").copy_(torch.cat([weight, -weight], 3))
    return _inputs(network, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("criterion", "expected", "sizes"),
    [
        ("block-magnitude", [[2.5, 0], [0, 6.5]], [[8, 0], [0, 8]]),
        ("activation-magnitude", [[1, 0], [0, 7.75]], [[8, 0], [0, 8]]),  # 4 / 4, 31 / 4
        ("taylor", [[0, 0], [0, 0]], [[8, 0], [0, 8]]),  # positive and negative weights cancel
        ("l1-filters", [[6], [14], [22], [30]], [[4], [4], [4], [4]]),
        ("magnitude", [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5, 6, 6], [7, 7, 8, 8]], np.ones((4, 4))),
    ],
)
def test_blocks_of_a_grouped_convolution(
    criterion: str, expected: list[list[float]], sizes: list[list[int]]
) -> None:
    pair, inputs = _grouped_pair()
    scores = FUNCTIONS[criterion](pair, inputs)
    np.testing.assert_allclose(scores.value, expected)
    np.testing.assert_array_equal(scores.sizes, sizes)
    assert scores.expand(np.ones(scores.value.shape, bool)).shape == (4, 2, 1, 2)


def test_activation_magnitude_is_the_mean_of_absolute_values_over_rows_and_space() -> None:
    parent, child = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1)
    network = nn.Sequential(parent, nn.Hardtanh(-2, 2), child)
    with torch.no_grad():
        parent.weight.copy_(torch.tensor([1.0, 3]).reshape(2, 1, 1, 1))
        child.weight.copy_(torch.tensor([[1.0, -2], [0.5, 4]]).reshape(2, 2, 1, 1))
    # In every image positive and negative pixels have a mean of 0.
    images = torch.tensor([[1.0, -1, 0.5, -0.5], [-0.5, 0.5, 0, 0]]).reshape(2, 1, 2, 2)
    # Their absolute values sum to 4. Times three and at most two: 2, 2, 1.5, 1.5, 1.5, 1.5, 0, 0.
    read = np.array([4 / 8, 10 / 8])
    expected = np.array([[1, 2], [0.5, 4]]) * read
    scores = score_network(network, images, criterion="activation-magnitude", groups=2)
    np.testing.assert_allclose(scores["2.weight"].value, expected)
    # Of a layer that reads the images: the mean absolute pixel is 1 / 2.
    scores = score_network(network, images, criterion="activation-magnitude", layers=["0"])
    np.testing.assert_allclose(scores["0.weight"].value, [[0.5], [1.5]])


def test_random_scores_are_uniform_and_depend_on_the_seed_alone() -> None:
    network = nn.Sequential(nn.Linear(8, 90), nn.Linear(90, 80))

    def drawn(seed: int) -> NDArray[np.float64]:
        pair, inputs = _inputs(network, torch.zeros(1, 8), groups=80, seed=seed)
        return FUNCTIONS["random"](pair, inputs).value

    first = drawn(0)
    assert first.shape == (80, 80)
    assert stats.kstest(first.ravel(), "uniform").pvalue > 0.01
    assert np.array_equal(first, drawn(0))
    assert abs(np.corrcoef(first.ravel(), drawn(1).ravel())[0, 1]) < 0.05
    with torch.no_grad():
        network.get_parameter("1.weight").mul_(100)
    assert np.array_equal(first, drawn(0))


def test_bn_scale_needs_a_batch_norm() -> None:
    pair, inputs = _grouped_pair()
    with pytest.raises(InputError, match="bn-scale: 1 has no batch norm of its own"):
        FUNCTIONS["bn-scale"](pair, inputs)


def _dependent(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (parent, child) activations; the child's group 0 depends on the parent's group 1."""
    generator = np.random.default_rng(seed)
    parent, child = generator.normal(size=(2, 300, 4))
    child[:, :2] = parent[:, 2:] + 0.1 * child[:, :2]
    return parent.astype(np.float32), child.astype(np.float32)


def _mint_scores(criterion: str, estimate: EstimateConfig) -> BlockScores:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    pair, inputs = _inputs(network, torch.zeros(1, 3))
    parent, child = _dependent()
    activations = {pair.parent_node: parent, pair.child_node: child}
    inputs = replace(inputs, estimate=estimate, activations=lambda: activations)
    return FUNCTIONS[criterion](pair, inputs)


@pytest.mark.parametrize("criterion", ["mint", "mint-unconditional", "random"])
def test_mint_scores_the_dependent_block_highest(criterion: str) -> None:
    scores = _mint_scores(criterion, EstimateConfig(bootstraps=5))
    others = np.delete(scores.value.ravel(), 1)
    margin = scores.value[0, 1] - others.max()
    assert (margin > 0.3) == (criterion != "random")
    assert (scores.bootstraps is None) == (criterion == "random")


def test_mint_keeps_its_bootstraps_and_their_statistics() -> None:
    scores = _mint_scores("mint", EstimateConfig(bootstraps=5))
    assert scores.bootstraps is not None
    assert scores.bootstraps.shape == (5, 2, 2)
    np.testing.assert_array_equal(scores.value, scores.bootstraps.mean(0))
    assert scores.standard_error is not None
    np.testing.assert_allclose(scores.standard_error, scores.bootstraps.std(0, ddof=1) / 5**0.5)
    assert scores.z_score is not None
    assert scores.z_score[0, 1] == scores.z_score.max()


def test_bootstraps_stop_at_the_requested_reliability() -> None:
    def drawn(reliability: float | None) -> BlockScores:
        return _mint_scores("mint", EstimateConfig(bootstraps=20, reliability=reliability))

    exhausted, stopped = drawn(None), drawn(0.3)
    assert exhausted.bootstraps is not None
    assert stopped.bootstraps is not None
    assert len(exhausted.bootstraps) == 20
    assert len(stopped.bootstraps) < 20
    assert stopped.reliability >= 0.3
    np.testing.assert_array_equal(
        stopped.bootstraps, exhausted.bootstraps[: len(stopped.bootstraps)]
    )


def test_the_papers_estimate_uses_raw_activations_and_nearest_neighbours() -> None:
    parent, child = _dependent()
    expected = gmi_scores(child, parent, 2, 2, scaled=False, one_to_one=False)
    scores = _mint_scores("mint", EstimateConfig(bootstraps=1, paper=True))
    np.testing.assert_array_equal(scores.value, expected.value)
    assert not np.array_equal(scores.value, gmi_scores(child, parent, 2, 2).value)


@pytest.mark.parametrize("criterion", ["block-magnitude", "magnitude", "l1-filters", "taylor"])
def test_scores_that_are_not_a_number_name_layer_and_criterion(criterion: str) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    with torch.no_grad():
        network.get_parameter("1.weight")[0, 0] = math.nan
    pair, inputs = _inputs(network, torch.zeros(1, 3))
    with pytest.raises(InputError, match=rf"0 -> 1: \d+ of \d+ scores of {criterion} are not"):
        score(criterion, pair, inputs)
