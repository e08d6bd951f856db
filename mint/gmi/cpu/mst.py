"""Minimum spanning trees of dense distances, and the number of their edges between two samples.

Prim's algorithm on sums of two matrices that are never stored. Three things make it fast:

- No edge into a point is longer than the longest edge on the point's path in an old tree over the
  same points. The trees of two blocks are much alike, so these limits are tight from the start.
- The bounds of mint.gmi.cpu.distances exclude most sums, 64 chunks or 64 points at a time.
- Several trees grow in lock-step, so that one waits for memory while the others work.

Among edges of equal length the choice depends only on the order of the points.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mint.gmi.cpu import simd
from mint.gmi.cpu.distances import ROUNDING_MARGIN, Matrices
from mint.gmi.cpu.kernel_cache import compile_kernel
from mint.gmi.cpu.sizes import LANES, TREES

# Keys are the bits of floats >= 0, which compare as the floats do.
_TAKEN = np.uint32(0xFFFFFFFF)
_UNREACHED = np.uint32(0x7F7FFFFF)  # the largest finite float


def star_seeds(n: int) -> NDArray[np.int32]:
    """Return the first seeds of n points, (2, TREES, n): trees that limit the next ones.

    Part 0 is an order of the points from point 0 on, each after its source. Part 1 is the source:
    the point to which each is joined. Any tree is valid; a similar one makes the next one fast.
    """
    seeds = np.zeros((2, TREES, n), np.int32)
    seeds[0] = np.arange(n)
    return seeds


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
    seeds: NDArray[np.int32],
    crossing: NDArray[np.int64],
    adjacent: NDArray[np.int64],
) -> None:
    """Count edges in the minimum spanning trees of children.distances[i] + parent.distances.

    Equal points are joined by edges of length zero. `parent` is one matrix, and `children` a stack
    of at least len(crossing). `in_first`, (n,), tells whether a point belongs to the first of the
    two samples. `scale` is that of the bounds. `seeds` are overwritten by the last new trees,
    `crossing` and `adjacent`, (c,), by the counts of EdgeCounts.
    """
    n = in_first.size
    order, source = seeds[0], seeds[1]
    columns = parent.distances.shape[1]
    row_chunks = parent.chunk_bounds.shape[1]
    raised = np.float32(scale * (1 + ROUNDING_MARGIN))

    # For each point outside the tree: the length of its shortest edge into the tree so far (key),
    # and the length below which a new edge matters (limit; byte_limit at byte precision). For each
    # chunk: the least key and the greatest byte limit.
    key = np.empty((TREES, columns), np.uint32)
    limit = np.empty((TREES, columns), np.int32)
    byte_limit = np.empty((TREES, columns), np.uint8)
    chunk_key = np.empty((TREES, row_chunks), np.uint32)
    chunk_limit = np.empty((TREES, row_chunks), np.uint8)
    open_chunks = np.empty((TREES, row_chunks), np.int32)
    candidates = np.empty((TREES, columns), np.int32)
    open_count = np.zeros(TREES, np.int64)
    candidate_count = np.zeros(TREES, np.int64)
    degree = np.empty(n, np.int64)

    for first in range(0, crossing.size, TREES):
        trees = min(TREES, crossing.size - first)
        for tree in range(trees):
            child = children.distances[first + tree]
            key[tree] = _TAKEN
            key[tree, 1:n] = _UNREACHED
            limit[tree] = -1
            limit[tree, 0] = 0  # the root while the old tree is followed
            for step in range(1, n):
                point = order[tree, step]
                other = source[tree, point]
                length = np.float32(child[other, point] + parent.distances[other, point])
                limit[tree, point] = max(length.view(np.int32) + 1, limit[tree, other])
            byte_limit[tree] = 0
            for point in range(1, n):
                bits = np.int32(limit[tree, point])
                byte_limit[tree, point] = _bound_limit(bits.view(np.float32), raised)
            limit[tree, 0] = -1
            chunk_key[tree] = _TAKEN
            chunk_limit[tree] = 0
            for chunk in range(columns // LANES):
                chunk_key[tree, chunk] = simd.least_uint32(key, (tree, chunk * LANES))
                chunk_limit[tree, chunk] = simd.greatest_uint8(byte_limit, (tree, chunk * LANES))

        for step in range(1, n):
            # Chunks that may hold a shorter edge from the newest point.
            for tree in range(trees):
                count = 0
                stack, row = first + tree, np.int64(order[tree, step - 1])
                for block in range(0, row_chunks, LANES):
                    at = stack, row, block
                    mask = simd.at_most_mask(
                        children.chunk_bounds, parent.chunk_bounds, at, chunk_limit, tree
                    )
                    while mask:
                        chunk = block + simd.lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        open_chunks[tree, count] = chunk
                        count += 1
                        simd.prefetch(children.bounds, (stack, row, chunk * LANES))
                        simd.prefetch(parent.bounds, (row, chunk * LANES))
                open_count[tree] = count
            # Points in these chunks that may end such an edge.
            for tree in range(trees):
                count = 0
                stack, row = first + tree, np.int64(order[tree, step - 1])
                for index in range(open_count[tree]):
                    start = open_chunks[tree, index] * LANES
                    at = stack, row, start
                    mask = simd.at_most_mask(children.bounds, parent.bounds, at, byte_limit, tree)
                    while mask:
                        point = start + simd.lowest_bit(mask)
                        mask &= mask - np.uint64(1)
                        candidates[tree, count] = point
                        count += 1
                        simd.prefetch(children.distances, (stack, row, point))
                        simd.prefetch(parent.distances, (row, point))
                candidate_count[tree] = count
            # Lengths of these edges, and the shortest edge of the tree.
            for tree in range(trees):
                row = order[tree, step - 1]
                child_row = children.distances[first + tree, row]
                parent_row = parent.distances[row]
                for index in range(candidate_count[tree]):
                    point = candidates[tree, index]
                    length = np.float32(child_row[point] + parent_row[point])
                    bits = length.view(np.uint32)
                    if np.int32(bits) < limit[tree, point]:
                        key[tree, point] = bits
                        limit[tree, point] = np.int32(bits)
                        byte_limit[tree, point] = _bound_limit(length, raised)
                        source[tree, point] = row
                        chunk = point // LANES
                        chunk_key[tree, chunk] = min(chunk_key[tree, chunk], bits)
                shortest, block = _TAKEN, 0
                for start in range(0, row_chunks, LANES):
                    least = simd.least_uint32(chunk_key, (tree, start))
                    if least < shortest:
                        shortest, block = least, start
                chunk = block + simd.first_equal(chunk_key, (tree, block), shortest)
                start = chunk * LANES
                point = start + simd.first_equal(key, (tree, start), shortest)
                key[tree, point] = _TAKEN
                limit[tree, point] = -1
                byte_limit[tree, point] = 0
                # Limits only fall, so an old limit of a chunk is never too low.
                chunk_key[tree, chunk] = simd.least_uint32(key, (tree, start))
                chunk_limit[tree, chunk] = simd.greatest_uint8(byte_limit, (tree, start))
                order[tree, step] = point
                simd.prefetch(children.chunk_bounds, (first + tree, point, 0))
                simd.prefetch(parent.chunk_bounds, (point, 0))

        for tree in range(trees):
            degree[:] = 0
            crossing[first + tree] = 0
            for step in range(1, n):
                point = order[tree, step]
                other = source[tree, point]
                degree[point] += 1
                degree[other] += 1
                crossing[first + tree] += in_first[point] != in_first[other]
            adjacent[first + tree] = (degree * (degree - 1) // 2).sum()
