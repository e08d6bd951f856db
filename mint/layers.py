"""The layer breakdown of a network, as the record has it: every layer's weights, total and kept."""

from collections.abc import Iterable, Sequence

from mint.markdown import table
from mint.masks import Masks
from mint.networks import LayerPair, Traced
from mint.results import LayerCount


def count_layers(
    traced: Traced, chosen: Iterable[LayerPair], masks: Masks | None = None
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


def breakdown(layers: Sequence[LayerCount]) -> list[str]:
    """Return the lines of a markdown table; pairs that may be pruned are starred.

    As in the record the third column tells what is left: of untouched layers always, of others
    once they are pruned.
    """
    rows = []
    for layer in layers:
        star = "" if layer.untouched else "*"
        before = layer.parent or ("Input" if layer.untouched == "reads the input" else "?")
        kept = layer.weights if layer.untouched else layer.kept
        rows.append(
            [
                f"{star}{before} - {layer.name}{star}",
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
