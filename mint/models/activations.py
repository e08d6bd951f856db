"""Activations of several layers for the same rows."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor

from mint.models.tracing import LayerPair, Traced, evaluating

ROWS_AT_ONCE = 1024


def collect(
    traced: Traced, inputs: Iterable[Tensor], nodes: Mapping[str, int]
) -> dict[str, NDArray[np.float32]]:
    """Run a network on the inputs and return one number a row and filter: the mean over space.

    Args:
        traced: the network.
        inputs: batches (n, ...) on the network's device.
        nodes: for the name of every node of the graph that is wanted, its number of filters C;
            its value is (n, C, ...), or (n, C * m) where C filters were flattened.

    Returns:
        (total of n, C) for every name, rows in the order of the inputs.
    """
    reader = _Reader(traced.graph, nodes)
    with evaluating(traced.graph), torch.inference_mode():
        for batch in inputs:
            reader.run(batch)
    return {name: torch.cat(parts).cpu().numpy() for name, parts in reader.parts.items()}


def nodes_of(pairs: Iterable[LayerPair]) -> dict[str, int]:
    """Return the nodes that pairs tell of, each with its number of filters: for collect."""
    nodes: dict[str, int] = {}
    for pair in pairs:
        nodes[pair.parent_node] = pair.parent_filters
        nodes[pair.child_node] = pair.child_filters
    return nodes


class _Reader(torch.fx.Interpreter):
    """Keeps the means of the wanted nodes, and no value longer than a node still reads it."""

    def __init__(self, graph: torch.fx.GraphModule, filters: Mapping[str, int]) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self._filters = filters
        self.parts: dict[str, list[Tensor]] = {name: [] for name in filters}

    def run_node(self, n: torch.fx.Node) -> object:
        # At once: an operation in place may come next and change the value.
        value = super().run_node(n)
        if n.name in self._filters:
            by_filter = value.reshape(len(value), self._filters[n.name], -1)
            self.parts[n.name].append(by_filter.mean(2, dtype=torch.float32))
        return value
