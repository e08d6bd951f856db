"""Masks: which weights are kept. Scores, a fraction and a limit go in, masks come out; all pure."""

import difflib
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numba
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.errors import InputError


@dataclass(frozen=True)
class BlockScores:
    """Scores of the weight blocks of one layer.

    Example:
        ```python
        # Of a linear layer of 4 x 6 weights in 2 x 3 blocks, by scores of your own.
        BlockScores(value, np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 1, 2, 2]]))
        ```

    Attributes:
        value: (child groups, parent groups); the lowest go first.
        child_labels: (rows,) the group of every row of the weight: of every child filter.
        parent_labels: (1, columns), or (rows, columns) for a grouped convolution, whose filters
            read different ones: the group of the parent filter that each entry reads. With the
            dimensions of the kernel behind, where the positions of one kernel are in different
            blocks.
        kernel: (...) the weight's further dimensions, such as 3 x 3; none for a linear layer.
        reliability: rank correlation to expect with the scores of as many other bootstraps; nan
            where there is none, as for one bootstrap.
        standard_error: (child groups, parent groups) of value; None where no bootstraps are drawn.
    """

    value: NDArray[np.float64]
    child_labels: NDArray[np.int64]
    parent_labels: NDArray[np.int64]
    kernel: tuple[int, ...] = ()
    reliability: float = math.nan
    standard_error: NDArray[np.float64] | None = None

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(child groups, parent groups) numbers of weights in the blocks; 0 where none is read."""
        children, parents = self.value.shape
        block = self.rows * parents + self.parent_labels
        entries = np.bincount(block.ravel(), minlength=children * parents)
        together = math.prod(self.kernel) // math.prod(self.parent_labels.shape[2:])
        return entries.reshape(children, parents) * together

    @property
    def rows(self) -> NDArray[np.int64]:
        """(rows, 1, ...) child_labels, to be broadcast with parent_labels."""
        return self.child_labels.reshape(-1, *(1 for _ in self.parent_labels.shape[1:]))

    def expand(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the weight's mask, (rows, columns, *kernel), of its kept blocks."""
        entries = kept[self.rows, self.parent_labels]
        shape = (*entries.shape[:2], *self.kernel)
        spread = entries.reshape(*entries.shape, *(1 for _ in shape[entries.ndim :]))
        return np.broadcast_to(spread, shape).copy()


class Masks(Mapping[str, NDArray[np.bool_]]):
    """For a weight's name, which of its entries are kept; the weights named can be pruned.

    Example:
        ```python
        masks.save("masks.safetensors")
        masks = Masks.load("masks.safetensors")
        masks["fc2.weight"]  # (300, 500) booleans, as the weight
        ```
    """

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
    def prunable(self) -> int:
        """How many weights the masks speak of."""
        return sum(mask.size for mask in self.values())

    @property
    def pruned(self) -> int:
        """How many of them are held at zero."""
        return sum(int(mask.size - mask.sum()) for mask in self.values())

    @property
    def digest(self) -> str:
        """Sixteen hex digits that two masks share only if they are the same."""
        content = hashlib.sha256()
        for name, mask in self.items():
            content.update(f"{name}{mask.shape}".encode())
            content.update(np.packbits(mask).data)
        return content.hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        """Return them as boolean tensors on the CPU."""
        return {name: torch.from_numpy(mask) for name, mask in self.items()}

    def save(self, path: str | Path) -> None:
        """Write the masks as safetensors: a uint8 tensor for every weight, 1 for kept."""
        safetensors.numpy.save_file(
            {name: mask.astype(np.uint8) for name, mask in self.items()}, path
        )

    def check_fit(self, network: nn.Module) -> None:
        """Refuse masks of another network.

        Raises:
            InputError: a name is none of the network's parameters, or a shape is another.
        """
        _check_fit(self, network)

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
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


