"""Compensation: the kept weights of a pruned network are refitted, without gradients or labels.

The kept weights of each child are fitted by least squares to the pre-activations that the dense
network has for the same training images, layer by layer in forward order, from the inputs that the
pruned network has there: so each fit also corrects the errors of the layers before. Luo et al.,
ThiNet, ICCV 2017, and He et al., Channel Pruning, ICCV 2017, fit in this way.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.passes.shape_prop import TensorMetadata
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mint.data.loading import Split
from mint.models.activations import ROWS_AT_ONCE
from mint.models.layers import Traced
from mint.models.tracing import evaluating
from mint.pruning.masks import Masks
from mint.rng import stream

IMAGES = 10_000
"""The most training images that weights are refitted to."""
VALUES = 2**25
"""Fewer images are used where a layer's outputs for them would be more values than these."""
PATCHES = 2**15
"""Patches of each convolution's input that its weights are refitted to: drawn at random."""
DAMPING = 0.01
"""Ridge towards the trained weights, as a share of the mean variance of a child's inputs."""


def compensate(traced: Traced, masks: Masks, split: Split, seed: int) -> None:
    """Prune a network and compensate for it with images of a split, in place.

    Args:
        traced: the trained network.
        masks: of its weights.
        split: training images on the network's device.
        seed: draws the images, and the patches of convolutions.
    """
    known = (node.meta.get("tensor_meta") for node in traced.graph.graph.nodes)
    shapes = [meta.shape for meta in known if isinstance(meta, TensorMetadata)]
    number = min(IMAGES, VALUES // max(math.prod(shape[1:]) for shape in shapes))
    generator = stream(seed, "compensation")
    rows = generator.permutation(len(split))[: max(2, number)]
    batches = split.batches(ROWS_AT_ONCE, rows)
    refit(traced, masks, torch.cat([images for images, _ in batches]), generator)


def refit(
    traced: Traced,
    masks: Mapping[str, NDArray[np.bool_]],
    images: Tensor,
    generator: np.random.Generator,
) -> None:
    """Prune a network, refit its kept weights, and re-estimate its batch norms, in place.

    A bias is refitted with the weights; without a bias and a batch norm, the weights alone are. A
    batch norm gets the mean and variance of its inputs. What no pruned weight precedes stays.

    Args:
        traced: the trained network.
        masks: for the names of weights of linear layers and convolutions, which entries are kept.
        images: (n, ...) as the network takes them, on its device.
        generator: draws the patches of convolutions.
    """
    with evaluating(traced.graph), torch.no_grad():
        _LockStep(traced, masks, generator).run(images)


class _LockStep(torch.fx.Interpreter):
    """Runs the dense and the pruned network side by side, and refits each layer on the way.

    `env` has the values of the dense network; `_pruned` those of the pruned one that differ.
    """

    def __init__(
        self,
        traced: Traced,
        masks: Mapping[str, NDArray[np.bool_]],
        generator: np.random.Generator,
    ) -> None:
        super().__init__(traced.graph, garbage_collect_values=True)
        self._traced = traced
        self._masks = masks
        self._generator = generator
        self._pruned: dict[torch.fx.Node, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        mask = self._masks.get(f"{n.target}.weight") if n.op == "call_module" else None
        read = n.all_input_nodes
        if (mask is None or mask.all()) and self._pruned.keys().isdisjoint(read):
            return super().run_node(n)
        # An operation in place may change the dense value: copied first.
        inputs = {node: self._pruned.get(node, _copied(self.env[node])) for node in read}
        first = self.env[read[0]]
        dense = super().run_node(n)
        if n.op == "call_module":
            self._adapt(str(n.target), first, inputs[read[0]])
        self.env, of_dense = inputs, self.env
        self._pruned[n] = super().run_node(n)
        self.env = of_dense
        for node in self.user_to_last_uses.get(n, []):
            self._pruned.pop(node, None)
        return dense

    def _adapt(self, layer: str, dense: Tensor, pruned: Tensor) -> None:
        """Refit a pruned layer, or re-estimate a batch norm, from its inputs in both networks."""
        module = self._traced.graph.get_submodule(layer)
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            over = [0, *range(2, pruned.dim())]
            module.running_mean.copy_(pruned.mean(over))
            module.running_var.copy_(pruned.var(over))
        if (kept := self._masks.get(f"{layer}.weight")) is not None:
            assert isinstance(module, nn.Linear | _ConvNd)  # no other layer has masks
            if isinstance(module, _ConvNd):
                dense, pruned = _patches(module, [dense, pruned], self._generator)
            free_mean = module.bias is not None or layer in self._traced.batch_norms
            _refit(module, kept, dense, pruned, free_mean=free_mean)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _patches(
    module: _ConvNd, inputs: Sequence[Tensor], generator: np.random.Generator
) -> list[Tensor]:
    """Return (patches, channels, *kernel) of inputs of a convolution, at the same random places."""
    windows = []
    for values in inputs:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        view = functional.pad(values, module._reversed_padding_repeated_twice, mode)
        for axis, size in enumerate(module.kernel_size):
            spread = module.dilation[axis]
            view = view.unfold(2 + axis, spread * (size - 1) + 1, module.stride[axis])
            view = view[..., ::spread]
        windows.append(view)
    places = (len(view), *view.shape[2 : 2 + len(module.kernel_size)])
    total = math.prod(places)
    chosen = generator.choice(total, min(PATCHES, total), replace=False)
    image, *position = (torch.from_numpy(at) for at in np.unravel_index(chosen, places))
    return [view.movedim(1, -1)[(image, *position)].movedim(-1, 1) for view in windows]


def _refit(
    module: nn.Linear | _ConvNd,
    kept: NDArray[np.bool_],
    dense: Tensor,
    pruned: Tensor,
    *,
    free_mean: bool,
) -> None:
    """Fit a layer's kept weights to its dense pre-activations, in place.

    Args:
        module: with its trained weight.
        kept: mask of the weight.
        dense: (samples, channels, *kernel) inputs of the dense network.
        pruned: the same of the pruned network.
        free_mean: whether the layer's outputs may be shifted.
    """
    groups = module.groups if isinstance(module, _ConvNd) else 1
    weight = module.weight.flatten(1).double()
    masks = np.split(kept.reshape(len(kept), -1), groups)
    parts = zip(
        weight.chunk(groups), masks, dense.chunk(groups, 1), pruned.chunk(groups, 1), strict=True
    )
    fitted, shifts = [], []
    for own, mask, *inputs in parts:
        target, read = (values.flatten(1).double() for values in inputs)
        means = target.mean(0), read.mean(0)
        if free_mean:
            target, read = target - means[0], read - means[1]
        fitted.append(_least_squares(own, mask, target, read))
        shifts.append(own @ means[0] - fitted[-1] @ means[1])
    module.weight.copy_(torch.cat(fitted).view_as(module.weight))
    if module.bias is not None:
        module.bias.add_(torch.cat(shifts))


def _least_squares(weight: Tensor, kept: NDArray[np.bool_], target: Tensor, read: Tensor) -> Tensor:
    """Return the weight (outputs, inputs) with its kept entries fitted to target @ weight'.

    The ridge holds them at their trained values, so they stay where nothing is to be corrected.
    """
    square = read.T @ read / len(read)
    damping = DAMPING * square.diagonal().mean()
    fitted = weight * torch.from_numpy(kept).to(weight.device)
    error = read.T @ target / len(read) @ weight.T - square @ fitted.T  # (inputs, outputs)
    supports, of_output = np.unique(kept, axis=0, return_inverse=True)
    for index, support in enumerate(supports):
        rows = torch.from_numpy(np.flatnonzero(of_output.ravel() == index)).to(weight.device)
        inputs = torch.from_numpy(np.flatnonzero(support)).to(weight.device)
        eye = torch.eye(len(inputs), dtype=weight.dtype, device=weight.device)
        damped = square[inputs][:, inputs] + damping * eye
        if len(inputs) and damping > 0:
            change = torch.linalg.solve(damped, error[inputs][:, rows])
            fitted[rows[:, None], inputs] += change.T
    return fitted
