"""Multiply-adds of one image, and bytes of the weights, dense or with pruned weights left out."""

import math

import torch
from torch import Tensor, nn

from mint.models.applied_weights import AppliedWeights
from mint.models.running import evaluating
from mint.pruning.masks import Masks

_NO_MASKS = Masks({})


def multiply_adds(network: nn.Module, example: Tensor, masks: Masks = _NO_MASKS) -> int:
    """Return the multiply-adds of one image: one for each weight and output position.

    Multiplications with padding count, as usual; biases and other layers do not. Pruned weights do
    not count.

    Args:
        network: unchanged; its forward may call convolutions and linear layers as functions too.
        example: (images, ...) an input on the network's device.
        masks: of its weights.

    Raises:
        InputError: the masks do not fit the network.
    """
    masks.check_fit(network)
    kept = {id(network.get_parameter(name)): int(mask.sum()) for name, mask in masks.items()}
    applied = AppliedWeights()
    with evaluating(network), torch.no_grad(), applied:
        network(example)
    total = sum(kept.get(id(weight), weight.numel()) * count for weight, count in applied.calls)
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
