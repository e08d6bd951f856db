"""The search for the largest pruning that keeps the accuracy."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def largest_passing(
    pruned: NDArray[np.int64],
    prunable: int,
    passes: Callable[[int], bool],
    *,
    probes: int,
    try_last_first: bool,
) -> int:
    """Return the step that prunes most among those seen to pass; 0, the unpruned network, does.

    Bisects the kept share geometrically: pruning 98% instead of 96% halves a network as much as
    50% instead of 0%, so accuracy changes evenly on that scale. Every other step is tried only
    through `passes`, which may be noisy; what is returned was itself seen to pass.

    Args:
        pruned: (steps + 1,) ascending weights pruned after 0, 1, 2, ... steps.
        prunable: all weights that may be pruned.
        passes: retrains at a step and tells whether accuracy held.
        probes: how many steps may be tried.
        try_last_first: a limit ends the steps, so the last may well pass; without one it is the
            network with every weight pruned, which is never tried.
    """
    passing, failing = 0, len(pruned) - 1
    if failing == 0:
        return 0
    if try_last_first:
        if passes(failing):
            return failing
        probes -= 1
    for _ in range(probes):
        if failing - passing < 2:
            break
        step = _middle(pruned, prunable, passing, failing)
        if passes(step):
            passing = step
        else:
            failing = step
    return passing


def _middle(pruned: NDArray[np.int64], prunable: int, low: int, high: int) -> int:
    kept = prunable - pruned[low : high + 1]
    least_kept = kept[-1] or kept[-2]
    target = math.sqrt(kept[0] * least_kept)
    return low + 1 + int(np.abs(kept[1:-1] - target).argmin())
