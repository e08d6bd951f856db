"""An order of points in which neighbours stand side by side, for chunk bounds to be tight."""

import numpy as np
from numpy.typing import NDArray

from mint.gmi.cpu.simd import LANES


def compact_order(coordinates: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order points so that every chunk of LANES of them is close together.

    Points are split in two along the coordinate that varies most, at a multiple of LANES, until
    a chunk is left: the leaves of a k-d tree. Squared distances to a few landmarks do for
    coordinates, as differences of two of them are linear in the point.

    Args:
        coordinates: (k, n).

    Returns:
        (n,) indices of the points.
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