@contextmanager
def held_at_zero(
    network: nn.Module, masks: Mapping[str, NDArray[np.bool_]] | Mapping[str, Tensor]
) -> Iterator[None]:
    """Set pruned weights to zero, and keep training from moving them inside the block.

    A weight that starts at zero and whose gradient is zero stays there under SGD, Adam and their
    like: momentum and weight decay only multiply zeros. So the gradients are masked, and nothing
    else of the training changes. The optimizer must be one that is made for this training: momentum
    from before would move the weights.

    Example:
        ```python
        with held_at_zero(network, masks):
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
            for images, labels in loader:
                optimizer.zero_grad()
                cross_entropy(network(images), labels).backward()
                optimizer.step()
        ```

    Args:
        network: on any device; its weights are changed in place, and stay zero behind the block
            until something else trains them.
        masks: for a parameter's name, True or 1 where its weight is kept, of the weight's shape.

    Raises:
        InputError: the masks are of another network.
    """
    _check_fit(masks, network)
    parameters = dict(network.named_parameters())
    hooks = []
    for name, mask in masks.items():
        parameter = parameters[name]
        kept = torch.empty_like(parameter, requires_grad=False).copy_(torch.as_tensor(mask))
        with torch.no_grad():
            parameter.mul_(kept)

        def mask_gradient(updated: Tensor, kept: Tensor = kept) -> None:
            assert updated.grad is not None
            updated.grad.mul_(kept)

        if parameter.requires_grad:
            hooks.append(parameter.register_post_accumulate_grad_hook(mask_gradient))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class PruningOrder:
    """The order in which blocks are pruned: by score over all layers, each up to its limit.

    A longer stretch of the order contains the shorter ones, so masks of one order are nested.
    A layer is done at the first block that would take it over its limit: the limit holds to
    the weight, and no block of higher score overtakes one of lower score.

    Attributes:
        pruned: (steps + 1,) ascending numbers of weights that are gone after 0, 1, 2, ... blocks.
        prunable: number of weights in all layers together.
    """

    def __init__(
        self,
        scores: Mapping[str, BlockScores],
        *,
        limits: Mapping[str, float | None],
        generator: np.random.Generator,
        floor: bool = False,
    ) -> None:
        """Rank the blocks.

        Args:
            scores: for the name of every weight.
            limits: likewise, the largest share of that weight that may go; None for no limit.
            generator: settles the order of equal scores; by position it would favour filters.
            floor: a block that is the last of its child or parent group goes only when there are
                no others, and one that is the last of both at the very end.
        """
        self._scores = dict(scores)
        self._names = list(scores)
        sizes = [scores[name].sizes.ravel() for name in self._names]
        self.prunable = int(sum(size.sum() for size in sizes))
        layer = np.repeat(np.arange(len(sizes)), [size.size for size in sizes])
        block = np.concatenate([np.arange(size.size) for size in sizes])
        size = np.concatenate(sizes)
        value = np.concatenate([scores[name].value.ravel() for name in self._names])

        ranked = generator.permutation(len(value))
        ranked = ranked[np.argsort(value[ranked], kind="stable")]
        if floor:
            cut_off = np.zeros(len(value), np.int8)
            for index, name in enumerate(self._names):
                own = ranked[layer[ranked] == index]
                shape = scores[name].value.shape
                cut_off[own] = _groups_cut_off(block[own], sizes[index].reshape(shape) > 0)
            ranked = ranked[np.argsort(cut_off[ranked], kind="stable")]
        taken = size[ranked] > 0
        for index, name in enumerate(self._names):
            own = layer[ranked] == index
            budget = _share(limits[name], int(sizes[index].sum()))
            taken[own] &= np.cumsum(size[ranked][own]) <= budget
        ranked = ranked[taken]
        self._layers, self._blocks = layer[ranked], block[ranked]
        self.pruned = np.concatenate([[0], np.cumsum(size[ranked])])

    def masks(self, blocks: int) -> Masks:
        """Return the masks that prune the first so many blocks of the order."""
        masks = {}
        for index, name in enumerate(self._names):
            scores = self._scores[name]
            kept = np.ones(scores.value.size, np.bool_)
            kept[self._blocks[:blocks][self._layers[:blocks] == index]] = False
            masks[name] = scores.expand(kept.reshape(scores.value.shape))
        return Masks(masks)

    def blocks_within(self, fraction: float, counted: int) -> int:
        """Return the most blocks that together are no more than a fraction of counted weights."""
        allowed = _share(fraction, counted)
        return int(np.searchsorted(self.pruned, allowed, side="right")) - 1


@numba.njit(cache=True)
def _groups_cut_off(order: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return how many groups lose their last block as each block of a layer goes.

    Those that cut off none go first, in the order that is given, then those that cut off one, then
    two. A block that once would cut off a group always will, so a pass for each number does.

    Args:
        order: (blocks,) positions in the layer's matrix of blocks.
        kept: (child groups, parent groups) which blocks have weights.
    """
    parents = kept.shape[1]
    of_child, of_parent = kept.sum(1), kept.sum(0)
    cut_off = np.full(len(order), -1, np.int8)
    for allowed in range(3):
        for index, position in enumerate(order):
            child, parent = position // parents, position % parents
            if cut_off[index] >= 0:
                continue
            lost = int(of_child[child] == 1) + int(of_parent[parent] == 1)
            if lost <= allowed or not kept[child, parent]:
                cut_off[index] = allowed
                of_child[child] -= kept[child, parent]
                of_parent[parent] -= kept[child, parent]
    return cut_off


def _share(fraction: float | None, weights: int) -> int:
    # Of the decimal number that was meant: in floating point 0.7 of 150000 is a weight short.
    return weights if fraction is None else math.floor(Fraction(repr(fraction)) * weights)


def _check_fit(
    masks: Mapping[str, NDArray[np.bool_]] | Mapping[str, Tensor], network: nn.Module
) -> None:
    parameters = dict(network.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"masks: the network has no weight {name}{hint}")
        if tuple(mask.shape) != tuple(parameters[name].shape):
            raise InputError(
                f"masks: that of {name} is {_size(mask.shape)}, where the network's weight is "
                f"{_size(parameters[name].shape)}"
            )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
