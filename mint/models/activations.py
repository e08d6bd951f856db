"""Activations of several layers for the same rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor

from mint.models.layers import LayerPair, Traced
from mint.models.recorded import Recorded
from mint.models.running import Rerun

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
        For each pair's parent_node and child_node, (rows, filters): means over space or tokens.
    """
    keys = {key for pair in pairs for key in (pair.parent_node, pair.child_node)}
    recorded = {key: traced.recorded[key] for key in sorted(keys)}
    reader = _Reader(traced.graph, recorded, absolute=absolute)
    for batch in inputs:
        reader.run(traced.network, batch)
    return {name: torch.cat(parts).cpu().numpy() for name, parts in reader.parts.items()}


class _Reader(Rerun):
    """Records the means of some values over each filter while the network runs."""

    def __init__(
        self, graph: torch.fx.Graph, recorded: Mapping[str, Recorded], *, absolute: bool
    ) -> None:
        super().__init__(graph)
        self._recorded = {
            node: [key for key, value in recorded.items() if value.node == node]
            for node in {value.node for value in recorded.values()}
        }
        self._values = recorded
        self._absolute = absolute
        self.parts: dict[str, list[Tensor]] = {key: [] for key in recorded}

    def seen(self, node: torch.fx.Node, value: Any) -> None:
        for key in self._recorded.get(node.name, ()):
            entries = value.abs() if self._absolute else value
            self.parts[key].append(self._values[key].means(entries))
