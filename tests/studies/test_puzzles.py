"""PUZZLES.md says what the trials show, and no more."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from benchmark_tables import LIMITS, MASKING, read_benchmark
from puzzles import main, puzzles_page
from trial_rows import finished_row, searched_row, table, with_accuracy

from mint.errors import InputError

COMMITTED = Path(__file__).resolve().parents[2] / "results"


def _searches(shares: Iterable[float], **axes: Any) -> list[dict[str, Any]]:
    """Return searches on MNIST, one for each share at the margin and seed."""
    axes = {"groups": 20, "bootstraps": 50} | axes
    return [searched_row(share=share, seed=seed, **axes) for seed, share in enumerate(shares)]


def _sections(
    rows: Iterable[dict[str, Any]] = (),
    limits: pd.DataFrame | None = None,
    masking: pd.DataFrame | None = None,
) -> dict[str, str]:
    """Return the sections of the page by the last word of their question."""
    sections = puzzles_page(table(*rows), limits, masking).split("\n## ")[1:]
    return {section.split("\n")[0].split(" ")[-1]: section for section in sections}


def test_nothing_is_answered_that_was_not_run() -> None:
    page = _sections()
    assert sum("Not run" in section for section in page.values()) == len(page) - 1
    arithmetic = page["expect?"]  # of VGG16's limits
    assert "66.47" in arithmetic
    assert "was not run" in arithmetic


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ([80.0, 81.1, 82.0], "+10.03 [+9.89, +10.18] points, more"),
        ([80.0, 60.0, 85.0], "+4.00 [-28.48, +36.48] points, not settled"),
        ([60.0, 61.1, 62.0], "-9.97 [-10.11, -9.82] points, less"),
        ([70.1, 71.0, 72.0], "+0.03 [-0.11, +0.18] points, equivalent within 0.5"),
    ],
)
def test_more_groups_are_a_difference_if_the_interval_excludes_0(
    last: list[float], verdict: str
) -> None:
    rows = [
        *_searches([70.0, 71.0, 72.0], groups=5),
        *_searches([75.0, 76.0, 77.0], groups=10),
        *_searches(last, groups=20),
    ]
    text = _sections(rows)["linearly?"]
    assert f"From 5 to 20 groups MINT's share at the margin changes by {verdict}" in text
    assert "Beyond what random blocks gain from finer groups, MINT gains not run" in text


def test_gain_of_random_blocks_is_taken_off() -> None:
    noise = [0.0, 0.11, 0.2]
    rows = [
        row
        for criterion, slope in (("mint", 1.0), ("random", 0.7))
        for groups in (5, 10, 20)
        for row in _searches(
            [50 + slope * groups + each for each in noise], groups=groups, criterion=criterion
        )
    ]
    text = _sections(rows)["linearly?"]
    assert "changes by +15.00" in text
    assert "MINT gains +4.50" in text


def test_regimes_of_retraining_are_lines_of_their_own() -> None:
    rows = [
        row
        for retraining, slope in (("full", 0.1), ("none", 1.0))
        for groups in (5, 10, 20)
        for row in _searches([50 + slope * groups], groups=groups, retraining=retraining)
    ]
    text = _sections(rows)["linearly?"]
    assert "+1.50 points, not settled (mnist_mlp, full retraining 12 epochs)" in text
    assert "+15.00 points, not settled (mnist_mlp, not retrained)" in text


def test_slope_and_dip_over_samples() -> None:
    counts = (150, 250, 350, 450, 550, 650)
    rising = [
        row
        for count in counts
        for row in _searches(
            [80 + count / 100, 70 + count / 100, 75.03 + count / 101], samples_per_class=count
        )
    ]
    text = _sections(rising)["550?"]
    assert "With every hundred samples more, the share at the margin changes by +1.00" in text
    assert "-9.80, by +0.00 [" in text
    dipping = [
        row
        for count in counts
        for row in _searches(
            [80 - 9 * (count == 550), 70 - 9.2 * (count == 550)], samples_per_class=count
        )
    ]
    assert "-9.80, by -9.10 points" in _sections(dipping)["550?"]


def test_uneven_groups_are_compared_with_the_even_ones() -> None:
    rows = [
        row
        for groups in (20, 30, 40, 50)
        for row in _searches([20.0 + groups, 25.0 + groups], groups=groups)
    ]
    assert "30 groups differ from the line by +0.00 points" in _sections(rows)["do?"]
    assert "Not run" in _sections(rows[:-2])["do?"]


def test_spread_over_seeds_needs_eight_of_them() -> None:
    def text(seeds: int) -> str:
        rows = [
            row
            for bootstraps, spread in ((1, 4.0), (10, 2.0), (50, 1.0))
            for row in _searches(
                [70 + spread * (seed % 3 + 0.01 * seed) for seed in range(seeds)],
                bootstraps=bootstraps,
            )
        ]
        return _sections(rows)["result?"]

    assert "multiplied by not settled, 5 seeds (" in text(5)
    assert "multiplied by 0.25 [" in text(8)


def test_quantile_of_unique_scores_beside_the_exact_limit() -> None:
    limits = pd.DataFrame(
        {"seed": [0, 1], "limit": 0.8, "distinct": 44, "by_quantile": [86.0, 87.0], "exactly": 80.0}
    )
    text = _sections(limits=limits)["13%?"]
    assert "prunes 86.0 to 87.0%, and so keeps 13.0 to 14.0%" in text


def test_wins_and_losses_are_counted() -> None:
    even = {"random": [97.0, 97.1, 97.2], "block-magnitude": [97.0, 97.2, 97.1]}
    accuracies = {
        0.9: even | {"mint": [98.0, 98.1, 98.21]},
        0.95: even | {"mint": [96.0, 96.1, 96.21]},
        0.98: even | {"mint": [97.1, 97.0, 97.3]},
        0.99: {"random": [97.0], "mint": [98.0]},  # too few seeds
    }
    rows = [
        with_accuracy(finished_row(criterion=name, fraction=fraction, seed=seed), accuracy)
        for fraction, criteria in accuracies.items()
        for name, values in criteria.items()
        for seed, accuracy in enumerate(values)
    ]
    text = _sections(rows)["not?"]
    assert "Of 6 comparisons MINT is better in 2, worse in 2 and equivalent in 0" in text
    (line,) = (line for line in text.splitlines() if "| block-magnitude |" in line)
    assert line.replace(" ", "").endswith("|1|1|0|1|")


def test_changes_of_masking_are_paired_by_seed_and_fraction() -> None:
    shared = {"steps": "one step", "grouping": "contiguous", "score": "mint"}
    masking = pd.DataFrame(
        [
            {
                **shared,
                "seed": seed,
                "fraction": fraction,
                "keep_connected": connected,
                "accuracy": 90 + seed + gain,
            }
            for seed in (0, 1)
            for fraction, connected, gain in (
                (0.98, 0, 0),
                (0.99, 0, 2),
                (0.98, 1, 1),
                (0.99, 1, 4),
            )
        ]
    )
    lines = _sections(masking=masking)["best?"].splitlines()
    (line,) = (line for line in lines if "| keep connected" in line and "| mint " in line)
    assert "+1.50 |" in line  # two seeds: no interval
    (line,) = (line for line in lines if "z-scores" in line)
    assert line.count("not run") == 2


def test_benchmark_tables_are_read_or_refused(tmp_path: Path) -> None:
    assert read_benchmark(tmp_path, LIMITS) is None
    (tmp_path / LIMITS).write_text("seed,limit,distinct,by_quantile,exactly\n0,0.8,44,86,80\n")
    limits = read_benchmark(tmp_path, LIMITS)
    assert limits is not None
    assert limits["by_quantile"].tolist() == [86.0]
    (tmp_path / MASKING).write_text("seed,steps\n0,one step\n")
    with pytest.raises(InputError, match=r"masking\.csv: is not a table of seed, steps, grouping"):
        read_benchmark(tmp_path, MASKING)


def test_committed_page_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--output", str(COMMITTED)]) == 0
    for name in ("trials.csv", "PUZZLES.md"):
        (tmp_path / name).write_bytes((COMMITTED / name).read_bytes())
    assert main(["--check", "--output", str(tmp_path)]) == 1  # two tables are missing
    assert "should be" in capsys.readouterr().out
    assert main(["--output", str(tmp_path)]) == 0
    assert main(["--check", "--output", str(tmp_path)]) == 0
    assert main(["--output", str(tmp_path / "none")]) == 2
