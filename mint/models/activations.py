"""Activations of several layers for the same rows."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor

from mint.models.layers import LayerPair, Traced
from mint.models.tracing import evaluating

ROWS_AT_ONCE = 1024


def collect_activations(
    traced: Traced,
    inputs: Iterable[Tensor],
    pairs: Sequence[LayerPair],
    *,
    absolute: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Return the activations that the pairs' scores are estimated from.

    Args:
        traced: the network.
        inputs: batches (n, ...) on the network's device.
        pairs: the layer pairs.
        absolute: average absolute values, as a magnitude needs: opposite signs do not cancel.

    Returns:
        For each pair's parent_node and child_node, (rows, filters): means over space.
    """
    filters = {pair.parent_node: pair.parent_filters for pair in pairs}
    filters |= {pair.child_node: pair.child_filters for pair in pairs}
    reader = _Reader(traced.graph, filters, absolute=absolute)
    with evaluating(traced.graph), torch.inference_mode():
        for batch in inputs:
            reader.run(batch)
    return {name: torch.cat(parts).cpu().numpy() for name, parts in reader.parts.items()}


class _Reader(torch.fx.Interpreter):
    """Records the spatial means of some nodes while the graph runs."""

    def __init__(
        self, graph: torch.fx.GraphModule, filters: Mapping[str, int], *, absolute: bool
    ) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self._filters = filters
        self._absolute = absolute
        self.parts: dict[str, list[Tensor]] = {name: [] for name in filters}

    def run_node(self, n: torch.fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self._filters:  # read now: an operation in place may change it next
            by_filter = value.reshape(len(value), self._filters[n.name], -1)
            averaged = by_filter.abs() if self._absolute else by_filter
            self.parts[n.name].append(averaged.mean(2, dtype=torch.float32))
        return value
