"""PUZZLES.md says what the records show, and no more."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from mint.errors import InputError
from mint.reporting.aggregate import Cell
from mint.reporting.comparison import Compared, Setting, SpreadRatio
from mint.reporting.measured import Measured
from mint.reporting.puzzles import Comparison, puzzles_page

VGG = "Input > conv1: 100 (reads the input); conv1 > conv2: 1000"
RECORD: dict[str, object] = {"groups": [], "samples": []}


def _cell(
    pruned: list[float],
    *,
    groups: int = 20,
    samples: int = 250,
    bootstraps: int = 50,
    criterion: str = "mint",
    accuracies: list[float] | None = None,
) -> Cell:
    rows = [
        {
            "status": "finished",
            "seed": seed,
            "params_pruned": value,
            "accuracy": accuracies[seed] if accuracies else 98.0 + seed / 10,
            "reliability": 0.5,
            "line": 2 + seed,
        }
        for seed, value in enumerate(pruned)
    ]
    axes = ("none", groups, samples, "none", criterion, bootstraps)
    return Cell("mnist_mlp", "0123abcd", *axes, rows=rows)


def _page(
    cells: list[Cell],
    limits: pd.DataFrame | None = None,
    masking: pd.DataFrame | None = None,
) -> dict[str, str]:
    lines = puzzles_page(cells, RECORD, Measured(limits, masking), VGG, [])
    sections = "\n".join(lines).split("\n## ")[1:]
    return {section.split("\n")[0].split(" ")[-1]: section for section in sections}


def test_what_was_not_run_is_not_answered() -> None:
    page = _page([])
    answers = [section for section in page.values() if "Not run: no trials" in section]
    assert len(answers) == 7  # but the arithmetic of VGG16's limits
    assert "68.18" in page["expects?"]  # 0.75 of 1000 of 1100


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ([80.0, 81.1, 82.0], "10.03 points more [+9.89, +10.18], a difference"),
        ([80.0, 60.0, 85.0], "4.00 points more"),
        ([60.0, 61.1, 62.0], "9.97 points less [-10.11, -9.82], a difference"),
    ],
)
def test_a_difference_is_one_where_its_interval_leaves_out_0(
    last: list[float], verdict: str
) -> None:
    cells = [
        _cell([70.0, 71.0, 72.0], groups=5),
        _cell([75.0, 76.0, 77.0], groups=10),
        _cell(last, groups=20),
    ]
    text = _page(cells)["more?"]
    assert f"From 5 to 20 groups MINT prunes {verdict}" in text
    unsure = "no difference these seeds can show" in text
    assert unsure == (last[1] == 60.0)


def test_slope_and_dip_over_samples() -> None:
    counts = (150, 250, 350, 450, 550, 650)
    rising = [_cell([80 + s / 100, 70 + s / 100], samples=s) for s in counts]
    text = _page(rising)["550?"]
    assert "With every hundred samples more, MINT prunes 1.00 points more [+1.00, +1.00]" in text
    assert "At 550 it prunes 0.00 points" in text
    dipping = [_cell([80 - 9 * (s == 550), 70 - 9.2 * (s == 550)], samples=s) for s in counts]
    assert "At 550 it prunes 9.10 points less than the mean" in _page(dipping)["550?"]


def test_uneven_groups_are_held_against_the_even_ones() -> None:
    cells = [_cell([60.0 + g, 70.0 + g], groups=g) for g in (20, 30, 40, 50)]
    text = _page(cells)["do?"]
    assert "30 groups prune 0.00 points more than a straight line" in text
    assert "Not run" in _page(cells[:3])["do?"]


def test_interval_of_two_spreads_ends_where_their_test_does() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=9)
    second = 0.4 * first + 0.5 * rng.normal(size=9)
    ratio = SpreadRatio.of(list(first), list(second))
    assert ratio is not None
    assert ratio.value == pytest.approx(np.std(first, ddof=1) / np.std(second, ddof=1))
    for bound in (ratio.low, ratio.high):
        # Pitman's test: of two variables with the same variance, sum and difference do not
        # correlate.
        scaled = first / bound
        assert pearsonr(scaled + second, scaled - second).pvalue == pytest.approx(0.05)
    assert SpreadRatio.of([1.0, 2.0], [2.0, 1.0]) is None
    assert SpreadRatio.of([1.0, 1.0, 1.0], [2.0, 1.0, 3.0]) is None


def test_one_seed_gives_no_certainty() -> None:
    cells = [_cell([70.0 + g], groups=g) for g in (5, 10, 20)]
    assert "15.00 points more (one seed: no certainty)" in _page(cells)["more?"]


def test_quantile_of_unique_values_beside_the_exact_limit() -> None:
    limits = pd.DataFrame(
        {"seed": [0, 1], "asked": 0.8, "distinct": 44, "by_quantile": [86.0, 87.0], "exactly": 80.0}
    )
    text = _page([], limits)["13%?"]
    assert "prunes 86.0 to 87.0%, and so keeps 13.0 to 14.0%" in text


def test_wins_and_losses_are_counted() -> None:
    setting = Setting("none", 20, 250, 50)

    def compared(fraction: str, accuracies: dict[str, list[float]]) -> list[Compared]:
        return [
            Compared(setting, fraction, name, _cell([90.0] * len(values), accuracies=values), None)
            for name, values in accuracies.items()
        ]

    even = {"random": [97.0, 97.1, 97.2], "block-magnitude": [97.0, 97.2, 97.1]}
    rows = [
        *compared("0.9", even | {"mint": [98.0, 98.1, 98.21]}),
        *compared("0.95", even | {"mint": [96.0, 96.1, 96.21]}),
        *compared("0.98", even | {"mint": [97.1, 97.0, 97.3]}),
        *compared("0.99", {"random": [97.0], "mint": [98.0]}),  # without magnitude: not held
    ]
    text = "\n".join(
        puzzles_page([], RECORD, Measured(), VGG, [Comparison("mnist_mlp 01", "MLP.", rows)])
    )
    assert "Of 3 comparisons MINT is better than both" in text
    assert "in 1 (mint at 0.9 of mnist_mlp 01), and worse than one of them in 1." in text


def test_changes_of_the_masking_are_paired_by_seed_and_share() -> None:
    shared = {"ways": "one step", "grouping": "contiguous", "score": "mint"}
    masking = pd.DataFrame(
        [
            {**shared, "seed": seed, "share": share, "floor": floor, "accuracy": 90 + seed + gain}
            for seed in (0, 1)
            for share, floor, gain in ((0.98, 0, 0.0), (0.99, 0, 2.0), (0.98, 1, 1), (0.99, 1, 4))
        ]
    )
    text = _page([], None, masking)["best?"]
    (line,) = (line for line in text.splitlines() if "a floor" in line and "| mint " in line)
    assert "+1.50 [+1.50, +1.50]" in line
    (line,) = (line for line in text.splitlines() if "z-scores" in line)
    assert line.count("not run") == 2


def test_what_benchmarks_left_is_read_or_refused(tmp_path: Path) -> None:
    assert Measured.beside(tmp_path) == Measured()
    (tmp_path / "limits.csv").write_text(
        "seed,asked,distinct,by_quantile,exactly\n0,0.8,44,86,80\n"
    )
    limits = Measured.beside(tmp_path).limits
    assert limits is not None
    assert limits["by_quantile"].tolist() == [86.0]
    (tmp_path / "masking.csv").write_text("seed,ways\n0,one step\n")
    with pytest.raises(InputError, match=r"masking.csv: is no table of seed, ways, grouping"):
        Measured.beside(tmp_path)
