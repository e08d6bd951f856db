"""Triton kernels of `mint.gmi.gpu.engine`, in their own module: importing Triton takes seconds.

They also run under Triton's interpreter on tensors of the CPU: set TRITON_INTERPRET=1 before this
module is imported.
"""

import torch
import triton
import triton.language as tl

_TILE = 64


@triton.jit
def distance_kernel(
    first, second, distances, first_rows, second_rows, dimensions, stride, tile: tl.constexpr
):
    """Write one tile of distances: first (d, first_rows), second (d, second_rows), both dense."""
    first_index = tl.program_id(0) * tile + tl.arange(0, tile)
    second_index = tl.program_id(1) * tile + tl.arange(0, tile)
    first_inside = first_index < first_rows
    second_inside = second_index < second_rows
    total = tl.zeros((tile, tile), tl.float32)
    # One fused operation per coordinate, in order: rounding is part of the contract.
    for _ in range(dimensions):
        from_first = tl.load(first + first_index, first_inside, 0.0)
        from_second = tl.load(second + second_index, second_inside, 0.0)
        first += first_rows
        second += second_rows
        difference = from_first[:, None] - from_second[None, :]
        total = tl.fma(difference, difference, total)
    tl.store(
        distances + first_index.to(tl.int64)[:, None] * stride + second_index[None, :],
        total,
        first_inside[:, None] & second_inside[None, :],
    )


@triton.jit
def tree_kernel(child, parent, ends, parents, rows, stride, size: tl.constexpr):
    """Grow the tree of one block from node 0; write where each node joined to ends (blocks, rows).

    The program holds the keys of all nodes: the distance to the tree, +inf before the first step
    and -inf once the node is in the tree. No distance is less than -inf, so padding may hold NaN.
    """
    block = tl.program_id(0)
    child += (block // parents).to(tl.int64) * rows * stride
    parent += (block % parents).to(tl.int64) * rows * stride
    nodes = tl.arange(0, size)
    readable = nodes < stride  # the padding is read too, so that loads stay wide
    unreached = float("inf")
    visited = -float("inf")
    keys = tl.where((nodes > 0) & (nodes < rows), unreached, visited)
    joined = tl.zeros((size,), tl.int32)
    newest = tl.full((), 0, tl.int32)
    for _ in range(rows - 1):
        offset = newest.to(tl.int64) * stride
        distance = tl.load(child + offset + nodes, readable, 0.0)
        distance += tl.load(parent + offset + nodes, readable, 0.0)
        closer = distance < keys
        keys = tl.where(closer, distance, keys)
        joined = tl.where(closer, newest, joined)
        _, newest = tl.min(
            tl.where(keys == visited, unreached, keys),
            axis=0,
            return_indices=True,
            return_indices_tie_break_left=True,
        )
        keys = tl.where(nodes == newest, visited, keys)
    tl.store(ends + block.to(tl.int64) * rows + nodes, joined, nodes < rows)


def warps(size: int) -> int:
    """Return the warps of a program that holds the keys of `size` nodes."""
    # Eight nodes a thread keep enough loads in flight, and few enough registers that several
    # programs share a multiprocessor and hide each other's latency.
    return min(max(size // 256, 1), 32)


def squared_distances(points: torch.Tensor, out: torch.Tensor) -> None:
    """Write squared distances; arguments as in `mint.gmi.gpu.engine`."""
    dimensions, rows = points.shape
    grid = triton.cdiv(rows, _TILE), triton.cdiv(rows, _TILE)
    sizes = rows, rows, dimensions, out.stride(0), _TILE
    with torch.cuda.device_of(out):
        distance_kernel[grid](points, points, out, *sizes, num_warps=4, enable_fp_fusion=False)


def tree_ends(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """Grow trees; arguments as in `mint.gmi.gpu.engine`."""
    children, rows, _ = child.shape
    parents = len(parent)
    ends = torch.empty((children, parents, rows), dtype=torch.int32, device=child.device)
    size = triton.next_power_of_2(rows)
    options = {"size": size, "num_warps": warps(size), "enable_fp_fusion": False}
    sizes = parents, rows, child.stride(1)
    with torch.cuda.device_of(child):
        tree_kernel[(children * parents,)](child, parent, ends, *sizes, **options)
    return ends
