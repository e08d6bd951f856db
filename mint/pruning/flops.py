"""Multiply-adds of one image, and bytes of the weights, dense or with pruned weights left out."""

import copy
import math
from functools import partial

import torch
from torch import Tensor, nn

from mint.pruning.masks import Masks

WEIGHT_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_NO_MASKS = Masks({})


def multiply_adds(network: nn.Module, example: Tensor, masks: Masks = _NO_MASKS) -> int:
    """Return the multiply-adds of one image: one for each weight and output position.

    Multiplications with padding count, as usual; biases and other layers do not. Pruned weights do
    not count.

    Args:
        network: unchanged; its forward must call convolutions and linear layers as modules.
        example: (images, ...) an input on the network's device.
        masks: of its weights.

    Raises:
        InputError: the masks do not fit the network.
    """
    masks.check_fit(network)
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
            kept = int(masks[weight].sum()) if weight in masks else module.weight.numel()
            module.register_forward_hook(partial(count, kept))
    with torch.inference_mode():
        counted(example)
    return total // len(example)


def state_bytes(network: nn.Module, masks: Masks = _NO_MASKS) -> int:
    """Return the size of the state dict in float32.

    Masked weights are compressed where that makes them smaller: 4 bytes for each kept value, and
    its position in a bitmap (1 bit for each weight) or in CSR (4 bytes for each column index and
    row pointer), whichever is smaller.

    Raises:
        InputError: the masks do not fit the network.
    """
    masks.check_fit(network)
    sizes = {
        name: tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())
        for name, tensor in network.state_dict().items()
    }
    for name, mask in masks.items():
        kept = int(mask.sum())
        bitmap, csr = math.ceil(mask.size / 8), 4 * kept + 4 * (mask.shape[0] + 1)
        sizes[name] = min(sizes[name], 4 * kept + min(bitmap, csr))
    return sum(sizes.values())
