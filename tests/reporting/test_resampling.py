"""Robust statistics over tasks and runs, against closed forms."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from mint.reporting.resampling import (
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0], [-1e9, 5.0, 6.0, 1e9]])
    assert interquartile_mean(scores) == pytest.approx(np.mean([2, 3, 4, 5]))


def test_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, (2, 7, 3)).astype(float)
    expected = [mannwhitneyu(first[:, task], second[:, task]).statistic / 49 for task in range(3)]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(expected))
    assert probability_of_improvement(first, first + 10) == 0
    both = probability_of_improvement(first, second) + probability_of_improvement(second, first)
    assert both == pytest.approx(1)


def test_profile_is_a_share_of_runs() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0]])
    profile = performance_profile(scores, np.array([0.0, 2.0, 3.5, 5.0]))
    assert profile.tolist() == [1.0, 0.75, 0.25, 0.0]


def test_interval_resamples_runs_and_keeps_tasks() -> None:
    """Tasks differ by 50, runs of a task by nothing: the interval is the mean alone."""
    scores = np.array([[10.0, 60.0]] * 5)
    interval = bootstrap_interval(np.mean, [scores], np.random.default_rng(0))
    assert interval == (35.0, 35.0)


def test_interval_of_a_paired_difference_does_not_see_what_runs_share() -> None:
    generator = np.random.default_rng(1)
    shared = generator.normal(0, 10, (5, 2))

    def gain(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean(first - second))

    low, high = bootstrap_interval(gain, [shared + 1, shared], generator)
    assert (low, high) == pytest.approx((1, 1))


def test_interval_covers_the_mean_of_normal_scores() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        scores = generator.normal(0, 1, (20, 4))
        low, high = bootstrap_interval(np.mean, [scores], generator)
        covered += low <= 0 <= high
    assert 50 <= covered <= 60
