"""The layer table as markdown."""

from collections.abc import Sequence

from mint.pruning.layer_table import LayerCount
from mint.reporting.markdown import table


def layer_lines(layers: Sequence[LayerCount], star: str = "*") -> list[str]:
    """Return the lines of a markdown table of layers; pairs that may be pruned are starred.

    Kept weights of layers that may be pruned are blank before pruning.

    Args:
        layers: of a network.
        star: the mark of prunable pairs; a markdown page needs it escaped.
    """
    rows = []
    for layer in layers:
        mark = "" if layer.reason else star
        kept = layer.weights if layer.reason else layer.kept
        name = f"{mark}{layer.parent} - {layer.name}{mark}"
        rows.append([name, *_counts(layer.weights, kept), layer.reason or ""])
    total = sum(layer.weights for layer in layers)
    prunable = sum(layer.weights for layer in layers if not layer.reason)
    kept_weights = [layer.kept for layer in layers if layer.kept is not None]
    kept = sum(kept_weights) if len(kept_weights) == len(layers) else None
    rows.append(["Total", *_counts(total, kept), ""])
    header = ["Layer pair", "Weights", "Kept", "Kept (%)", "Not prunable, because"]
    return [
        *table(header, rows, left=(0, 4)),
        "",
        f"Not prunable: {total} - {prunable} = {total - prunable}",
    ]


def _counts(weights: int, kept: int | None) -> list[str]:
    if kept is None:
        return [str(weights), "", ""]
    return [str(weights), str(kept), f"{100 * kept / weights:.1f}"]
