"""One bootstrap of the estimator for all blocks on a GPU, or wherever torch runs.

The distances of a block are the sum of a matrix of its child group and one of its parent group. A
launch takes as many of both as memory holds and grows the trees of all their pairs side by side.
Triton does the work on a GPU; elsewhere torch grows the same trees by the same rules.
"""

import math
import os
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from mint.gmi.bootstrap import MEMORY_LIMIT, EdgeCounts, Split
from mint.gmi.cpu.groups import Layer, shared_bases
from mint.gmi.cpu.matching import find_partners
from mint.machine import threads

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_FLOAT_BYTES = 4
_ROW_ALIGNMENT = 16  # floats; rows of a matrix start at multiples of it, for wide loads
# Bytes of a tree per node while it grows or is counted: keys, ends, two gathered rows and the
# temporaries of torch's steps, rounded up.
_TREE_BYTES = 64


def count_blocks_on(
    device: str | torch.device,
    child: Floats,
    parent: Floats,
    child_groups: Sequence[Integers],
    parent_groups: Sequence[Integers],
    split: Split,
    *,
    scaled: bool = True,
    one_to_one: bool = True,
    conditional: bool = True,
    memory_limit: int = MEMORY_LIMIT,
) -> EdgeCounts:
    """Count edges in the minimum spanning trees of all pairs of a child group and a parent group.

    The trees are those of `mint.gmi.cpu.engine.count_blocks`, but rounding hides a Z with less
    than a millionth of the variance. Of equal distances, that of the lowest pooled row is taken.

    `device` is cuda or cpu: where to grow the trees. Partners are found on the CPU. `memory_limit`
    is in bytes of tensors on the device; more of them means fewer, fuller launches. The other
    arguments are those of the CPU engine.

    Raises:
        ValueError: the memory limit is too small for one block, or a group varies too little.
    """
    layers = Layer.of(child), Layer.of(parent)
    bases = shared_bases(layers[1], parent_groups, None, conditional)
    partners = find_partners(layers[1], bases, split, one_to_one=one_to_one, threads=threads())
    others = [np.setdiff1d(np.arange(parent.shape[1]), group) for group in parent_groups]
    child_weights = _weights(layers[0], child_groups, scaled)
    own_weights = _weights(layers[1], parent_groups, scaled)
    rest_weights = _weights(layers[1], others, scaled) if conditional else [0.0] * len(others)
    blocks = _Blocks(torch.device(device), layers, split, any(rest_weights))
    counts = np.zeros((2, len(child_groups), len(parent_groups)), np.int64)
    at_once = blocks.fit(memory_limit, len(child_groups), len(parent_groups))
    child_distances, parent_distances = (blocks.matrices(count) for count in at_once)
    loaded: range | None = None
    for columns in _batches(len(parent_groups), at_once[1]):
        for out, j in zip(parent_distances, columns, strict=False):
            weights = own_weights[j], rest_weights[j]
            blocks.write_parent(out, parent_groups[j], partners[j], weights)
        for rows in _batches(len(child_groups), at_once[0]):
            if rows != loaded:  # a single batch of child groups serves every parent group
                for out, i in zip(child_distances, rows, strict=False):
                    weight = child_weights[i]
                    blocks.write(out, blocks.child, child_groups[i], blocks.pooled, weight)
                loaded = rows
            found = blocks.count(child_distances[: len(rows)], parent_distances[: len(columns)])
            counts[:, rows.start : rows.stop, columns.start : columns.stop] = found
    return EdgeCounts(*counts)


def _weights(layer: Layer, groups: Sequence[Integers], scaled: bool) -> list[float]:
    """Return the factor of each group's squared distances: 0 if the group is constant."""
    variances = [layer.variance(group) for group in groups]
    if not scaled:
        return [float(variance > 0) for variance in variances]
    weights = [1 / variance if variance > 0 else 0.0 for variance in variances]
    if any(weight > 1 / float(np.finfo(np.float32).tiny) for weight in weights):
        raise ValueError("activations of a group vary too little for squares in float32")
    return [float(np.float32(weight)) for weight in weights]


