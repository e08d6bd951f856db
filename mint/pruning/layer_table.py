"""The layer table: total and kept weights of every layer, and its one-line form as text."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:  # they import torch, which reports do not need
    from mint.models.layers import LayerPair, Traced
    from mint.pruning.masks import Masks

_ENTRY = re.compile(
    r"(?P<parent>\S+) > (?P<name>\S*): ((?P<kept>\d+)/)?(?P<weights>\d+)( \((?P<reason>.+)\))?"
)


class LayerCount(BaseModel, extra="forbid", frozen=True):
    """Numbers of weights of one convolution or linear layer.

    Attributes:
        parent: layer whose filters it reads; Input for the network's input; ? for neither.
        kept: None before pruning.
        reason: why its weights are not pruned; None if they may be.
    """

    parent: str
    name: str
    weights: int
    kept: int | None
    reason: str | None


def count_layers(
    traced: "Traced", chosen: "Iterable[LayerPair]", masks: "Masks | None" = None
) -> tuple[LayerCount, ...]:
    """Count the weights of every layer in forward order; masks are those of the chosen pairs."""
    prunable = {pair.child: pair.weight for pair in chosen}
    kept: dict[str, int] = {}
    if masks is not None:
        kept = {layer.name: layer.weights for layer in traced.layers}
        kept |= {layer: int(masks[weight].sum()) for layer, weight in prunable.items()}
    return tuple(
        LayerCount(
            parent="Input" if layer.reads_input else layer.parent or "?",
            name=layer.name,
            weights=layer.weights,
            kept=kept.get(layer.name),
            reason=None if layer.name in prunable else layer.reason or "left out",
        )
        for layer in traced.layers
    )


def layers_text(layers: Iterable[LayerCount]) -> str:
    """Return all layers in one line, as the trial table has them.

    For example `fc1 > fc2: 6000/150000; fc2 > fc3: 3000/3000 (left out)`: parent, layer, kept and
    total weights, and why the weights are not pruned. Before pruning there are no kept weights.
    """
    entries = []
    for layer in layers:
        kept = "" if layer.kept is None else f"{layer.kept}/"
        reason = f" ({layer.reason.replace(';', ',')})" if layer.reason else ""
        entries.append(f"{layer.parent} > {layer.name}: {kept}{layer.weights}{reason}")
    return "; ".join(entries)


@lru_cache
def parse_layers(text: str) -> tuple[LayerCount, ...]:
    """Return the layers of a line that layers_text wrote; raise ValueError for any other."""
    layers = []
    for entry in text.split("; "):
        if not (match := _ENTRY.fullmatch(entry)):
            raise ValueError(f"{entry!r} is not a layer with its weights")
        layer = LayerCount.model_validate(match.groupdict())
        least = layer.weights if layer.reason else 0
        if layer.kept is not None and not least <= layer.kept <= layer.weights:
            raise ValueError(f"{entry!r} keeps an impossible number of weights")
        layers.append(layer)
    return tuple(layers)
