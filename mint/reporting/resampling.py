"""Statistics over several tasks and few runs, after Agarwal et al., NeurIPS 2021 (rliable).

Scores are arrays of (runs, tasks). Row r of two arrays is the same run: what differs between runs,
such as the baseline, is equal. So both are resampled with the same runs.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mint.reporting.statistics import CONFIDENCE

_RESAMPLES = 2000
Scores = NDArray[np.float64]


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all scores; a quarter goes on each side."""
    left_out = scores.size // 4
    return float(np.mean(np.sort(scores, axis=None)[left_out : scores.size - left_out]))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """Return how probably a run of the first scores above one of the second, ties counted half.

    The mean over tasks of Mann and Whitney's statistic.
    """
    difference = first[:, None, :] - second[None, :, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def performance_profile(scores: Scores, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of all runs that score at least each level."""
    return np.asarray(np.mean(scores[..., None] >= levels, axis=(0, 1)))


def bootstrap_interval(
    statistic: Callable[..., float], scores: Sequence[Scores], generator: np.random.Generator
) -> tuple[float, float]:
    """Return the 95% interval of a statistic: the percentiles of a stratified bootstrap.

    Runs are resampled within each task, since the tasks are not a sample of anything.

    Args:
        statistic: of the arrays of scores.
        scores: arrays of equal shape (runs, tasks).
        generator: draws the resamples.
    """
    runs, tasks = scores[0].shape
    columns = np.arange(tasks)
    values = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(runs, size=(runs, tasks))
        values.append(statistic(*(each[drawn, columns] for each in scores)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
