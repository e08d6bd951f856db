"""The layer breakdown, as the record has it: every layer's weights, total and kept; as text too."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from mint.reporting.markdown import table

if TYPE_CHECKING:  # they bring torch along, which the tables of a report can do without
    from mint.models import LayerPair, Traced
    from mint.pruning.masks import Masks

READS_INPUT = "reads the input"  # why a layer's weights are left alone, where nobody named them
_ENTRY = re.compile(
    r"(?P<parent>\S+) > (?P<name>\S*): ((?P<kept>\d+)/)?(?P<weights>\d+)( \((?P<untouched>.+)\))?"
)


class LayerCount(BaseModel):
    """Weights of one convolution or linear layer.

    Attributes:
        parent: the layer before, whose filters it reads; None where it has none.
        name: of the layer.
        weights: how many it has.
        kept: how many of them are left; None where nothing was pruned yet.
        untouched: why its weights are not pruned; None where they may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent: str | None
    name: str
    weights: int
    kept: int | None
    untouched: str | None

    @property
    def before(self) -> str:
        """The layer before in words: Input where it reads that, ? where it has none."""
        # Of the layers without one, only those that read the input may be pruned.
        return self.parent or ("Input" if self.untouched in (None, READS_INPUT) else "?")


def count_layers(
    traced: "Traced", chosen: "Iterable[LayerPair]", masks: "Masks | None" = None
) -> tuple[LayerCount, ...]:
    """Count the weights of every convolution and linear layer, in order of the forward pass.

    Args:
        traced: the network.
        chosen: the pairs that may be pruned; their children's weights.
        masks: of a finished trial.
    """
    pruned = {pair.child for pair in chosen}
    rows = []
    for layer in traced.layers:
        touched = layer.name in pruned
        kept = None
        if masks is not None:
            kept = int(masks[f"{layer.name}.weight"].sum()) if touched else layer.weights
        reason = None if touched else layer.reason or "left out"
        rows.append(
            LayerCount(
                parent=layer.parent,
                name=layer.name,
                weights=layer.weights,
                kept=kept,
                untouched=reason,
            )
        )
    return tuple(rows)


def breakdown(layers: Sequence[LayerCount], star: str = "*") -> list[str]:
    """Return the lines of a markdown table; pairs that may be pruned are starred.

    As in the record the third column tells what is left: of untouched layers always, of others
    once they are pruned.

    Args:
        layers: of a network.
        star: as the table's reader has it; a page of markdown needs it escaped.
    """
    rows = []
    for layer in layers:
        mark = "" if layer.untouched else star
        kept = layer.weights if layer.untouched else layer.kept
        rows.append(
            [
                f"{mark}{layer.before} - {layer.name}{mark}",
                str(layer.weights),
                "" if kept is None else str(kept),
                "" if kept is None else f"{100 * kept / layer.weights:.1f}",
                layer.untouched or "",
            ]
        )
    total = sum(layer.weights for layer in layers)
    prunable = sum(layer.weights for layer in layers if not layer.untouched)
    pruned = all(layer.kept is not None for layer in layers)
    kept_in_all = sum(layer.kept or 0 for layer in layers)
    rows.append(
        [
            "Total",
            str(total),
            str(kept_in_all) if pruned else "",
            f"{100 * kept_in_all / total:.1f}" if pruned else "",
            "",
        ]
    )
    header = ["Layer pair", "Weights", "Kept", "Kept (%)", "Untouched, because"]
    return [
        *table(header, rows, left=(0, 4)),
        "",
        f"Untouched weights: {total} - {prunable} = {total - prunable}",
    ]


def layers_text(layers: Iterable[LayerCount]) -> str:
    """Return all layers in one line.

    Such as `fc1 > fc2: 6000/150000; fc2 > fc3: 3000/3000 (left out)`: a layer behind the one
    before it, its weights that are kept and all, or all alone where nothing was pruned yet, and
    why they are left alone.
    """
    return "; ".join(
        f"{layer.before} > {layer.name}: "
        + ("" if layer.kept is None else f"{layer.kept}/")
        + f"{layer.weights}"
        + (f" ({layer.untouched.replace(';', ',')})" if layer.untouched else "")
        for layer in layers
    )


@lru_cache
def parse_layers(text: str) -> tuple[LayerCount, ...]:
    """Return the layers of such a line.

    Raises:
        ValueError: it is none, or a layer keeps more weights than it has.
    """
    layers = []
    for entry in text.split("; "):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"{entry!r} is no layer with its weights")
        parent, kept = match["parent"], match["kept"]
        layer = LayerCount(
            parent=None if parent in ("Input", "?") else parent,
            name=match["name"],
            weights=int(match["weights"]),
            kept=None if kept is None else int(kept),
            untouched=match["untouched"],
        )
        least = layer.weights if layer.untouched else 0
        if layer.kept is not None and not least <= layer.kept <= layer.weights:
            raise ValueError(f"{entry!r} keeps weights that it cannot")
        layers.append(layer)
    return tuple(layers)
