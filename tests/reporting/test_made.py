"""Nothing of a results folder is made again that has not changed, and what is made is the same."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trial_rows import failed_row, finished_row, table, with_accuracy

from mint.reporting import pages
from mint.reporting.drawing import draw_all
from mint.reporting.figures import draw_criteria
from mint.reporting.folder import Ended, is_current, is_made_from, rebuild_report
from mint.reporting.made import MADE_FILE
from mint.reporting.pages import make_report, write_report

ROWS = [
    finished_row(name, criterion=criterion, fraction=fraction)
    for name in ("mnist_mlp", "mnist_mlp_fine")
    for criterion in ("mint", "random")
    for fraction in (0.8, 0.9, 0.95)
]
CHANGED = [*ROWS[:-1], with_accuracy(ROWS[-1], 95.0)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the figures that are drawn, in their order."""
    names: list[str] = []

    def record(plots: Mapping[str, "partial[Any]"]) -> dict[str, bytes | str]:
        names.extend(plots)
        return draw_all(plots)

    monkeypatch.setattr(pages, "draw_all", record)
    return names


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_only_figures_whose_rows_changed_are_drawn(tmp_path: Path, drawn: list[str]) -> None:
    write_report(tmp_path, table(*ROWS))
    figures = [name for name in _files(tmp_path) if name.endswith(".png")]
    assert len(figures) == len(drawn) == 2
    before = _files(tmp_path)
    drawn.clear()
    write_report(tmp_path, table(*ROWS))
    assert (drawn, _files(tmp_path)) == ([], before)

    # Rows before them move the others to other lines of the table, and into another place.
    write_report(tmp_path, table(finished_row("digits_mlp"), *ROWS))
    assert drawn == []
    write_report(tmp_path, table(*CHANGED))
    (changed,) = drawn
    assert "mnist_mlp_fine" in changed
    assert _files(tmp_path)[changed] != before[changed]
    fresh = tmp_path / "fresh"
    write_report(fresh, table(*CHANGED))
    made = {name: content for name, content in _files(tmp_path).items() if "fresh" not in name}
    assert {name: made[name] for name in _files(fresh)} == _files(fresh)


@pytest.mark.parametrize("lost", ["RESULTS.md", "mnist_mlp.md", "figures", MADE_FILE, "changed"])
def test_a_file_that_is_lost_or_changed_is_made_again(
    tmp_path: Path, lost: str, drawn: list[str]
) -> None:
    rebuild_report(tmp_path, of_disk=table(*ROWS))
    before = _files(tmp_path)
    figures = sorted(tmp_path.glob("figures/*.png"))
    figure = figures[0]
    assert is_current(tmp_path, {})
    assert is_made_from(tmp_path, tmp_path / "trials.csv")
    drawn.clear()
    if lost == "changed":
        figure.write_bytes(figure.read_bytes() + b"x")
    else:
        (figure if lost == "figures" else tmp_path / lost).unlink()
    assert not is_current(tmp_path, {})
    rebuild_report(tmp_path)
    assert _files(tmp_path) == before
    assert len(drawn) == (len(figures) if lost == MADE_FILE else lost in ("figures", "changed"))


def test_a_report_is_current_while_the_store_says_nothing_else(tmp_path: Path) -> None:
    first = ROWS[0] | {"run_id": "r1"}
    failed = failed_row(finished_row("mnist_mlp", seed=9) | {"run_id": "r2"}, "no memory")
    trials = table(first, *ROWS[1:], failed)
    rebuild_report(tmp_path, of_store=trials)
    key = first["key"]
    for ended, current in [
        ({}, True),
        ({key: Ended("r1", "finished", "")}, True),
        ({key: Ended("r1", "failed", "a later failure changes no row")}, True),
        ({key: Ended("r9", "finished", "")}, False),
        ({"a" * 16: Ended("r3", "finished", "")}, False),
        ({failed["key"]: Ended("r2", "failed", "no memory")}, True),
        ({failed["key"]: Ended("r2", "failed", "another reason")}, False),
        ({failed["key"]: Ended("r2", "finished", "")}, False),
    ]:
        assert is_current(tmp_path, ended) == current, ended
    changed = tmp_path / "changed.csv"
    changed.write_bytes((tmp_path / "trials.csv").read_bytes() + b"\n")
    assert not is_made_from(tmp_path, changed)


def test_many_figures_are_drawn_by_several_processes_to_the_same_bytes() -> None:
    plots = make_report(table(*ROWS), []).plots
    (draw, *_) = plots.values()
    assert draw.func is draw_criteria
    many = {f"figures/{number}.png": draw for number in range(10)}
    figures = draw_all(many)
    assert list(figures) == list(many)
    assert set(figures.values()) == {draw_all({"one": draw})["one"]}
    nothing: Any = None
    reasons = draw_all({name: partial(draw_criteria, nothing) for name in many})
    assert all(str(reason).startswith("TypeError") for reason in reasons.values())
