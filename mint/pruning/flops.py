"""What pruning buys: multiply-adds of one image and bytes of the weights, before and after."""

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
    """Costs of a network before pruning and with kept weights alone.

    Attributes:
        multiply_adds: of one image, in convolutions and linear layers.
        pruned_multiply_adds: likewise, of kept weights alone.
        dense_bytes: of the state dict in safetensors, float32, without the file's header.
        sparse_bytes: likewise, compressed: of a masked weight the kept values, 4 bytes each, and
            where they are: the smaller of a bitmap, 1 bit a weight, and CSR's column indices and
            row pointers, 4 bytes each; a tensor that is smaller as it is stays so.
    """

    multiply_adds: int
    pruned_multiply_adds: int
    dense_bytes: int
    sparse_bytes: int


def costs(network: nn.Module, masks: Masks, example: Tensor) -> Costs:
    """Count what a network costs without and with its masks; the network is left as it is.

    Args:
        network: its convolutions and linear layers are called as modules.
        masks: of its weights; what they do not name is kept.
        example: (images, ...) an input, on the network's device.

    Raises:
        InputError: the masks are of another network.
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
    """Return the multiply-adds of one image: of each weight, one at every place it is used.

    Those with the zeros of a padding count, as is usual; biases and other layers do not.

    Args:
        network: its convolutions and linear layers are called as modules.
        example: (images, ...) an input, on the network's device.
        masks: of its weights, to count kept ones alone.
    """
    masks = masks or Masks({})
    counted = copy.deepcopy(network).eval()  # batch norm would learn from the example
    total = 0

    def count(kept: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        # A transposed convolution puts each weight to every place of its input instead.
        places = inputs[0] if getattr(module, "transposed", False) else output
        channels = places.shape[-1 if isinstance(module, nn.Linear) else 1]
        total += kept * (places.numel() // channels)

    for name, module in counted.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
            weight = f"{name}.weight".removeprefix(".")
            kept = int(masks[weight].sum()) if weight in masks else module.weight.numel()
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
