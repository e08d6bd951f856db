"""The ranking of the blocks of all layers by score, with a limit on each layer."""

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mint.errors import InputError
from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores


class BlockRanking:
    """Blocks in the order in which they are pruned: by score over all layers, lowest first.

    Masks are nested: a larger pruned fraction removes a superset of the blocks. A layer's ranking
    ends before the first block that would exceed its limit. So the limit holds exactly, and within
    a layer no block is pruned before one of a lower score.

    Attributes:
        pruned: (blocks + 1,) ascending; entry k is the number of weights in the first k blocks.
        prunable: number of weights in all layers.
    """

    def __init__(
        self,
        scores: Mapping[str, BlockScores],
        *,
        limits: Mapping[str, float | None],
        generator: np.random.Generator,
        keep_connected: bool = False,
    ) -> None:
        """Rank the blocks.

        Args:
            scores: by the weight's name.
            limits: for the same names, the largest share of the weight that may be pruned.
            generator: orders equal scores; an order by position would favour some filters.
            keep_connected: rank the last block of a child or parent group after all blocks that are
                not the last of a group, and a block that is the last of both at the end.

        Raises:
            InputError: a score is not a number.
        """
        for name, blocks in scores.items():
            if np.isnan(blocks.value).any():
                raise InputError(f"scores of {name}: some are not a number, and cannot be ranked")
        self._scores = dict(scores)
        sizes = [blocks.sizes for blocks in scores.values()]
        layer = np.repeat(np.arange(len(sizes)), [of_layer.size for of_layer in sizes])
        size = np.concatenate([of_layer.ravel() for of_layer in sizes])
        value = np.concatenate([blocks.value.ravel() for blocks in scores.values()])
        self.prunable = int(size.sum())

        ranked = generator.permutation(len(value))
        ranked = ranked[np.argsort(value[ranked], kind="stable")]
        if keep_connected:
            disconnected = np.zeros(len(value), np.int8)
            for index, of_layer in enumerate(sizes):
                own = ranked[layer[ranked] == index]
                disconnected[own] = _groups_disconnected(own - own.min(), of_layer > 0)
            ranked = ranked[np.argsort(disconnected[ranked], kind="stable")]
        allowed = size[ranked] > 0
        for index, name in enumerate(scores):
            if (limit := limits[name]) is not None:
                own = layer[ranked] == index
                budget = _share(limit, int(sizes[index].sum()))
                allowed[own] &= np.cumsum(size[ranked][own]) <= budget
        self._ranked = ranked[allowed]
        self.pruned = np.concatenate([[0], np.cumsum(size[self._ranked])])

    def masks(self, blocks: int) -> Masks:
        """Return the masks that prune the first `blocks` blocks."""
        ends = np.cumsum([scores.value.size for scores in self._scores.values()])
        kept = np.ones(ends[-1], np.bool_)
        kept[self._ranked[:blocks]] = False
        masks = {}
        for (name, scores), own in zip(
            self._scores.items(), np.split(kept, ends[:-1]), strict=True
        ):
            masks[name] = scores.expand(own.reshape(scores.value.shape))
        return Masks(masks)

    def blocks_within(self, fraction: float, counted: int) -> int:
        """Return the largest number of blocks whose weights are at most fraction * counted."""
        return int(np.searchsorted(self.pruned, _share(fraction, counted), side="right")) - 1


@compile_kernel
def _groups_disconnected(order: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return how many groups lose their last block when each block of a layer is pruned.

    Blocks that disconnect no group are pruned first, in the given order of positions, then those
    that disconnect one, then two. One pass for each number suffices: a block that would disconnect
    a group will do so from then on.
    """
    parents = kept.shape[1]
    of_child, of_parent = kept.sum(1), kept.sum(0)
    disconnected = np.full(len(order), -1, np.int8)
    for allowed in range(3):
        for index, position in enumerate(order):
            child, parent = position // parents, position % parents
            if disconnected[index] >= 0:
                continue
            lost = int(of_child[child] == 1) + int(of_parent[parent] == 1)
            if lost <= allowed or not kept[child, parent]:
                disconnected[index] = allowed
                of_child[child] -= kept[child, parent]
                of_parent[parent] -= kept[child, parent]
    return disconnected


def _share(fraction: float, weights: int) -> int:
    # As a decimal number: in floating point 0.7 * 150000 is less than 105000.
    return math.floor(Fraction(repr(fraction)) * weights)
