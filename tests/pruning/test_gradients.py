"""Gradients of the loss agree with the formula of softmax cross-entropy."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mint.models.tracing import trace
from mint.pruning.gradients import loss_gradients


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(a=nn.Linear(7, 6), relu=nn.ReLU(), drop=nn.Dropout(0.5), b=nn.Linear(6, 10))
    )


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(100, 7, generator=generator), torch.arange(100) % 10


def test_gradients_are_those_of_softmax_cross_entropy_without_dropout(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    inputs, labels = batch[0].double().numpy(), batch[1].numpy()
    weights = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
    hidden = np.maximum(inputs @ weights["a.weight"].T + weights["a.bias"], 0)
    logits = hidden @ weights["b.weight"].T + weights["b.bias"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (shares - np.eye(10)[labels]).T @ hidden / len(inputs)
    found = loss_gradients(trace(network, batch[0][:1]), [batch], ["b.weight"])["b.weight"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-7)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_gradients_do_not_depend_on_the_batches(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    traced = trace(network, batch[0][:1])
    names = ["a.weight", "b.weight"]
    expected = loss_gradients(traced, [batch], names)
    parts = list(zip(batch[0].split(33), batch[1].split(33), strict=True))
    for name, gradient in loss_gradients(traced, parts, names).items():
        assert gradient.shape == traced.network.get_parameter(name).shape
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-6)
