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
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from mint.data.loading import Split
from mint.models.activations import ROWS_AT_ONCE
from mint.models.layers import LayerPair, Traced
from mint.models.running import Rerun
from mint.models.weights import arguments, operation, read_argument
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
    number = min(IMAGES, VALUES // traced.values[1])
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
    _LockStep(traced, masks, generator).run(traced.network, images)


class _LockStep(Rerun):
    """Runs the dense and the pruned network side by side, and refits each layer on the way.

    `_pruned` has, for values of the dense network, those of the pruned one that differ.
    """

    def __init__(
        self,
        traced: Traced,
        masks: Mapping[str, NDArray[np.bool_]],
        generator: np.random.Generator,
    ) -> None:
        super().__init__(traced.graph)
        self._traced = traced
        self._masks = masks
        self._generator = generator
        self._pruned = WeakTensorKeyDictionary()
        self._pairs = {traced.nodes[pair.child]: pair for pair in traced.all_pairs}

    def detached(self, tensor: Tensor, value: Tensor) -> None:
        if tensor in self._pruned:
            self._pruned[value] = self._pruned[tensor]

    def apply(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pair = self._pairs.get(node.name)
        mask = self._masks.get(pair.weight) if pair else None
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if (mask is None or mask.all()) and not any(each in self._pruned for each in read):
            return super().apply(node, args, kwargs)
        in_place = node.target._schema.is_mutable  # type: ignore[union-attr]
        pruned = {
            id(each): self._pruned.get(each, each.clone() if in_place else each) for each in read
        }
        of_pruned = tree_map_only(Tensor, lambda each: pruned[id(each)], (args, kwargs))
        value = super().apply(node, args, kwargs)
        named = arguments(node, *of_pruned)
        if pair and mask is not None:
            self._refit(node, pair, mask, arguments(node, args, kwargs), named)
        elif operation(node) == "batch_norm":
            _measure(named)
        pruned_value = node.target(*of_pruned[0], **of_pruned[1])  # type: ignore[operator]
        for dense, each in zip(tree_leaves(value), tree_leaves(pruned_value), strict=True):
            if isinstance(dense, Tensor):
                self._pruned[dense] = each
        return value

    def _refit(
        self,
        node: torch.fx.Node,
        pair: LayerPair,
        mask: NDArray[np.bool_],
        dense: Mapping[str, Any],
        pruned: Mapping[str, Any],
    ) -> None:
        """Refit a pruned layer from its arguments in both networks."""
        read = [each[read_argument(node)] for each in (dense, pruned)]
        if pair.kernel:
            read = _patches(dense, pair.kernel, read, self._generator)
        else:
            read = [values.flatten(0, -2) for values in read]
        weight: Tensor = self._traced.network.get_parameter(pair.weight)
        if pair.transposed:
            weight, mask = weight.T, mask.T
        bias = dense["self"] if operation(node) == "addmm" else dense.get("bias")
        free_mean = bias is not None or pair.child in self._traced.batch_norms
        shift = _fit(weight, mask, *read, groups=pair.groups, free_mean=free_mean)
        if bias is not None:
            bias.add_(shift)


def _measure(norm: Mapping[str, Any]) -> None:
    """Re-estimate a batch norm from its arguments in the pruned network."""
    if norm["running_mean"] is not None:
        over = [0, *range(2, norm["input"].dim())]
        norm["running_mean"].copy_(norm["input"].mean(over))
        norm["running_var"].copy_(norm["input"].var(over))


def _patches(
    named: Mapping[str, Any],
    kernel: Sequence[int],
    inputs: Sequence[Tensor],
    generator: np.random.Generator,
) -> list[Tensor]:
    """Return (patches, channels, *kernel) of inputs of a convolution, at the same random places.

    Args:
        named: arguments of the convolution.
        kernel: sizes of its kernels.
        inputs: (n, channels, *space).
        generator: draws the places.
    """
    padding, stride, dilation = (named.get(key) for key in ("padding", "stride", "dilation"))
    stride, dilation = (_each(value or 1, kernel) for value in (stride, dilation))
    if padding == "same":
        spread = [gap * (size - 1) for gap, size in zip(dilation, kernel, strict=True)]
        sides = [(total // 2, total - total // 2) for total in spread]
    else:
        sides = [(side, side) for side in _each(0 if padding == "valid" else padding or 0, kernel)]
    windows = []
    for values in inputs:
        view = functional.pad(values, [side for both in reversed(sides) for side in both])
        for axis, size in enumerate(kernel):
            view = view.unfold(2 + axis, dilation[axis] * (size - 1) + 1, stride[axis])
            view = view[..., :: dilation[axis]]
        windows.append(view)
    places = (len(view), *view.shape[2 : 2 + len(kernel)])
    total = math.prod(places)
    chosen = generator.choice(total, min(PATCHES, total), replace=False)
    image, *position = (torch.from_numpy(at) for at in np.unravel_index(chosen, places))
    return [view.movedim(1, -1)[(image, *position)].movedim(-1, 1) for view in windows]


def _each(value: int | Sequence[int], kernel: Sequence[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * len(kernel) if len(values) == 1 else values


def _fit(
    weight: Tensor,
    kept: NDArray[np.bool_],
    dense: Tensor,
    pruned: Tensor,
    *,
    groups: int,
    free_mean: bool,
) -> Tensor:
    """Fit a layer's kept weights to its dense pre-activations, in place.

    Args:
        weight: (outputs, columns, *kernel), trained.
        kept: mask of the weight.
        dense: (samples, channels, *kernel) inputs of the dense network.
        pruned: the same of the pruned network.
        groups: of a grouped convolution.
        free_mean: whether the layer's outputs may be shifted.

    Returns:
        (outputs,) the shift of the layer's outputs that keeps their means.
    """
    masks = np.split(kept.reshape(len(kept), -1), groups)
    parts = zip(
        weight.flatten(1).double().chunk(groups),
        masks,
        dense.chunk(groups, 1),
        pruned.chunk(groups, 1),
        strict=True,
    )
    fitted, shifts = [], []
    for own, mask, *inputs in parts:
        target, read = (values.flatten(1).double() for values in inputs)
        means = target.mean(0), read.mean(0)
        if free_mean:
            target, read = target - means[0], read - means[1]
        fitted.append(_least_squares(own, mask, target, read))
        shifts.append(own @ means[0] - fitted[-1] @ means[1])
    weight.copy_(torch.cat(fitted).view_as(weight))
    return torch.cat(shifts)


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
