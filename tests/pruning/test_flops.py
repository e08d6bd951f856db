"""Multiply-adds and bytes agree with counts by hand."""

import copy
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mint.errors import InputError
from mint.pruning.flops import multiply_adds, state_bytes
from mint.pruning.masks import Masks


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 3 * 3, 10),
    )


def test_multiply_adds_count_every_output_position() -> None:
    example = torch.zeros(1, 3, 8, 8)
    by_hand = 4 * 3 * 9 * 64 + 6 * 2 * 9 * 9 + 54 * 10
    assert multiply_adds(_network(), example) == by_hand
    assert multiply_adds(_network(), example.repeat(5, 1, 1, 1)) == by_hand
    mask = np.ones((4, 3, 3, 3), bool)
    mask[1, :2] = False
    pruned = multiply_adds(_network(), example, Masks({"0.weight": mask}))
    assert pruned == by_hand - 18 * 64


def test_linear_layers_of_sequences_and_transposed_convolutions() -> None:
    assert multiply_adds(nn.Linear(5, 7), torch.zeros(2, 11, 5)) == 11 * 5 * 7
    up = nn.ConvTranspose2d(2, 3, 2, stride=2)
    assert multiply_adds(up, torch.zeros(1, 2, 4, 4)) == 2 * 3 * 4 * 16


def test_layers_called_as_functions_count_and_computed_weights_have_no_mask() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.ones(4, 3))
            self.second = nn.Parameter(torch.ones(2, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(nn.functional.linear(x, self.first), 2 * self.second)

    masks = Masks({"first": np.zeros((4, 3), bool), "second": np.zeros((2, 4), bool)})
    assert multiply_adds(Functional(), torch.zeros(5, 3)) == 12 + 8
    assert multiply_adds(Functional(), torch.zeros(5, 3), masks) == 8


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(5, 5)
    assert multiply_adds(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 5)) == 50


def test_bytes_are_those_of_the_file_and_of_the_smaller_compression(tmp_path: Path) -> None:
    network = _network()
    few, most = np.zeros((4, 3, 3, 3), bool), np.ones((6, 2, 3, 3), bool)
    few[0, 0, 0, 0] = True
    most[0] = False
    all_kept = np.ones((10, 54), bool)
    masks = Masks({"0.weight": few, "2.weight": most, "4.weight": all_kept})
    dense, sparse = state_bytes(network), state_bytes(network, masks)

    tensors = network.state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "dense.safetensors")
    content = (tmp_path / "dense.safetensors").read_bytes()
    assert dense == len(content) - 8 - int.from_bytes(content[:8], "little")
    masked = sum(tensors[name].nbytes for name in masks)
    few_bytes = 4 + 14  # a value and a bitmap of 108 bits; CSR's five row pointers alone are 20
    most_bytes = 4 * 90 + 14
    assert sparse == dense - masked + few_bytes + most_bytes + 4 * 540


def test_few_kept_weights_are_stored_as_csr() -> None:
    network = nn.Linear(1000, 10, bias=False)
    mask = np.zeros((10, 1000), bool)
    mask[3, :7] = True
    masks = Masks({"weight": mask})
    assert state_bytes(network, masks) == 4 * 7 + 4 * 7 + 4 * 11
    assert multiply_adds(network, torch.zeros(1, 1000), masks) == 7


def test_counting_does_not_change_the_network() -> None:
    network = _network().train()
    before = copy.deepcopy(network.state_dict())
    multiply_adds(network, torch.randn(1, 3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in network.modules())


def test_masks_of_another_network_are_refused() -> None:
    masks = Masks({"1.bias2": np.ones(4, bool)})
    with pytest.raises(InputError, match=r"no weight 1\.bias2"):
        state_bytes(_network(), masks)
    with pytest.raises(InputError, match=r"no weight 1\.bias2"):
        multiply_adds(_network(), torch.zeros(1, 3, 8, 8), masks)
