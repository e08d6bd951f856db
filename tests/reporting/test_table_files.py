"""The report writes every table of the pages as LaTeX or CSV, with the same cells."""

import csv
from pathlib import Path

import pytest

from mint.reporting.markdown import table
from mint.reporting.table_files import render, write_tables

HEADER = ["Method", "Share (%)", "Seeds"]
ROWS = [["mint_x", "≥ 90.00 ± 0.10", "[5](trials.csv?plain=1#L2-L6)"], ["a | b", r"+1.00 \*", "3"]]


def _page() -> str:
    escaped = [[cell.replace(" | ", r" \| ") for cell in row] for row in ROWS]
    lines = table(HEADER, escaped, left=(0,))
    return "\n".join(["# p", "", "## Twelve epochs", "", *lines, "", "text", "", *lines])


def test_csv_has_the_cells_of_the_page(tmp_path: Path) -> None:
    assert write_tables(tmp_path, {"my_page.md": _page()}, "csv") == 2
    files = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert files == ["my_page-twelve-epochs-2.csv", "my_page-twelve-epochs.csv"]
    with (tmp_path / "tables" / files[1]).open(newline="") as file:
        assert list(csv.reader(file)) == [
            HEADER,
            ["mint_x", "≥ 90.00 ± 0.10", "5"],
            ["a | b", "+1.00 *", "3"],
        ]


def test_latex_is_escaped(tmp_path: Path) -> None:
    write_tables(tmp_path, {"p.md": _page()}, "latex")
    assert (tmp_path / "tables" / "p-twelve-epochs.tex").read_text().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\hline",
        r"Method & Share (\%) & Seeds \\",
        r"\hline",
        r"mint\_x & $\ge$ 90.00 $\pm$ 0.10 & 5 \\",
        r"a | b & +1.00 * & 3 \\",
        r"\hline",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize("text", ["50% & more", "a_b", "~^\\"])
def test_special_characters_of_latex(text: str) -> None:
    body = render([["x"], [text]], [False], "latex").splitlines()[4]
    assert (
        body
        == {
            "50% & more": r"50\% \& more \\",
            "a_b": r"a\_b \\",
            "~^\\": r"\textasciitilde{}\textasciicircum{}\textbackslash{} \\",
        }[text]
    )
