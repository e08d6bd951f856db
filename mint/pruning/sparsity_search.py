"""The search for the share at the margin: how much can be pruned before accuracy drops by it."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

_RESAMPLES = 300
_CONFIDENCE = 0.95
# Steps are placed where the noise of earlier ones led. With this factor the 95% intervals cover in
# 95% of simulated searches: benchmarks/margin_search.py.
_NOISE_FACTOR = 1.7
# A bracket around the crossing is divided, not interpolated, while its ends differ by more than a
# factor of three in kept weights, or the drop at its end exceeds so many margins.
_WIDE = math.log(3)
_STEEP = 4


class MarginCrossing(NamedTuple):
    """Where a monotone curve of the accuracy drop crosses the margin.

    Attributes:
        pruned: pruned weights at the crossing; not rounded to whole blocks.
        low: lower end of its 95% interval; None if the margin was not crossed.
        high: its upper end; None if the margin was not crossed.
        bound: empty at a crossing. Otherwise pruned is a lower bound, because the margin was not
            reached: `limit` where all blocks that the limits allow are pruned, `steps` where the
            search steps were used up.
    """

    pruned: float
    low: float | None = None
    high: float | None = None
    bound: Literal["", "limit", "steps"] = ""


def find_crossing(
    pruned: NDArray[np.int64],
    prunable: int,
    drop_of: Callable[[int], float],
    *,
    dense_drop: float,
    margin: float,
    sd: float,
    steps: int,
    generator: np.random.Generator,
) -> MarginCrossing:
    """Find the number of pruned weights at which the drop of accuracy crosses a margin.

    The drop is fitted by isotonic regression against the logarithm of the kept share: pruning 98%
    instead of 96% halves a network as 50% instead of 0% does. Each step retrains at the crossing of
    the fit so far, or divides the bracket around it while that is wide.

    Args:
        pruned: (blocks + 1,) ascending numbers of weights in the first 0, 1, 2, ... blocks.
        prunable: number of all prunable weights.
        drop_of: retrains with the first k blocks pruned and returns the drop, in percentage points.
        dense_drop: drop of the retrained dense network.
        margin: in percentage points.
        sd: standard deviation of a drop over retrainings (percentage points), for the interval.
        steps: maximum number of calls of drop_of.
        generator: draws the resamples of the interval.
    """
    with np.errstate(divide="ignore"):
        places = -np.log1p(-pruned / prunable)
    last = len(pruned) - 1
    limited = bool(pruned[last] < prunable)
    if not limited:
        last -= 1  # a layer without any weight is never tried
    drops = {0: dense_drop}
    if dense_drop > margin or last < 1:
        return MarginCrossing(0.0, 0.0, 0.0)
    if limited:
        drops[last] = drop_of(last)
        if drops[last] <= margin:
            return MarginCrossing(float(pruned[last]), bound="limit")
    while len(drops) <= min(steps, last):
        untried = np.array([block for block in range(last + 1) if block not in drops])
        target = _next_place(places, drops, margin, places[last])
        block = int(untried[np.abs(places[untried] - target).argmin()])
        drops[block] = drop_of(block)
    tried = np.array(sorted(drops))
    measured = np.array([drops[block] for block in tried])
    crossing = _crossing(places[tried], measured, margin)
    if crossing is None:
        bound: Literal["limit", "steps"] = "limit" if last in drops else "steps"
        return MarginCrossing(float(pruned[tried[-1]]), bound=bound)
    fitted = isotonic_regression(measured).x
    noise = _NOISE_FACTOR * sd * generator.standard_normal((_RESAMPLES, len(tried)))
    resampled = [_crossing(places[tried], measured + errors, margin) for errors in noise]
    ends = [places[last] if place is None else place for place in resampled]
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(ends, [tail, 1 - tail])
    # Between two steps, the curve is only known to be monotone.
    above = _first_above(fitted, margin)
    low, high = min(low, places[tried[above - 1]]), max(high, places[tried[above]])
    found, low, high = (float(prunable * -np.expm1(-at)) for at in (crossing, low, high))
    return MarginCrossing(found, low, high)


def share_at_loss(measured: Sequence[tuple[float, float]], loss: float) -> float | None:
    """Return the share at which a monotone fit of measured losses crosses a loss; None if nowhere.

    The fit is that of find_crossing.

    Args:
        measured: pairs of a share, ascending and below 1, and the loss there.
        loss: allowed, in the same unit.
    """
    shares, losses = np.array([(0.0, 0.0), *measured]).T
    place = _crossing(-np.log1p(-shares), losses, loss)
    return None if place is None else float(-np.expm1(-place))


def _next_place(
    places: NDArray[np.float64], drops: dict[int, float], margin: float, end: float
) -> float:
    """Return where to retrain next: at the crossing of the fit, or inside a bracket around it."""
    tried = np.array(sorted(drops))
    fitted = isotonic_regression(np.array([drops[block] for block in tried])).x
    if fitted[-1] <= margin:
        return float(places[tried[-1]] + end) / 2
    above = _first_above(fitted, margin)
    low, high = places[tried[above - 1 : above + 1]]
    quarter = (high - low) / 4
    steep = high - low > _WIDE or fitted[above] > _STEEP * margin
    crossing = _interpolate(places[tried], fitted, margin)
    return float(np.clip(crossing, low + quarter, high - quarter)) if steep else crossing


def _crossing(
    places: NDArray[np.float64], drops: NDArray[np.float64], margin: float
) -> float | None:
    fitted = isotonic_regression(drops).x
    return _interpolate(places, fitted, margin) if fitted[-1] > margin else None


def _interpolate(places: NDArray[np.float64], fitted: NDArray[np.float64], margin: float) -> float:
    above = _first_above(fitted, margin)
    if above == 0:
        return 0.0
    (x0, x1), (y0, y1) = places[above - 1 : above + 1], fitted[above - 1 : above + 1]
    return float(x0 + (x1 - x0) * (margin - y0) / (y1 - y0))


def _first_above(fitted: NDArray[np.float64], margin: float) -> int:
    return int(np.searchsorted(fitted, margin, side="right"))
