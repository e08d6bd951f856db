"""Minimum spanning trees of dense distances, and the number of their edges between two samples.

Prim's algorithm on sums of two matrices that are never stored. Three things make it fast:

- An old tree over the same points limits the new one: no edge of the new tree into a point is
  longer than the longest edge on the point's path in the old tree. The trees of two blocks are much
  alike, so these limits are tight from the start.
- With the bounds of mint.gmi.cpu.distances, only sums that may be under the limit of their point
  are read. The others are excluded 64 chunks or 64 points at a time.
- Several trees grow in lock-step, so that one waits for memory while the others work.

Among edges of equal length the choice depends only on the order of the points.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mint.gmi.cpu.distances import ROUNDING_MARGIN, Matrices, shape_of
from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.gmi.cpu.simd import (
    LANES,
    at_most_mask,
    equal_mask,
    lowest_bit,
    maximum_uint8,
    minimum_uint32,
    prefetch,
)

TREES = 4  # that grow in lock-step

# Keys are the bits of floats >= 0, which compare as the floats do.
_TAKEN = np.uint32(0xFFFFFFFF)
_UNREACHED = np.uint32(0x7F7FFFFF)  # the largest finite float


class Seeds(NamedTuple):
    """Trees that limit the next ones. Any tree is valid; a similar one makes the next one fast.

    Attributes:
        order: (TREES, n) int32, points in an order in which each one follows its source.
        source: (TREES, n) int32, the point that each one was joined to; point 0 is the root.
    """

    order: NDArray[np.int32]
    source: NDArray[np.int32]


def star_seeds(n: int) -> Seeds:
    """Return trees in which every point is joined to the first one."""
    order = np.tile(np.arange(n, dtype=np.int32), (TREES, 1))
    return Seeds(order, np.zeros((TREES, n), np.int32))


def scratch_nbytes(n: int) -> int:
    """Bytes that the seeds and a call of count_edges take beside the matrices."""
    shape = shape_of(n)
    return 8 * n * (TREES + 1) + TREES * (13 * shape.columns + 9 * shape.chunks)


@njit(inline="always")
def _bound_limit(distance: np.float32, scale: np.float32) -> np.uint8:
    """Return the largest sum of bounds that a sum of distances less than this one can have."""
    limit = np.ceil(distance * scale) - np.float32(1)
    return np.uint8(np.int32(max(np.float32(0), min(limit, np.float32(255)))))


@compile_kernel
def count_edges(
    children: Matrices,
    parent: Matrices,
    in_first: NDArray[np.bool_],
    scale: float,
    seeds: Seeds,
    crossing: NDArray[np.int64],
    adjacent: NDArray[np.int64],
) -> None:
    """Count edges in the minimum spanning trees of children.distances[i] + parent.distances.

    Equal points are joined by edges of length zero.

    Args:
        children: a stack, of which the first len(crossing) are used.
        parent: one matrix, added to each.
        in_first: (n,) whether a point belongs to the first of the two samples.
        scale: scale of the bounds.
        seeds: old trees, overwritten by the last new ones.
        crossing: (c,), written: edges between the two samples.
        adjacent: (c,), written: pairs of edges that share a point.
    """
    n = in_first.size
    distances = parent.distances
    order, source = seeds.order, seeds.source
    rows, columns = distances.shape
    row_chunks = parent.chunk_bounds.shape[1]
    chunks = columns // LANES
    size = rows * columns
    raised = np.float32(scale * (1 + ROUNDING_MARGIN))
    flat_child = children.distances.reshape(-1)
    flat_child_bounds = children.bounds.reshape(-1)
    flat_child_chunks = children.chunk_bounds.reshape(-1)
    flat = distances.reshape(-1)
    flat_bounds = parent.bounds.reshape(-1)
    flat_chunks = parent.chunk_bounds.reshape(-1)

    # For each point outside the tree: the length of its shortest edge into the tree so far (key),
    # and the length below which a new edge matters (limit; byte_limit at byte precision). For each
    # chunk: the least key and the greatest byte limit.
    key = np.empty(TREES * columns, np.uint32)
    limit = np.empty(TREES * columns, np.int32)
    byte_limit = np.empty(TREES * columns, np.uint8)
    chunk_key = np.empty(TREES * row_chunks, np.uint32)
    chunk_limit = np.empty(TREES * row_chunks, np.uint8)
    open_chunks = np.empty((TREES, row_chunks), np.int32)
    candidates = np.empty((TREES, columns), np.int32)
    open_count = np.zeros(TREES, np.int64)
    candidate_count = np.zeros(TREES, np.int64)
    newest = np.zeros(TREES, np.int64)
    degree = np.empty(n, np.int64)

    for first in range(0, crossing.size, TREES):
        trees = min(TREES, crossing.size - first)
        for tree in range(trees):
            start = tree * columns
            child = children.distances[first + tree]
            key[start : start + n] = _UNREACHED
            key[start + n : start + columns] = _TAKEN
            limit[start + n : start + columns] = -1
            byte_limit[start + n : start + columns] = 0
            limit[start] = 0
            for step in range(1, n):
                point = order[tree, step]
                other = source[tree, point]
                length = np.float32(child[other, point] + distances[other, point])
                longest = length.view(np.int32) + 1
                limit[start + point] = max(longest, limit[start + other])
            for point in range(n):
                bits = np.int32(limit[start + point])
                byte_limit[start + point] = _bound_limit(bits.view(np.float32), raised)
            key[start] = _TAKEN
            limit[start] = -1
            byte_limit[start] = 0
            chunk_key[tree * row_chunks : (tree + 1) * row_chunks] = _TAKEN
            chunk_limit[tree * row_chunks : (tree + 1) * row_chunks] = 0
            for chunk in range(chunks):
                at = tree * row_chunks + chunk
                chunk_key[at] = minimum_uint32(key, start + chunk * LANES)
                chunk_limit[at] = maximum_uint8(byte_limit, start + chunk * LANES)
            order[tree, 0] = 0
            newest[tree] = 0

        for step in range(1, n):
            # Chunks that may hold a shorter edge from the newest point.
            for tree in range(trees):
                count = 0
                row = newest[tree]
                child_row = (first + tree) * rows + row
                for block in range(0, row_chunks, LANES):
                    mask = at_most_mask(
                        flat_child_chunks,
                        child_row * row_chunks + block,
                        flat_chunks,
                        row * row_chunks + block,
                        chunk_limit,
                        tree * row_chunks + block,
                    )
                    while mask:
                        chunk = block + lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        open_chunks[tree, count] = chunk
                        count += 1
                        prefetch(flat_child_bounds, child_row * columns + chunk * LANES)
                        prefetch(flat_bounds, row * columns + chunk * LANES)
                open_count[tree] = count
            # Points in these chunks that may end such an edge.
            for tree in range(trees):
                count = 0
                row_at = newest[tree] * columns
                child_at = (first + tree) * size + row_at
                for index in range(open_count[tree]):
                    start = open_chunks[tree, index] * LANES
                    mask = at_most_mask(
                        flat_child_bounds,
                        child_at + start,
                        flat_bounds,
                        row_at + start,
                        byte_limit,
                        tree * columns + start,
                    )
                    while mask:
                        point = start + lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        candidates[tree, count] = point
                        count += 1
                        prefetch(flat_child, child_at + point)
                        prefetch(flat, row_at + point)
                candidate_count[tree] = count
            # Lengths of these edges, and the shortest edge of the tree.
            for tree in range(trees):
                row = newest[tree]
                row_at = row * columns
                child_at = (first + tree) * size + row_at
                start = tree * columns
                chunk_start = tree * row_chunks
                for index in range(candidate_count[tree]):
                    point = candidates[tree, index]
                    length = np.float32(flat_child[child_at + point] + flat[row_at + point])
                    key_of_edge = length.view(np.uint32)
                    if np.int32(key_of_edge) < limit[start + point]:
                        key[start + point] = key_of_edge
                        limit[start + point] = np.int32(key_of_edge)
                        byte_limit[start + point] = _bound_limit(length, raised)
                        source[tree, point] = row
                        at = chunk_start + point // LANES
                        chunk_key[at] = min(chunk_key[at], key_of_edge)
                shortest = _TAKEN
                block_at = chunk_start
                for block in range(chunk_start, chunk_start + row_chunks, LANES):
                    least = minimum_uint32(chunk_key, block)
                    if least < shortest:
                        shortest = least
                        block_at = block
                chunk_at = block_at + lowest_bit(equal_mask(chunk_key, block_at, shortest))
                keys_at = start + (chunk_at - chunk_start) * LANES
                point_at = keys_at + lowest_bit(equal_mask(key, keys_at, shortest))
                key[point_at] = _TAKEN
                limit[point_at] = -1
                byte_limit[point_at] = 0
                # Limits only fall, so an old limit of a chunk is never too low.
                chunk_key[chunk_at] = minimum_uint32(key, keys_at)
                chunk_limit[chunk_at] = maximum_uint8(byte_limit, keys_at)
                point = point_at - start
                order[tree, step] = point
                newest[tree] = point
                prefetch(flat_child_chunks, ((first + tree) * rows + point) * row_chunks)
                prefetch(flat_chunks, point * row_chunks)

        for tree in range(trees):
            degree[:] = 0
            between = 0
            for step in range(1, n):
                point = order[tree, step]
                other = source[tree, point]
                degree[point] += 1
                degree[other] += 1
                between += in_first[point] != in_first[other]
            pairs = 0
            for point in range(n):
                pairs += degree[point] * (degree[point] - 1) // 2
            crossing[first + tree] = between
            adjacent[first + tree] = pairs
