"""Averages of bootstraps, and how reliable the ranking of their blocks is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mint.gmi.bootstrap import Bootstrap, Floats

_HALVINGS = 20


class BlockEstimates(NamedTuple):
    """Estimates for every pair of a child group and a parent group.

    Attributes:
        value: (C, P) means over the bootstraps.
        standard_error: (C, P) standard errors of those means; nan for one bootstrap.
        z_score: (C, P) means of the Friedman-Rafsky statistic, as in GmiEstimate.
        reliability: expected rank correlation between these values and those of as many other
            bootstraps; nan for one bootstrap, fewer than three blocks, or equal means.
        bootstraps: number of bootstraps averaged.
    """

    value: Floats
    standard_error: Floats
    z_score: Floats
    reliability: float
    bootstraps: int


def summarize(bootstraps: Sequence[Bootstrap]) -> BlockEstimates:
    """Average one or more bootstraps of the same blocks."""
    values = np.stack([bootstrap.value for bootstrap in bootstraps])
    count = len(values)
    if count > 1:
        standard_error = values.std(0, ddof=1) / math.sqrt(count)
    else:
        standard_error = np.full(values.shape[1:], np.nan)
    return BlockEstimates(
        value=values.mean(0),
        standard_error=standard_error,
        z_score=np.mean([bootstrap.z_score for bootstrap in bootstraps], axis=0),
        reliability=reliability(values),
        bootstraps=count,
    )


def reliability(values: ArrayLike) -> float:
    """Return the expected rank correlation between means of this many bootstraps each.

    Spearman's correlation between the means of two random halves, averaged over several ways to
    halve, and corrected from half to full length by the Spearman-Brown formula. `values` is
    (bootstraps, ...). The result is nan as in BlockEstimates.
    """
    table = np.asarray(values, np.float64)
    table = table.reshape(len(table), -1)
    half = len(table) // 2
    if half == 0 or table.shape[1] < 3:
        return math.nan
    generator = np.random.default_rng(0)  # fixed: the same values always have the same reliability
    correlations = []
    for _ in range(_HALVINGS if half > 1 else 1):
        order = generator.permutation(len(table))
        halves = table[order[:half]].mean(0), table[order[half : 2 * half]].mean(0)
        if any(np.ptp(means) == 0 for means in halves):
            return math.nan
        correlations.append(np.corrcoef([_ranks(means) for means in halves])[0, 1])
    correlation = float(np.mean(correlations))
    factor = len(table) / half
    # The formula holds for positive correlations; a negative one is noise around zero.
    return max(correlation, factor * correlation / (1 + (factor - 1) * abs(correlation)))


def _ranks(values: Floats) -> Floats:
    """Return ranks from 1, ties sharing their mean; importing scipy.stats would take a second."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[place]
