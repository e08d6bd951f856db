"""Networks in memory are scored as those of trials are, and left as they were."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mint.config.schema import CRITERIA
from mint.data.datasets import Source
from mint.errors import InputError
from mint.gmi.estimator import gmi_scores
from mint.models.activations import collect_activations
from mint.models.mlp import mlp
from mint.models.tracing import trace
from mint.pruning.scores import BlockScores
from mint.trial.in_memory import prune, score_network


@pytest.fixture(scope="module")
def batch(digits: Source) -> tuple[Tensor, Tensor]:
    pixels = digits.train[np.arange(90)]
    return (pixels.float() - 5) / 6, torch.from_numpy(digits.train_labels[:90])


class Words(Dataset[str]):
    """Has items that are no images."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return "word"


@pytest.fixture
def network() -> nn.Module:
    """Convolutions, one of them grouped, and a head that reads flattened filters."""
    torch.manual_seed(2)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 10)),
    )


def test_scores_are_those_of_the_estimator(batch: tuple[Tensor, Tensor]) -> None:
    network = mlp((64, 12, 11, 10))
    scores = score_network(network, batch[0], groups=4, bootstraps=3, seed=5)
    assert list(scores) == ["fc2.weight", "fc3.weight"]
    traced = trace(network, batch[0][:1])
    activations = collect_activations(traced, [batch[0]], traced.pairs)
    for pair, found in zip(traced.pairs, scores.values(), strict=True):
        arrays = activations[pair.child_node], activations[pair.parent_node]
        expected = gmi_scores(*arrays, 4, 4, bootstraps=3, seed=5)
        np.testing.assert_array_equal(found.value, expected.value)
        np.testing.assert_array_equal(found.standard_error, expected.standard_error)
        assert found.reliability == expected.reliability
    some = score_network(network, batch[0], groups=4, bootstraps=3, seed=5, layers=["fc3"])
    assert list(some) == ["fc3.weight"]
    np.testing.assert_array_equal(some["fc3.weight"].value, scores["fc3.weight"].value)


def test_arrays_datasets_and_loaders_give_the_scores_of_tensors(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    data = TensorDataset(images, labels)
    state = torch.get_rng_state()

    def scored(*given: Any) -> Any:
        scores = score_network(network, *given, criterion="taylor", groups=3)
        values = np.concatenate([each.value.ravel() for each in scores.values()])
        return pytest.approx(values, rel=1e-3)  # torch rounds by the layout in memory

    expected = scored(images, labels).expected
    assert expected == scored(images.double().numpy(), labels.numpy())
    assert expected == scored(data)
    assert expected == scored(DataLoader(data, batch_size=7))
    assert expected == scored(DataLoader(TensorDataset(images)), labels)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_prunes_a_network_that_is_left_as_it_was(
    network: nn.Module, batch: tuple[Tensor, Tensor], criterion: str
) -> None:
    network[2].eval()  # type: ignore[index]
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    layers = ["3"] if criterion == "bn-scale" else None  # the head has no batch norm

    def scored() -> dict[str, BlockScores]:
        return score_network(
            network, *batch, criterion=criterion, groups=3, bootstraps=2, layers=layers
        )

    scores = scored()
    masks = prune(scores, 0.6)
    masks.check_fit(network)
    assert 0.3 * masks.prunable < masks.pruned <= 0.6 * masks.prunable
    assert masks.digest == prune(scored(), 0.6).digest
    assert [module.training for module in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_layer_that_reads_the_input_is_scored_by_what_varies_there() -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 2))
    pixels = torch.randn(200, 1, 2, 4)
    pixels[:, 0, 0] = 0
    scores = score_network(
        network, pixels, criterion="mint-unconditional", groups=2, bootstraps=5, layers=["1"]
    )
    assert scores["1.weight"].value.shape == (2, 2)
    dead = np.zeros((6, 8), bool)
    dead[:, :4] = True
    np.testing.assert_array_equal(prune(scores, 0.5)["1.weight"], ~dead)


