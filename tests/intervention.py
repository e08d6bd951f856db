"""Confirms what tracing says of a network's layers, by changing filters and seeing what changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor

from mint.models.layers import Traced
from mint.models.running import Rerun


class _Run(Rerun):
    """Runs a network with the outputs of some nodes replaced, and keeps those of others."""

    def __init__(self, traced: Traced, replaced: Mapping[str, Tensor], kept: Sequence[str]) -> None:
        super().__init__(traced.graph)
        self._replaced = replaced
        self.kept: dict[str, Any] = dict.fromkeys(kept)

    def apply(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = super().apply(node, args, kwargs)
        return self._replaced[node.name].clone() if node.name in self._replaced else value

    def seen(self, node: torch.fx.Node, value: Any) -> None:
        if node.name in self.kept:
            self.kept[node.name] = self._replaced.get(node.name, value).clone()


def check_pairs(traced: Traced, inputs: Tensor, most: int = 12) -> int:
    """Change filters one at a time; assert that exactly the channels that mint says change.

    The outputs of all other layers stay as they are: what is changed is what a child reads of a
    parent without another layer between.

    Args:
        traced: of a network on the CPU.
        inputs: (n, ...) at which the network runs.
        most: number of filters of each layer that are changed.

    Returns:
        The number of changes of filters that were checked.
    """
    layers = dict(traced.nodes)
    pairs = [pair for pair in traced.pairs if pair.parent != "input"]
    read = {pair.child: traced.recorded[pair.parent_node].node for pair in pairs}
    base = _Run(traced, {}, [*layers.values(), *read.values()])
    base.run(traced.network, inputs)
    outputs = {name: base.kept[node] for name, node in layers.items()}
    said: dict[tuple[str, int], dict[str, set[int]]] = {}
    for pair in pairs:
        for channel, filters in enumerate(traced.filters_read(pair.child)):
            for each in filters:
                said.setdefault(each, {}).setdefault(pair.child, set()).add(channel)
    checked = 0
    for layer in {layer for layer, _ in said}:
        indices = sorted(index for name, index in said if name == layer)
        for index in indices[:: max(1, len(indices) // most)]:
            replaced = {layers[name]: value for name, value in outputs.items()}
            changed = outputs[layer].clone()
            dim = traced.dims[layer]
            changed.select(dim, index).add_(torch.rand(changed.select(dim, index).shape) * 9 + 1)
            replaced[layers[layer]] = changed
            run = _Run(traced, replaced, list(read.values()))
            run.run(traced.network, inputs)
            for pair in pairs:
                node = read[pair.child]
                difference = (run.kept[node] - base.kept[node]).abs()
                own = traced.dims[pair.child] % difference.dim()
                by_channel = difference.amax([d for d in range(difference.dim()) if d != own])
                found = set(by_channel.nonzero().flatten().tolist())
                expected = said[layer, index].get(pair.child, set())
                assert found == expected, (layer, index, pair.child, found ^ expected)
                checked += 1
    return checked
