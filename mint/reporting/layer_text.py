"""The layer table as markdown."""

import math
from collections.abc import Sequence

from mint.pruning.layer_table import LayerCount
from mint.reporting.markdown import table


def layer_lines(layers: Sequence[LayerCount], star: str = "*") -> list[str]:
    """Return the lines of a markdown table of layers; pairs that may be pruned are starred.

    Kept weights of layers that may be pruned are blank before pruning. A markdown page needs an
    escaped star.
    """
    kept = [layer.weights if layer.reason else layer.kept for layer in layers]
    reasons = [*(layer.reason or "" for layer in layers), ""]
    cells = layer_cells(layers, kept, star, unknown="")
    rows = [[*row, reason] for row, reason in zip(cells, reasons, strict=True)]
    header = ["Layer pair", "Weights", "Kept", "Kept (%)", "Not prunable, because"]
    return [*table(header, rows, left=(0, 4)), "", count_not_prunable(layers)]


def layer_cells(
    layers: Sequence[LayerCount], kept: Sequence[float | None], star: str, unknown: str
) -> list[list[str]]:
    """Return each layer's name, weights and kept weights in number and percent, and the total."""
    rows = []
    for layer, own in zip(layers, kept, strict=True):
        mark = "" if layer.reason else star
        name = f"{mark}{layer.parent} - {layer.name}{mark}"
        rows.append([name, *_counts(layer.weights, own, unknown)])
    known = [own for own in kept if own is not None]
    total = math.fsum(known) if len(known) == len(kept) else None
    return [*rows, ["Total", *_counts(sum(layer.weights for layer in layers), total, unknown)]]


def _counts(weights: int, kept: float | None, unknown: str) -> list[str]:
    if kept is None:
        return [str(weights), unknown, unknown]
    return [str(weights), f"{kept:.1f}".removesuffix(".0"), f"{100 * kept / weights:.1f}"]


def count_not_prunable(layers: Sequence[LayerCount]) -> str:
    """Return a line with the number of weights that cannot be pruned."""
    total = sum(layer.weights for layer in layers)
    prunable = sum(layer.weights for layer in layers if not layer.reason)
    return f"Not prunable: {total} - {prunable} = {total - prunable}"
