"""Gradients of the loss with respect to weights."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mint.models.layers import Traced
from mint.models.running import evaluating, logits

ROWS_AT_ONCE_BACKWARD = 128  # a backward pass keeps the values of every layer


def loss_gradients(
    traced: Traced, batches: Iterable[tuple[Tensor, Tensor]], weights: Sequence[str]
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy over all rows, in evaluation mode.

    Args:
        traced: the network; its parameters' own gradients are unchanged.
        batches: inputs (n, ...) and labels (n,) on the network's device.
        weights: names of parameters.

    Returns:
        For every name, a float64 tensor of the parameter's shape on the CPU.
    """
    parameters = [traced.network.get_parameter(name) for name in weights]
    sums = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    rows = 0
    with evaluating(traced.network), torch.enable_grad():
        for inputs, labels in batches:
            loss = functional.cross_entropy(logits(traced.network(inputs)), labels, reduction="sum")
            for total, part in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
                total += part
            rows += len(labels)
    return {name: (total / rows).cpu() for name, total in zip(weights, sums, strict=True)}