class _Blocks:
    """Activations and distances on the device, for the rows of one split."""

    def __init__(
        self, device: torch.device, layers: tuple[Layer, Layer], split: Split, with_rest: bool
    ) -> None:
        self.device, self.first = device, split.first
        self.pooled = np.concatenate([split.first, split.second])
        self.stride = _stride(len(self.pooled))
        self.child, self.parent = (
            torch.from_numpy(np.ascontiguousarray(layer.values.T)).to(device) for layer in layers
        )
        self.base = self.matrices(int(with_rest))
        for out in self.base:
            self.write(out, self.parent, np.arange(len(self.parent)), self.pooled, 1.0)

    def fit(self, memory_limit: int, children: int, parents: int) -> tuple[int, int]:
        """Return the numbers of child and parent groups whose launch fits the limit best."""
        filters, with_rest = (len(self.child), len(self.parent)), len(self.base) > 0
        rows, samples = len(self.pooled), self.child.shape[1]
        while True:
            needed = launch_bytes(samples, rows, filters, (children, parents), with_rest=with_rest)
            if needed <= memory_limit:
                return children, parents
            if children == parents == 1:
                raise ValueError(
                    f"memory_limit {memory_limit}: a tree of {rows} rows needs at least "
                    f"{needed} bytes"
                )
            # For a given sum the product is largest if both are equal.
            if children > parents:
                children -= 1
            else:
                parents -= 1

    def matrices(self, count: int) -> torch.Tensor:
        """Return uninitialised (count, rows, rows) distances whose rows start aligned."""
        rows = len(self.pooled)
        return torch.empty((count, rows, self.stride), device=self.device)[..., :rows]

    def write(
        self, out: torch.Tensor, layer: torch.Tensor, group: Integers, rows: Integers, weight: float
    ) -> None:
        """Write the weighted distances over a group of the layer to `out`, (rows, rows)."""
        columns = torch.from_numpy(group).to(self.device)[:, None]
        _squared_distances(layer[columns, torch.from_numpy(rows).to(self.device)], out)
        out.mul_(weight)

    def write_parent(
        self, out: torch.Tensor, group: Integers, partners: Integers, weights: tuple[float, float]
    ) -> None:
        """Write the weighted distances over Y, swapped, and over Z to `out`, (rows, rows)."""
        own_weight, rest_weight = weights
        swapped = np.concatenate([self.first, partners])
        self.write(out, self.parent, group, swapped, own_weight)
        if rest_weight:
            rest = self.matrices(1)[0]
            self.write(rest, self.parent, group, self.pooled, 1.0)
            torch.sub(self.base[0], rest, out=rest).clamp_(min=0)
            out.add_(rest.mul_(rest_weight))

    def count(self, child: torch.Tensor, parent: torch.Tensor) -> Integers:
        """Return the crossing and the adjacent edges of all pairs, (2, C, P)."""
        ends = _tree_ends(child, parent)
        trees, rows = ends.shape[:2], ends.shape[-1]
        joined = ends[..., 1:].to(torch.int64)
        in_first = torch.arange(rows, device=self.device) < len(self.first)
        crossing = (in_first[joined] != in_first[1:]).sum(-1)
        starts = torch.arange(trees.numel(), device=self.device).view(*trees, 1) * rows
        nodes = (joined + starts).flatten()
        degrees = torch.bincount(nodes, minlength=ends.numel()).view(ends.shape)
        degrees[..., 1:] += 1
        adjacent = (degrees * (degrees - 1)).sum(-1) // 2
        return torch.stack([crossing, adjacent]).cpu().numpy()


def launch_bytes(
    samples: int,
    rows: int,
    filters: tuple[int, int],
    groups: tuple[int, int] = (1, 1),
    *,
    with_rest: bool = True,
) -> int:
    """Return the bytes on the device for so many child and parent groups in a launch.

    The layers have (samples, filters) values; the trees are built from `rows` of the samples.
    """
    child, parent = filters
    matrix = _FLOAT_BYTES * rows * _stride(rows)
    points = rows * max(child, 2 * parent)  # before and after the swap
    fixed = _FLOAT_BYTES * (samples * (child + parent) + points)
    # Two matrices of scratch: the group's distances before the swap, and torch's differences.
    fixed += matrix * (2 + with_rest)
    return fixed + sum(groups) * matrix + math.prod(groups) * _TREE_BYTES * _stride(rows)


def _stride(rows: int) -> int:
    return math.ceil(rows / _ROW_ALIGNMENT) * _ROW_ALIGNMENT


def _batches(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _uses_triton(device: torch.device) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (device.type == "cuda" or interpreted) and find_spec("triton") is not None


def _squared_distances(points: torch.Tensor, out: torch.Tensor) -> None:
    """Write the squared Euclidean distances of (d, n) points to `out`, (n, n)."""
    if _uses_triton(out.device):
        from mint.gmi.gpu import kernels

        kernels.squared_distances(points, out)
        return
    out.zero_()
    difference = torch.empty_like(out)
    for coordinate in points:
        torch.sub(coordinate[:, None], coordinate, out=difference)
        out.addcmul_(difference, difference)


def _tree_ends(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """Grow the minimum spanning trees of child[i] + parent[j] by Prim's algorithm from node 0.

    Distances are (C, n, n) and (P, n, n), finite. Return (C, P, n) int32: the node that each node
    was joined to, undefined for node 0.
    """
    if _uses_triton(child.device):
        from mint.gmi.gpu import kernels

        return kernels.tree_ends(child, parent)
    rows = child.shape[1]
    shape = (len(child), len(parent), rows)
    i = torch.arange(len(child), device=child.device)[:, None]
    j = torch.arange(len(parent), device=child.device)
    # The key of a node is +inf until the first step, and -inf once the node is in the tree.
    keys = torch.full(shape, math.inf, device=child.device)
    keys[..., 0] = -math.inf
    ends = torch.zeros(shape, dtype=torch.int32, device=child.device)
    newest = torch.zeros(shape[:2], dtype=torch.int64, device=child.device)
    for _ in range(rows - 1):
        distance = child[i, newest].add_(parent[j, newest])
        closer = distance < keys
        keys = torch.where(closer, distance, keys)
        ends = torch.where(closer, newest[..., None].to(torch.int32), ends)
        newest = keys.masked_fill(keys == -math.inf, math.inf).argmin(-1)  # the first of equals
        keys.scatter_(-1, newest[..., None], -math.inf)
    return ends