def test_shares_and_limits_hold_to_the_block() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(10)
    scores = {
        # By its values alone, all of the first would go.
        name: BlockScores(generator.random((10, 10)) + higher, labels, labels[None])
        for name, higher in (("first", 0), ("second", 1))
    }
    assert prune(scores, 0.5)["first"].sum() == 0
    limited = prune(scores, np.float64(0.5), upper_limit=np.float64(0.7))
    assert [int(mask.sum()) for mask in limited.values()] == [30, 70]
    floored = prune(scores, 0.5, keep_connected=True)
    assert floored.pruned == 100
    assert all(mask.any(0).all() and mask.any(1).all() for mask in floored.values())
    alone = prune({"second": scores["second"]}, 0.25)["second"]
    assert set(np.flatnonzero(~alone)) == set(np.argsort(scores["second"].value.ravel())[:25])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"criterion": "tailor"},
            "score_network: criterion tailor: there is no such criterion",
        ),
        ({"groups": 0}, "score_network: groups 0: "),
        ({"bootstraps": 1.5}, "score_network: bootstraps 1.5: "),
        ({"seed": -1}, "score_network: seed -1: "),
        ({"inputs": torch.zeros(5, 1, 8, 8)}, "0 -> 3: child: must have at least 6 rows, not 5"),
        (
            {"inputs": torch.full((9, 1, 8, 8), torch.nan)},
            "0 -> 3: child: contains values that",
        ),
        ({"inputs": torch.zeros(9, 3, 8, 8)}, r"does not run on an input of shape \(1, 3, 8, 8\)"),
        ({"inputs": "images"}, "inputs: is a str; allowed are a tensor, an array, a Dataset"),
        ({"inputs": Words()}, "inputs: allowed are .* of tensors: TypeError"),
        ({"criterion": "taylor"}, "labels: taylor needs 9 whole numbers"),
        ({"criterion": "taylor", "labels": torch.zeros(9)}, "labels: taylor needs 9 whole"),
        ({"criterion": "taylor", "labels": torch.arange(8)}, "labels: taylor needs 9 whole"),
        ({"criterion": "bn-scale"}, "bn-scale: 9 has no batch norm of its own right after it"),
        ({"layers": ["head"]}, "layers head: known are 0, 3, 9"),
        (
            {
                "network": nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4)),
                "layers": ["1"],
            },
            "layers 1: 1 depthwise: each of its filters reads one channel; known are 0",
        ),
        ({"network": nn.Linear(8, 4)}, "network: none of its weights can be pruned: "),
        ({"network": nn.Flatten()}, "network: none of its weights can be pruned: it has no layers"),
    ],
)
def test_bad_arguments_are_told(network: nn.Module, changed: dict[str, Any], said: str) -> None:
    images = torch.rand(9, 1, 8, 8)
    asked: dict[str, Any] = {"network": network, "inputs": images, "bootstraps": 1, "groups": 2}
    with pytest.raises(InputError, match=said):
        score_network(**asked | changed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fraction": 1.5}, "fraction 1.5: allowed are numbers from 0 to 1"),
        ({"fraction": 0.5, "upper_limit": -1}, "upper_limit -1: allowed are numbers from 0 to 1"),
        ({"fraction": float("nan")}, "fraction nan: allowed are"),
        ({"fraction": 0.9, "upper_limit": 0.8}, "fraction 0.9: upper_limit allows at most 0.8"),
        ({"scores": {}, "fraction": 0.5}, "scores: are empty"),
    ],
)
def test_bad_shares_are_told(arguments: dict[str, Any], said: str) -> None:
    labels = np.arange(2)
    scores = {"fc2.weight": BlockScores(np.eye(2), labels, labels[None])}
    with pytest.raises(InputError, match=said):
        prune(**{"scores": scores} | arguments)
