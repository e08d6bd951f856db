"""Pairs of weight layers, found by tracing the network."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch.fx
from torch import nn

# Modules between two weight layers that act on every filter by itself.
_PASSED_THROUGH = (nn.ReLU, nn.Dropout, nn.Flatten)


@dataclass(frozen=True)
class LayerPair:
    """A child layer that reads what its parent layer puts out.

    Attributes:
        parent: name of the parent's module.
        child: name of the child's module; its weights are what the pair's mask prunes.
        parent_output: name of the module whose output is the parent's activation.
        child_output: name of the module whose output is the child's activation.
    """

    parent: str
    child: str
    parent_output: str
    child_output: str


def layer_pairs(model: nn.Module) -> list[LayerPair]:
    """Return the pairs of a chain of linear layers, in the order of the forward pass.

    The activation of a layer is taken behind its non-linearity: what the next layer reads.
    """
    modules = dict(model.named_modules())
    chain = [
        str(node.target)
        for node in torch.fx.symbolic_trace(model).graph.nodes
        if node.op == "call_module"
    ]
    layers: list[tuple[str, str]] = []  # name and the module that gives its activation
    for name in chain:
        module = modules[name]
        if isinstance(module, nn.Linear):
            layers.append((name, name))
        elif isinstance(module, nn.ReLU) and layers:
            layers[-1] = (layers[-1][0], name)
        elif not isinstance(module, _PASSED_THROUGH):
            raise TypeError(f"{name}: cannot trace through {type(module).__name__}")
    return [
        LayerPair(parent, child, parent_output, child_output)
        for (parent, parent_output), (child, child_output) in pairwise(layers)
    ]


def chosen_pairs(model: nn.Module, names: Iterable[tuple[str, str]]) -> list[LayerPair]:
    """Return the model's pairs of these (parent, child) names, in the order of the model."""
    wanted = set(names)
    return [pair for pair in layer_pairs(model) if (pair.parent, pair.child) in wanted]
