"""Groupings divide the filters of every layer evenly, and criteria score blocks of any of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mint.config.axes import Grouping
from mint.config.schema import CRITERIA
from mint.gmi.estimator import contiguous_groups
from mint.models.mlp import mlp
from mint.models.resnet import CifarResNet
from mint.models.tracing import trace
from mint.pruning.grouping import Labels, PairGroups, group_filters, load_groups, save_groups
from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores
from mint.rng import torch_seeded
from mint.trial.in_memory import prune, score_network


def _groups(
    network: nn.Module, grouping: Grouping, example: Tensor, groups: int = 4, seed: int = 0
) -> dict[str, PairGroups]:
    traced = trace(network, example)
    return group_filters(
        grouping, traced, traced.all_pairs, lambda _, filters: min(groups, filters), seed
    )


@pytest.fixture
def network() -> nn.Module:
    """Convolutions, one of them grouped, and a head that reads flattened filters."""
    with torch_seeded(2, "network", torch.device("cpu")):
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 14, 3, padding=1, groups=2), nn.BatchNorm2d(14), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(56, 10)),
        )


@pytest.mark.parametrize("grouping", ["contiguous", "random", "clustered"])
def test_groups_are_as_large_as_contiguous_ones_and_the_layer_is_grouped_once(
    network: nn.Module, grouping: Grouping, tmp_path: Path
) -> None:
    found = _groups(network, grouping, torch.zeros(1, 3, 8, 8))
    assert list(found) == ["0.weight", "3.weight", "8.weight"]
    filters = {"0.weight": (8, 3), "3.weight": (14, 8), "8.weight": (10, 14)}
    for weight, both in found.items():
        for labels, number in zip(both, filters[weight], strict=True):
            sizes = contiguous_groups(number, min(4, number))
            np.testing.assert_array_equal(np.sort(labels), sizes)
    np.testing.assert_array_equal(found["0.weight"].child, found["3.weight"].parent)
    np.testing.assert_array_equal(found["3.weight"].child, found["8.weight"].parent)
    unmoved = all((np.diff(labels) >= 0).all() for both in found.values() for labels in both)
    assert unmoved == (grouping == "contiguous")
    save_groups(tmp_path / "groups.npz", found)
    again = load_groups(tmp_path / "groups.npz")
    assert list(again) == list(found)
    np.testing.assert_array_equal(again["8.weight"].parent, found["8.weight"].parent)


@pytest.mark.parametrize(("grouping", "decides"), [("random", True), ("clustered", False)])
def test_the_seed_decides_random_groups_alone(
    network: nn.Module, grouping: Grouping, decides: bool
) -> None:
    first, again, other = (
        _groups(network, grouping, torch.zeros(1, 3, 8, 8), seed=seed)["3.weight"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.child, again.child)
    assert np.array_equal(first.child, other.child) != decides


@pytest.mark.parametrize("grouping", ["random", "clustered"])
def test_filters_that_are_added_are_in_the_same_groups(grouping: Grouping) -> None:
    with torch_seeded(0, "network", torch.device("cpu")):
        network = CifarResNet(10, blocks=2)
    found = _groups(network, grouping, torch.zeros(1, 3, 32, 32))
    # The first layer of a stage whose output is added, and those that are added to it.
    for first, *added in ((1, 3, 5), (7, 9), (11, 13)):
        shared = found[f"conv{first}.weight"].child
        for layer in added:
            np.testing.assert_array_equal(found[f"conv{layer}.weight"].child, shared)
            np.testing.assert_array_equal(found[f"conv{layer - 1}.weight"].parent, shared)
    assert not np.array_equal(found["conv2.weight"].child, found["conv2.weight"].parent)


def test_masks_of_a_network_with_permuted_filters_are_permuted() -> None:
    with torch_seeded(5, "network", torch.device("cpu")):
        network, images = mlp((64, 30, 24, 10)), torch.rand(12, 64)

    def masks() -> Masks:
        options = {"criterion": "block-magnitude", "grouping": "clustered"}
        scores = score_network(network, images, groups=6, **options)  # type: ignore[arg-type]
        return prune(scores, fraction=0.8, keep_connected=True)

    before = masks()
    generator = np.random.default_rng(0)
    first, second = generator.permutation(30), generator.permutation(24)
    _reorder(network, first, second)
    after = masks()
    np.testing.assert_array_equal(after["fc2.weight"], before["fc2.weight"][second][:, first])
    np.testing.assert_array_equal(after["fc3.weight"], before["fc3.weight"][:, second])


@pytest.mark.parametrize("criterion", [name for name, used in CRITERIA.items() if "groups" in used])
def test_scores_of_clustered_groups_are_those_of_contiguous_ones_after_sorting(
    criterion: str,
) -> None:
    with torch_seeded(5, "network", torch.device("cpu")):
        network, images = mlp((64, 30, 24, 10)), torch.rand(60, 64)
    labels = torch.arange(60) % 10

    def scored(grouping: Grouping) -> BlockScores:
        return score_network(
            network,
            images,
            labels,
            criterion=criterion,
            groups=6,
            grouping=grouping,
            bootstraps=2,
            layers=["fc2"],
        )["fc2.weight"]

    clustered = scored("clustered")
    assert (np.diff(clustered.child_labels) < 0).any()
    groups = clustered.parent_labels[0], clustered.child_labels
    _reorder(network, *(np.argsort(own, kind="stable") for own in groups))
    np.testing.assert_allclose(scored("contiguous").value, clustered.value, rtol=1e-4, atol=1e-9)


def _reorder(network: nn.Module, first: Labels, second: Labels) -> None:
    """Put the filters of an MLP's two hidden layers in another order."""
    weights = network.state_dict()
    for name in ("fc1.weight", "fc1.bias"):
        weights[name] = weights[name][first]
    for name in ("fc2.weight", "fc2.bias"):
        weights[name] = weights[name][second]
    weights["fc2.weight"] = weights["fc2.weight"][:, first]
    weights["fc3.weight"] = weights["fc3.weight"][:, second]
    network.load_state_dict(weights)


@pytest.mark.parametrize("grouping", ["contiguous", "random", "clustered"])
def test_heads_of_an_attention_are_groups(grouping: Grouping) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    groups = _groups(block, grouping, torch.zeros(2, 5, 8))
    assert groups["self_attn.out_proj.weight"].parent.tolist() == [0] * 4 + [1] * 4
    assert np.bincount(groups["linear2.weight"].parent).tolist() == [3] * 4
