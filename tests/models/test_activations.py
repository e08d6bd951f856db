"""Activations are the outputs of modules, averaged over space, for the same rows."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.models.activations import collect_activations
from mint.models.mlp import mlp
from mint.models.resnet import resnet56
from mint.models.tracing import trace
from mint.rng import torch_seeded


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch_seeded(0, "networks of the tests", torch.device("cpu")):
        yield


def assert_close(found: NDArray[np.float32], expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert_allclose(found / scale, expected.numpy() / scale, atol=1e-5)


def hooked(network: nn.Module, inputs: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return the outputs of modules for all rows at once."""
    found = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output.clone()})
        )
    network.eval()
    with torch.inference_mode():
        network(inputs)
    return found


def test_activations_of_the_mlp_are_taken_after_the_relus() -> None:
    network = mlp((8, 7, 6, 5), 0.5)
    inputs = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    traced = trace(network, inputs[:1])
    found = collect_activations(traced, inputs.split(3), traced.pairs)
    expected = hooked(network, inputs, ["relu1", "relu2", "fc3"])
    for pair, parent, child in zip(traced.pairs, ("relu1", "relu2"), ("relu2", "fc3"), strict=True):
        assert_close(found[pair.parent_node], expected[parent])
        assert_close(found[pair.child_node], expected[child])


def test_parent_activations_of_resnet56_are_spatial_means_of_what_children_read(
    inputs: Tensor,
) -> None:
    network = resnet56(10)
    traced = trace(network, inputs[:2])
    found = collect_activations(traced, inputs.split(2), traced.pairs)
    for pair in traced.pairs:
        assert found[pair.parent_node].shape == (3, pair.parent_filters)
        assert found[pair.child_node].shape == (3, pair.child_filters)
    assert all(value.dtype == np.float32 for value in found.values())

    seen: dict[str, Tensor] = {}
    for pair in traced.pairs[:-1]:
        network.get_submodule(pair.child).register_forward_pre_hook(
            lambda _module, read, name=pair.child: seen.update({name: read[0].mean((2, 3))})
        )
    outputs = hooked(network, inputs, ["bn3", "linear1"])
    for pair in traced.pairs[:-1]:
        assert_close(found[pair.parent_node], seen[pair.child])
    children = {pair.child: pair.child_node for pair in traced.pairs}
    assert_close(found[children["conv3"]], outputs["bn3"].mean((2, 3)))
    assert_close(found[children["linear1"]], outputs["linear1"])


def test_flattened_filters_are_means_over_their_columns(inputs: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.ReLU(), nn.Linear(4 * 16, 2)
    )
    traced = trace(network, inputs[:1])
    (pair,) = traced.pairs
    assert pair.channels == tuple(each for each in range(4) for _ in range(16))
    found = collect_activations(traced, [inputs], [pair])[pair.parent_node]
    conv = hooked(network, inputs, ["0"])["0"]
    assert_close(found, conv.relu().mean((2, 3)))


def test_a_later_operation_in_place_does_not_change_an_activation(inputs: Tensor) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.second = nn.Conv2d(4, 4, 1)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            values = self.first(images)
            inside = self.second(values)
            inside += values
            logits: Tensor = self.last(inside)
            return logits

    network = InPlace()
    traced = trace(network, inputs[:1])
    (pair, _) = traced.pairs
    found = collect_activations(traced, [inputs], [pair])[pair.child_node]
    with torch.inference_mode():
        expected = network.second(network.first(inputs)).mean((2, 3))
    assert_close(found, expected)


def test_collecting_does_not_change_the_network() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    network[2].eval()
    traced = trace(network, torch.randn(2, 4))
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator_state = torch.get_rng_state()
    collect_activations(traced, [torch.ones(3, 4)], traced.pairs)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator_state)
