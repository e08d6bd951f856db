"""Scores of the weight blocks of a layer, and their file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockScores:
    """Scores of the weight blocks of one layer.

    Example:
        ```python
        # A linear layer of 4 x 6 weights in 2 x 3 blocks.
        BlockScores(value, np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 1, 2, 2]]))
        ```

    Attributes:
        value: (child groups, parent groups); blocks of the lowest scores are pruned first.
        child_labels: (rows,) the group of every row of the weight, that is of every child filter.
        parent_labels: (1, columns) the group of the parent filter that each column reads;
            (rows, columns) for a grouped convolution, whose filters read different parents; with
            the dimensions of the kernel appended if the positions of a kernel differ in block.
        kernel: further dimensions of the weight, such as (3, 3); () for a linear layer.
        transposed: whether the parameter is (columns, rows, *kernel).
        reliability: rank correlation to expect with the scores of as many new bootstraps; nan if
            undefined, as for one bootstrap.
        standard_error: (child groups, parent groups) of value.
        z_score: (child groups, parent groups) of the test for dependence.
        bootstraps: (bootstraps, child groups, parent groups) the estimates whose mean is value.
    """

    value: NDArray[np.float64]
    child_labels: NDArray[np.int64]
    parent_labels: NDArray[np.int64]
    kernel: tuple[int, ...] = ()
    reliability: float = math.nan
    standard_error: NDArray[np.float64] | None = None
    z_score: NDArray[np.float64] | None = None
    bootstraps: NDArray[np.float64] | None = None
    transposed: bool = False

    @property
    def rows(self) -> NDArray[np.int64]:
        """child_labels as (rows, 1, ...), to broadcast with parent_labels."""
        return self.child_labels.reshape(-1, *(1 for _ in self.parent_labels.shape[1:]))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(child groups, parent groups) numbers of weights; 0 for a block that has none."""
        children, parents = self.value.shape
        block = self.rows * parents + self.parent_labels
        entries = np.bincount(block.ravel(), minlength=children * parents)
        per_entry = math.prod(self.kernel) // math.prod(self.parent_labels.shape[2:])
        return entries.reshape(children, parents) * per_entry

    def expand(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the parameter's mask, in its shape, from a mask of the blocks."""
        entries = kept[self.rows, self.parent_labels]
        shape = (*entries.shape[:2], *self.kernel)
        entries = entries.reshape(*entries.shape, *(1 for _ in shape[entries.ndim :]))
        mask = np.broadcast_to(entries, shape)
        return (mask.swapaxes(0, 1) if self.transposed else mask).copy()


def save_scores(
    path: Path, scores: Mapping[str, BlockScores], **arrays: NDArray[np.generic]
) -> None:
    """Write scores by the weight's name, as arrays WEIGHT/FIELD, and further arrays as .npz."""
    content: dict[str, NDArray[np.generic]] = dict(arrays)
    for weight, layer in scores.items():
        for field in fields(layer):
            if (value := getattr(layer, field.name)) is not None:
                content[f"{weight}/{field.name}"] = np.asarray(value)
    np.savez(path, allow_pickle=False, **content)


def load_scores(path: Path) -> dict[str, BlockScores]:
    """Return the scores that save_scores wrote, by the weight's name."""
    layers: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays:
            weight, slash, field = name.rpartition("/")
            if slash:
                layers.setdefault(weight, {})[field] = arrays[name]
    for layer in layers.values():
        layer["kernel"] = tuple(map(int, layer["kernel"]))
        layer["reliability"] = float(layer["reliability"])
        layer["transposed"] = bool(layer.get("transposed", False))  # older files have none
    return {weight: BlockScores(**layer) for weight, layer in layers.items()}
