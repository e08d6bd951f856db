"""Pairs are found by tracing; activations of all layers are of the same rows."""

import numpy as np
import pytest
import torch
from torch import nn

from mint.activations import collect
from mint.config import NetworkConfig, load_experiment
from mint.networks import LayerPair, chosen_pairs, layer_pairs, mlp


def test_pairs_of_the_mlp() -> None:
    network = mlp((8, 7, 6, 5), 0.2)
    assert layer_pairs(network) == [
        LayerPair("fc1", "fc2", "relu1", "relu2"),
        LayerPair("fc2", "fc3", "relu2", "fc3"),
    ]
    assert chosen_pairs(network, [("fc1", "fc2")]) == layer_pairs(network)[:1]


def test_record_counts_150000_weights() -> None:
    config: NetworkConfig = load_experiment("mnist_mlp").network
    network = mlp(config.widths, config.dropout)
    assert sum(p.numel() for p in network.get_submodule("fc2").parameters() if p.ndim > 1) == 150000


def test_what_cannot_be_traced_is_named() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 2))
    with pytest.raises(TypeError, match=r"1: cannot trace through Softmax"):
        layer_pairs(network)


def test_activations_are_what_the_next_layer_reads() -> None:
    torch.manual_seed(0)
    network = mlp((8, 7, 6, 5), 0.5)
    inputs = torch.randn(10, 8)
    found = collect(network, inputs, ["relu1", "relu2", "relu1"], batch_size=3)
    weights = dict(network.named_parameters())
    first = torch.relu(inputs @ weights["fc1.weight"].T + weights["fc1.bias"])
    second = torch.relu(first @ weights["fc2.weight"].T + weights["fc2.bias"])
    assert np.allclose(found["relu1"], first.detach().numpy(), atol=1e-6)
    assert np.allclose(found["relu2"], second.detach().numpy(), atol=1e-6)
    assert not network.get_submodule("relu1")._forward_hooks
