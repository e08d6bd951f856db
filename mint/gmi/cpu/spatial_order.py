"""An order of points that puts neighbours side by side, so that the bounds of chunks are tight."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mint.gmi.cpu.distances import Each, full_matrix, gather
from mint.gmi.cpu.groups import Layer, unit_scale
from mint.gmi.cpu.sizes import LANDMARKS, LANES


def point_order(layers: Sequence[Layer], rows: NDArray[np.int64], each: Each) -> NDArray[np.int64]:
    """Return an order of points by their distances to a few landmarks, which are the first points.

    Differences of two squared distances are linear in the point, so they serve as coordinates.
    Each layer counts with unit variance.
    """
    coordinates = np.zeros((min(LANDMARKS, len(rows)), len(rows)), np.float32)
    for layer in layers:
        varying = np.flatnonzero(layer.variances > 0)
        scale = unit_scale(layer.variance(varying))
        landmarks, _ = gather(layer, rows[: len(coordinates)], varying, scale)
        _, points = gather(layer, rows, varying, scale)
        distances = full_matrix(landmarks, points, each)
        coordinates += distances[: len(coordinates), : len(rows)]
    return _compact_order(coordinates - coordinates.mean(0))


def _compact_order(coordinates: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the leaves of a k-d tree: an order in which each chunk of LANES points is compact.

    Points are split in two along the coordinate of most variance, at a multiple of LANES, until
    each part is one chunk.
    """
    order = np.arange(coordinates.shape[1])
    open_ranges = [(0, len(order))]
    while open_ranges:
        first, last = open_ranges.pop()
        chunks = -(-(last - first) // LANES)
        if chunks < 2:
            continue
        points = order[first:last]
        widest = int(coordinates[:, points].var(1).argmax())
        order[first:last] = points[np.argsort(coordinates[widest, points], kind="stable")]
        middle = first + chunks // 2 * LANES
        open_ranges += [(first, middle), (middle, last)]
    return order
