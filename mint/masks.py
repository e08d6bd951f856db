"""Masks: which weights are kept. Scores, a fraction and a limit go in, masks come out; all pure."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.errors import InputError


@dataclass(frozen=True)
class BlockScores:
    """Scores of the weight blocks of one layer.

    Attributes:
        value: (child groups, parent groups); the lowest go first.
        child_labels: (child filters,) the group of every row of the weight.
        parent_labels: (parent filters,) the group of every column of the weight.
    """

    value: NDArray[np.float64]
    child_labels: NDArray[np.int64]
    parent_labels: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(child groups, parent groups) numbers of weights in the blocks."""
        rows = np.bincount(self.child_labels, minlength=self.value.shape[0])
        columns = np.bincount(self.parent_labels, minlength=self.value.shape[1])
        return np.outer(rows, columns)


class Masks(Mapping[str, NDArray[np.bool_]]):
    """For a weight's name, which of its entries are kept; the weights named are those counted."""

    def __init__(self, kept: Mapping[str, NDArray[np.bool_]]) -> None:
        for name, mask in kept.items():
            if mask.dtype != np.bool_:
                raise TypeError(f"the mask of {name} must be of booleans, not {mask.dtype}")
        self._kept = {name: kept[name] for name in sorted(kept)}

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def counted(self) -> int:
        """How many weights the masks speak of."""
        return sum(mask.size for mask in self.values())

    @property
    def pruned(self) -> int:
        """How many of them are held at zero."""
        return sum(int(mask.size - mask.sum()) for mask in self.values())

    @property
    def params_pruned(self) -> float:
        """Pruned weights over counted weights, in percent."""
        return 100 * self.pruned / self.counted

    @property
    def digest(self) -> str:
        """Sixteen hex digits that two masks share only if they are the same."""
        content = hashlib.sha256()
        for name, mask in self.items():
            content.update(f"{name}{mask.shape}".encode())
            content.update(np.packbits(mask).data)
        return content.hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(mask) for name, mask in self.items()}

    def save(self, path: Path) -> None:
        """Write the masks as safetensors: a uint8 tensor for every weight, 1 for kept."""
        safetensors.numpy.save_file(
            {name: mask.astype(np.uint8) for name, mask in self.items()}, path
        )

    @classmethod
    def load(cls, path: Path) -> "Masks":
        """Read masks that were saved.

        Raises:
            InputError: the file is not one of masks.
        """
        try:
            tensors = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read as masks: {error}") from error
        for name, tensor in tensors.items():
            if not np.isin(tensor, (0, 1)).all():
                raise InputError(f"{path}: the mask of {name} has values other than 0 and 1")
        return cls({name: tensor.astype(np.bool_) for name, tensor in tensors.items()})


class PruningOrder:
    """The order in which blocks are pruned: by score over all layers, each up to its limit.

    A longer stretch of the order contains the shorter ones, so masks of one order are nested.
    A layer is done at the first block that would take it over its limit: the limit holds to
    the weight, and no block of higher score overtakes one of lower score.

    Attributes:
        pruned: (steps + 1,) ascending numbers of weights that are gone after 0, 1, 2, ... blocks.
        counted: number of weights in all layers together.
    """

    def __init__(
        self,
        scores: Mapping[str, BlockScores],
        *,
        upper_limit: float | None,
        generator: np.random.Generator,
    ) -> None:
        """Rank the blocks.

        Args:
            scores: for the name of every weight.
            upper_limit: largest share of one layer's weights that may go; None for no limit.
            generator: settles the order of equal scores; by position it would favour filters.
        """
        self._scores = dict(scores)
        sizes = {name: layer.sizes for name, layer in scores.items()}
        self.counted = int(sum(size.sum() for size in sizes.values()))
        ranked = [
            (float(layer.value[i, j]), name, i, j)
            for name, layer in scores.items()
            for i, j in np.ndindex(*layer.value.shape)
        ]
        ranked = [ranked[index] for index in generator.permutation(len(ranked))]
        ranked.sort(key=lambda block: block[0])

        budget = {name: _share(upper_limit, int(size.sum())) for name, size in sizes.items()}
        self._blocks: list[tuple[str, int, int]] = []
        pruned = [0]
        closed = set()
        for _, name, i, j in ranked:
            size = int(sizes[name][i, j])
            if name in closed or size > budget[name]:
                closed.add(name)
                continue
            budget[name] -= size
            self._blocks.append((name, i, j))
            pruned.append(pruned[-1] + size)
        self.pruned = np.array(pruned)

    def masks(self, blocks: int) -> Masks:
        """Return the masks that prune the first so many blocks of the order."""
        kept = {name: np.ones(layer.value.shape, np.bool_) for name, layer in self._scores.items()}
        for name, i, j in self._blocks[:blocks]:
            kept[name][i, j] = False
        return Masks(
            {
                name: kept[name][np.ix_(layer.child_labels, layer.parent_labels)]
                for name, layer in self._scores.items()
            }
        )


def prune(
    scores: Mapping[str, BlockScores],
    fraction: float,
    *,
    upper_limit: float | None,
    generator: np.random.Generator,
) -> Masks:
    """Prune the blocks of lowest score until the next would take more than this fraction."""
    order = PruningOrder(scores, upper_limit=upper_limit, generator=generator)
    allowed = _share(fraction, order.counted)
    return order.masks(int(np.searchsorted(order.pruned, allowed, side="right")) - 1)


def _share(fraction: float | None, weights: int) -> int:
    # Of the decimal number that was meant: in floating point 0.7 of 150000 is a weight short.
    return weights if fraction is None else math.floor(Fraction(repr(fraction)) * weights)
