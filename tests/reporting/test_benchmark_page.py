"""The benchmark counts its own seeds, fills no gap, and ranks by what the rules say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from trial_rows import failed_row, finished_row, table, with_accuracy

from mint.config.grid import bundled_sweeps
from mint.reporting.benchmark_page import BENCHMARK_FILE
from mint.reporting.pages import write_report

SWEEP = bundled_sweeps()["benchmark"]
NETWORK = "digits_mlp_connected"
SHARES = SWEEP.grids[NETWORK][0].fractions


def _rows(criterion: str, accuracy: float, **axes: Any) -> Iterator[dict[str, Any]]:
    """Yield a finished trial for each share and seed; the dense control has 98%."""
    draws = np.random.default_rng(sum(map(ord, criterion)))
    for share in SHARES:
        for seed in SWEEP.seeds:
            row = finished_row(
                NETWORK, seed=seed, fraction=share, criterion=criterion, retraining="light", **axes
            )
            yield with_accuracy(row, accuracy + draws.normal(0, 0.1)) | {"dense_accuracy": 98.0}


def _page(folder: Path, *rows: dict[str, Any]) -> str:
    report = write_report(folder, table(*rows))
    return report.pages.get(BENCHMARK_FILE, "")


def _ranking(page: str) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.split("\n")]
    return [row for row in cells if row and row[0].isdigit()]


def test_ranks_and_names_who_is_ahead(tmp_path: Path) -> None:
    page = _page(
        tmp_path,
        *_rows("random", 90),
        *_rows("block-magnitude", 93),
        *_rows("mint", 95),
        *_rows("mint-gaussian", 91),
    )
    ranking = _ranking(page)
    names = [row[1] for row in ranking]
    assert names == ["mint", "block-magnitude", "mint-gaussian", "random"]
    score = float(ranking[0][7].split()[0])
    assert abs(score - 100 * 95 / 98) < 0.1
    assert ranking[0][8].startswith("1.00")  # every run of mint is better than every random one
    assert re.match(r"\+5\.0\d \[.*\] \\\*", ranking[0][9])
    assert ranking[-1][8:12] == ["N/A"] * 4
    assert "compensation: mint (+" in page
    assert "mint-gaussian (" not in page  # it is behind block magnitude


def test_only_its_seeds_count_and_a_gap_is_named(tmp_path: Path) -> None:
    chosen = [row | {"seed": row["seed"] - 1000} for row in _rows("mint-unconditional", 99)]
    some = list(_rows("mint", 99))[:-1]
    page = _page(tmp_path, *_rows("random", 90), *chosen, *some)
    assert [row[1] for row in _ranking(page)] == ["random"]
    assert "without a rank: mint (4 of 5 tasks)" in page
    assert "mint-unconditional" not in page


def test_failed_trial_scores_nothing(tmp_path: Path) -> None:
    rows = list(_rows("mint", 98))
    # The interquartile mean of 20 scores leaves out 5 on either side.
    failed = [failed_row(row, "a reason") if row["fraction"] == "0.995" else row for row in rows]
    page = _page(tmp_path, *_rows("random", 90), *failed)
    row = next(row for row in _ranking(page) if row[1] == "mint")
    assert row[6] == "0.00"
    assert float(row[5]) > 99


def test_controls_have_the_same_groups_and_compensation(tmp_path: Path) -> None:
    page = _page(
        tmp_path,
        *_rows("random", 90),
        *_rows("random", 94, grouping="clustered"),
        *_rows("mint", 94, grouping="clustered"),
    )
    row = next(row for row in _ranking(page) if row[1] == "mint, clustered")
    assert abs(float(row[9].split()[0])) < 0.3
    assert row[10:12] == ["N/A", "N/A"]  # no block magnitude in clustered groups


def test_no_page_without_its_seeds(tmp_path: Path) -> None:
    assert not _page(tmp_path, finished_row(NETWORK, seed=0, fraction=0.95))
    assert not (tmp_path / BENCHMARK_FILE).exists()
