"""Triton kernels of `mint.gmi.gpu.engine`, apart from it because importing Triton takes seconds.

Both run under Triton's interpreter too (TRITON_INTERPRET=1 before this module is imported), on
tensors of the CPU.
"""

import torch
import triton
import triton.language as tl

_TILE = 64


@triton.jit
def _squared_distances(
    first,
    second,
    distances,
    first_rows,
    second_rows,
    dimensions,
    stride,
    TILE: tl.constexpr,  # noqa: N803
):
    """Fill one tile of distances: first (d, first_rows), second (d, second_rows), both dense."""
    first_index = tl.program_id(0) * TILE + tl.arange(0, TILE)
    second_index = tl.program_id(1) * TILE + tl.arange(0, TILE)
    first_inside = first_index < first_rows
    second_inside = second_index < second_rows
    total = tl.zeros((TILE, TILE), tl.float32)
    # One coordinate after another, each fused: the order of rounding is part of the contract.
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
def _prim(
    child,
    parent,
    ends,
    parents,
    rows,
    stride,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Grow the tree of one block from node 0; ends (blocks, rows) says where each node joined.

    The keys of all nodes live in the program. A key is the distance to the tree: +inf before the
    first step, finite after it, and -inf for good once the node is in the tree, as no distance is
    less than that. So what the padding of a row holds does not matter, be it NaN.
    """
    block = tl.program_id(0)
    child += (block // parents).to(tl.int64) * rows * stride
    parent += (block % parents).to(tl.int64) * rows * stride
    nodes = tl.arange(0, BLOCK)
    # The padding up to the stride is read, so that the loads stay wide.
    readable = nodes < stride
    unreached = float("inf")
    visited = -float("inf")
    keys = tl.where((nodes > 0) & (nodes < rows), unreached, visited)
    joined = tl.zeros((BLOCK,), tl.int32)
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
    # Eight nodes a thread: enough loads in flight, few enough registers that several programs
    # share a multiprocessor and hide each other's waits.
    return min(max(size // 256, 1), 32)


def squared_distances(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> None:
    """Do what `mint.gmi.gpu.engine` asks of its distances; arguments as there."""
    dimensions, first_rows = first.shape
    second_rows = second.shape[1]
    grid = (triton.cdiv(first_rows, _TILE), triton.cdiv(second_rows, _TILE))
    with torch.cuda.device_of(out):
        _squared_distances[grid](
            first,
            second,
            out,
            first_rows,
            second_rows,
            dimensions,
            out.stride(0),
            TILE=_TILE,
            num_warps=4,
            enable_fp_fusion=False,
        )


def tree_ends(child: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """Do what `mint.gmi.gpu.engine` asks of its trees; arguments as there."""
    children, rows, _ = child.shape
    parents = len(parent)
    ends = torch.empty((children, parents, rows), dtype=torch.int32, device=child.device)
    size = triton.next_power_of_2(rows)
    with torch.cuda.device_of(child):
        _prim[(children * parents,)](
            child,
            parent,
            ends,
            parents,
            rows,
            child.stride(1),
            BLOCK=size,
            num_warps=warps(size),
            enable_fp_fusion=False,
        )
    return ends
