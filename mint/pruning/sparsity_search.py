"""The search for the largest number of pruned blocks that keeps the accuracy."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def largest_passing(
    pruned: NDArray[np.int64],
    prunable: int,
    passes: Callable[[int], bool],
    *,
    steps: int,
    try_last_first: bool,
) -> int:
    """Return the largest number of pruned blocks that was tried and passed; 0 if none did.

    Bisects the kept share geometrically: pruning 98% instead of 96% halves a network as 50% instead
    of 0% does, so accuracy changes evenly on that scale. `passes` may be noisy.

    Args:
        pruned: (blocks + 1,) ascending numbers of weights in the first 0, 1, 2, ... blocks.
        prunable: number of all prunable weights.
        passes: retrains with the first k blocks pruned, and returns whether the accuracy held.
        steps: maximum number of calls of passes.
        try_last_first: start with all blocks; otherwise these are every weight, and never tried.
    """
    passing, failing = 0, len(pruned) - 1
    if try_last_first and failing > 0:
        if passes(failing):
            return failing
        steps -= 1
    while steps > 0 and failing - passing > 1:
        kept = prunable - pruned[passing : failing + 1]
        target = math.sqrt(kept[0] * (kept[-1] or kept[-2]))
        middle = passing + 1 + int(np.abs(kept[1:-1] - target).argmin())
        if passes(middle):
            passing = middle
        else:
            failing = middle
        steps -= 1
    return passing
