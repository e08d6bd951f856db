"""Multiply-adds of one image and bytes of the weights, before and after pruning."""

import copy
import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mint.pruning.masks import Masks

WEIGHT_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Costs:
    """Costs of a network, dense and with its kept weights alone.

    Attributes:
        multiply_adds: of one image, in convolutions and linear layers.
        pruned_multiply_adds: the same, of the kept weights alone.
        dense_bytes: size of the state dict in float32.
        sparse_bytes: the same, with masked weights compressed where that makes them smaller: 4
            bytes for each kept value, and its position in a bitmap (1 bit for each weight) or in
            CSR (4 bytes for each column index and row pointer), whichever is smaller.
    """

    multiply_adds: int
    pruned_multiply_adds: int
    dense_bytes: int
    sparse_bytes: int


def costs(network: nn.Module, masks: Masks, example: Tensor) -> Costs:
    """Return the costs of a network without and with its masks.

    Args:
        network: unchanged; its forward must call convolutions and linear layers as modules.
        masks: of its weights; weights without a mask are kept.
        example: (images, ...) an input on the network's device.

    Raises:
        InputError: the masks do not fit the network.
    """
    masks.check_fit(network)
    dense = {name: _bytes(tensor) for name, tensor in network.state_dict().items()}
    sparse = dense | {
        name: min(dense[name], _sparse_bytes(mask.shape, int(mask.sum())))
        for name, mask in masks.items()
    }
    return Costs(
        multiply_adds=multiply_adds(network, example),
        pruned_multiply_adds=multiply_adds(network, example, masks),
        dense_bytes=sum(dense.values()),
        sparse_bytes=sum(sparse.values()),
    )


def multiply_adds(network: nn.Module, example: Tensor, masks: Masks | None = None) -> int:
    """Return the multiply-adds of one image: one for each weight and output position.

    Multiplications with padding count, as usual; biases and other layers do not. With masks, only
    kept weights count. See costs for the arguments.
    """
    counted = copy.deepcopy(network).eval()  # batch norm would learn from the example
    total = 0

    def count(kept: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        # A transposed convolution applies each weight at every position of its input.
        positions = inputs[0] if getattr(module, "transposed", False) else output
        channels = positions.shape[-1 if isinstance(module, nn.Linear) else 1]
        total += kept * (positions.numel() // channels)

    for name, module in counted.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
            weight = f"{name}.weight".removeprefix(".")
            kept = int(masks[weight].sum()) if masks and weight in masks else module.weight.numel()
            module.register_forward_hook(partial(count, kept))
    with torch.inference_mode():
        counted(example)
    return total // len(example)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())


def _sparse_bytes(shape: tuple[int, ...], kept: int) -> int:
    bitmap = math.ceil(math.prod(shape) / 8)
    csr = 4 * kept + 4 * (shape[0] + 1)
    return 4 * kept + min(bitmap, csr)
