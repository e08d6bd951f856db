"""Activations of several layers for the same rows."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def collect(
    model: nn.Module, inputs: Tensor, outputs_of: Iterable[str], *, batch_size: int = 1024
) -> dict[str, NDArray[np.float32]]:
    """Run the model on the inputs and return what the named modules put out.

    Args:
        model: left in evaluation mode.
        inputs: (n, ...), on the model's device.
        outputs_of: names of modules whose output is (batch, filters).
        batch_size: rows a forward pass.

    Returns:
        (n, filters) for every name, rows in the order of the inputs.
    """
    names = list(dict.fromkeys(outputs_of))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: parts[name].append(output)
        )
        for name in names
    ]
    try:
        model.eval()
        with torch.inference_mode():
            for batch in inputs.split(batch_size):
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts[name]).float().cpu().numpy() for name in names}
