"""Intervals, corrections and equivalence are those of the textbooks, and never say too much."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, t

from mint.reporting.statistics import Cell, DeviationRatio, Difference, holm, marked

PAIRS = [1.0, 1.5, 0.5, 1.2, 0.8]


def _with_p_value(p_value: float, seeds: int = 5) -> Difference:
    """Return a difference of 1 whose test has a p-value."""
    return Difference(1.0, 1.0 / float(t.isf(p_value / 2, seeds - 1)), seeds)


def test_interval_is_students() -> None:
    difference = Difference.of(PAIRS)
    assert difference is not None
    # t of 4 degrees of freedom at 97.5%: 2.776; the standard deviation is 0.3808.
    assert difference.half_width() == pytest.approx(2.776 * 0.3808 / math.sqrt(5), abs=1e-3)
    low, high = t.interval(0.95, 4, loc=np.mean(PAIRS), scale=np.std(PAIRS, ddof=1) / math.sqrt(5))
    assert str(difference) == f"{np.mean(PAIRS):+.2f} [{low:+.2f}, {high:+.2f}]"


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.1], [1.0, 1.0, 1.0]])
def test_no_interval_from_fewer_than_three_seeds_or_without_spread(values: list[float]) -> None:
    difference = Difference.of(values)
    assert difference is not None
    assert (difference.interval, difference.is_equivalent) == ("", False)
    assert holm([difference]) == [False]
    assert str(difference) == f"{np.mean(values):+.2f}"


def test_standard_deviation_is_at_least_one_image() -> None:
    equal = Difference.of([0.3, 0.3, 0.3], resolution=0.01)
    assert equal is not None
    assert equal.error == pytest.approx(0.01 / math.sqrt(3))
    coarse = Difference.of([0.3, 0.3, 0.4], resolution=100 / 360)
    assert coarse is not None
    assert coarse.error == pytest.approx(100 / 360 / math.sqrt(3))
    assert coarse.margin == pytest.approx(2 * 100 / 360)  # equivalence cannot be finer


def test_holm_corrects_as_in_the_textbook() -> None:
    # Four tests at 5%: 0.005 < 0.05 / 4, 0.01 < 0.05 / 3, 0.03 > 0.05 / 2, and then none.
    p_values = [0.01, 0.04, 0.03, 0.005]
    differences = [_with_p_value(p_value) for p_value in p_values]
    assert [each.p_value for each in differences] == pytest.approx(p_values)
    assert holm(differences) == [True, False, False, True]
    alone = Difference.of([1.0])
    assert alone is not None
    assert holm([*differences, alone]) == [True, False, False, True, False]  # no test of its own
    assert holm([]) == []


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.1, 0.15, -0.1, 0.25])
def test_equivalence_is_an_interval_of_90_percent_within_the_margin(mean: float) -> None:
    values = [mean - 0.1, mean, mean + 0.1, mean - 0.05, mean + 0.05]
    difference = Difference.of(values)
    assert difference is not None
    low, high = t.interval(0.9, 4, loc=mean, scale=np.std(values, ddof=1) / math.sqrt(5))
    assert difference.is_equivalent == (low > -0.2 and high < 0.2)


def test_a_comparison_that_is_repeated_counts_once() -> None:
    """Of two comparisons, one at 2% is a difference; of four it would be none."""
    low, high = _with_p_value(0.02), _with_p_value(0.5)
    cells = [row[0] for row in marked([[low], [high], [high], [high]], "not run")]
    assert [r"\*" in cell for cell in cells] == [True, False, False, False]


def test_cells_are_marked_within_their_table() -> None:
    near = Difference(0.0, 0.01, 5)
    rows: list[list[Cell]] = [
        ["mint", _with_p_value(0.001)],
        ["random", _with_p_value(0.04)],
        ["x", near],
        ["y", None],
    ]
    cells = [row[1] for row in marked(rows, "not run")]
    assert cells[0].endswith(r"] \*")
    assert cells[1].endswith("]")  # 0.04 alone would be a difference
    assert cells[2] == "+0.00 [-0.03, +0.03] ="
    assert cells[3] == "not run"


@pytest.mark.parametrize(
    ("difference", "differs", "verdict"),
    [
        (Difference(0.5, 0.1, 5), True, "better"),
        (Difference(-0.5, 0.1, 5), True, "worse"),
        (Difference(0.0, 0.01, 5), False, "equivalent within 0.2"),
        (Difference(0.5, 1.0, 5), False, "not settled"),
    ],
)
def test_verdict_says_no_more_than_the_tests(
    difference: Difference, differs: bool, verdict: str
) -> None:
    assert difference.verdict(differs, ("better", "worse")) == verdict


def test_ends_of_the_ratio_are_where_pitmans_test_rejects() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=9)
    second = 0.4 * first + 0.5 * rng.normal(size=9)
    ratio = DeviationRatio.of(list(first), list(second))
    assert ratio is not None
    assert ratio.value == pytest.approx(np.std(first, ddof=1) / np.std(second, ddof=1))
    for bound in (ratio.low, ratio.high):
        # Sum and difference of two variables with equal variance are uncorrelated.
        scaled = first / bound
        assert pearsonr(scaled + second, scaled - second).pvalue == pytest.approx(0.05)
    assert DeviationRatio.of(list(first[:7]), list(second[:7])) is None
    assert DeviationRatio.of([1.0] * 8, list(second[:8])) is None
