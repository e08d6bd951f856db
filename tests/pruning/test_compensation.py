"""Compensation restores what the kept weights can restore, and leaves pruned weights at zero."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mint.models.tracing import trace
from mint.pruning import compensation
from mint.pruning.compensation import refit

Kept = dict[str, NDArray[np.bool_]]


class Residual(nn.Module):
    """A residual block with batch norm, operations in place, and a grouped, strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.third = nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2, padding="valid")
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        read = torch.relu_(self.first(images))
        added = self.norm(self.second(read))
        added += read
        outputs: Tensor = self.head(torch.relu_(self.third(added)).mean((2, 3)))
        return outputs


def _network() -> Residual:
    torch.manual_seed(0)
    network = Residual()
    with torch.no_grad():
        for buffer in ("running_mean", "running_var"):
            network.norm.get_buffer(buffer).uniform_(0.5, 2)
    return network.eval()


IMAGES = torch.randn(64, 2, 12, 12, generator=torch.Generator().manual_seed(0))
PRUNABLE = ("second.weight", "third.weight", "head.weight")


def _masks(network: nn.Module, share: float) -> Kept:
    generator = np.random.default_rng(0)
    return {
        name: generator.random(tuple(network.get_parameter(name).shape)) >= share
        for name in PRUNABLE
    }


def _refit(network: nn.Module, masks: Kept, images: Tensor, seed: int = 0) -> None:
    refit(trace(network, images[:1]), masks, images, np.random.default_rng(seed))


def _outputs(network: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network(images)
    return outputs


def test_nothing_changes_when_all_weights_are_kept() -> None:
    network = _network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _refit(network, _masks(network, 0), IMAGES)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_pruned_weights_are_zero_and_the_outputs_nearer_to_the_dense_ones() -> None:
    network, zeroed = _network(), _network()
    masks = _masks(network, 0.5)
    expected = _outputs(network)
    upstream = network.first.weight.clone()
    _refit(network, masks, IMAGES)
    for name, kept in masks.items():
        weight = network.get_parameter(name)
        assert torch.equal(weight != 0, torch.from_numpy(kept)), name
        with torch.no_grad():
            zeroed.get_parameter(name).mul_(torch.from_numpy(kept))
    assert torch.equal(network.first.weight, upstream)
    errors = [float((_outputs(each) - expected).square().mean()) for each in (network, zeroed)]
    assert errors[0] < errors[1] / 4
    # The same seed draws the same patches.
    again = _network()
    _refit(again, masks, IMAGES)
    assert torch.equal(again.third.weight, network.third.weight)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_whose_pruned_inputs_are_combinations_of_kept_ones_is_restored(
    monkeypatch: pytest.MonkeyPatch, bias: bool
) -> None:
    monkeypatch.setattr(compensation, "DAMPING", 1e-9)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8, bias=bias), nn.Linear(8, 5, bias=bias), nn.Linear(5, 2))
    images = torch.randn(100, 3) + 1
    expected = _outputs(network, images)
    kept = np.ones((5, 8), np.bool_)
    kept[:2, [0, 2, 3, 6]] = False  # four inputs of rank three are left
    kept[2:, [1, 4, 7]] = False
    _refit(network, {"1.weight": kept}, images)
    torch.testing.assert_close(_outputs(network, images), expected, atol=1e-4, rtol=0)


def test_a_convolution_is_refitted_as_the_same_linear_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compensation, "PATCHES", 10**6)  # all of them
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, stride=2, groups=2)
    network = nn.Sequential(first, nn.ReLU(), second)
    images = torch.randn(40, 3, 4, 4)
    kept = np.random.default_rng(0).random((4, 2, 2, 2)) < 0.5
    patches = functional.unfold(_outputs(network[:2], images), 2, stride=2).mT.flatten(0, 1)
    linear = nn.Linear(16, 4)
    with torch.no_grad():
        linear.weight.zero_()
        mask = np.zeros((4, 16), np.bool_)
        for half in range(2):
            own = slice(2 * half, 2 * half + 2), slice(8 * half, 8 * half + 8)
            linear.weight[own] = second.weight[own[0]].flatten(1)
            mask[own] = kept[own[0]].reshape(2, 8)
        linear.bias.copy_(second.get_parameter("bias"))
    _refit(network, {"2.weight": kept}, images)
    _refit(nn.Sequential(linear), {"0.weight": mask}, patches)
    torch.testing.assert_close(second.bias, linear.bias, atol=1e-3, rtol=0)
    for half in range(2):
        own = slice(2 * half, 2 * half + 2), slice(8 * half, 8 * half + 8)
        found = second.weight[own[0]].flatten(1)
        torch.testing.assert_close(found, linear.weight[own], atol=1e-2, rtol=0)


def test_batch_norms_have_the_statistics_of_the_pruned_network() -> None:
    network = _network()
    _refit(network, _masks(network, 0.5), IMAGES)
    with torch.no_grad():
        inputs = network.second(torch.relu(network.first(IMAGES)))
    torch.testing.assert_close(network.norm.get_buffer("running_mean"), inputs.mean((0, 2, 3)))
    torch.testing.assert_close(network.norm.get_buffer("running_var"), inputs.var((0, 2, 3)))
