"""What a sweep shows, event by event, in every mode."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mint.orchestration.display import (
    JsonLines,
    Lines,
    Quiet,
    TimeLeft,
    Watch,
    check_progress,
    print_progress,
)

PLAN = "a_sweep of digits_mlp: 2 trials, 0 already finished, 2 to run"
ENDED = "[1/2] g5 FAILED: no luck"


def _show(display: Lines) -> None:
    display.show("plan", PLAN, sweep="a_sweep", trials=2, to_run=2)
    display.say("2 at a time")
    for key in ("a", "b"):
        display.show("started", trial=f"trial-{key}", key=key)
    display.show(
        "progress",
        trial="trial-a",
        key="a",
        stage="retraining",
        epoch=3,
        epochs=20,
        validation_accuracy=97.5,
        seconds_left=61.0,
    )
    display.show(
        "search_step",
        trial="trial-a",
        key="a",
        params_pruned=92.0,
        validation_accuracy=96.25,
        passed=True,
    )
    display.show(
        "ended", ENDED, trial="trial-b", key="b", status="failed", ended=1, to_run=2, seconds_left=5
    )


def _end(display: Lines) -> None:
    display.show("end", "trials: 2 s", finished=1, failed=1, to_run=2, seconds=125.0)


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as display:
        _show(display)
        _end(display)
    assert capsys.readouterr().out.splitlines() == [PLAN, "2 at a time", ENDED, "trials: 2 s"]


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet() as display:
        _show(display)
        _end(display)
    printed = capsys.readouterr()
    assert printed.out == "1 of 2 trials finished, 1 failed, 2 min 05 s\n"
    assert printed.err == f"{ENDED}\n"


def test_every_json_line_is_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as display:
        _show(display)
        _end(display)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.pop("event") for event in events] == [
        *("plan", "note", "started", "started", "progress", "search_step", "ended", "end")
    ]
    assert events[1] == {"text": "2 at a time"}
    assert events[4]["epochs"] == 20
    assert events[6]["status"] == "failed"


def test_table_has_a_row_for_every_running_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch() as display:
        _show(display)
        Console(width=120).print(display.table())
    lines = capsys.readouterr().out.splitlines()
    assert ENDED in lines
    assert "1 of 2 trials, about 5 s left" in "\n".join(lines)
    (row,) = (line for line in lines if "trial-a" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells == ["trial-a", "retraining", "3/20", "96.25", "92.00", "1 min 01 s"]
    assert not any("trial-b" in line for line in lines)


def test_time_left_forgets_other_stages_and_what_a_resumed_training_did_before() -> None:
    def epoch(number: int, seconds: float) -> Any:
        return SimpleNamespace(epoch=number, seconds=seconds)

    time_left = TimeLeft()
    assert time_left.after("baseline", epoch(1, 2.0), 5) == 8
    assert time_left.after("baseline", epoch(2, 4.0), 5) == 9
    assert time_left.after("retraining", epoch(3, 10.0), 5) == 20  # resumed at epoch 3
    assert time_left.after("retraining", epoch(1, 1.0), 5) == 4  # of the next search step


def test_a_long_check_of_images_shows_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("mint.orchestration.display.time", SimpleNamespace(monotonic=lambda: now))
    on_check = check_progress(Lines())
    for checked in range(1000, 10001, 1000):
        now += 4
        on_check(checked, 10000)
    assert capsys.readouterr().out.splitlines() == [
        "checked 3000 of 10000 images, about 28 s left",
        "checked 6000 of 10000 images, about 16 s left",
        "checked 9000 of 10000 images, about 4 s left",
    ]


def test_long_scores_show_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("mint.orchestration.display.time", SimpleNamespace(monotonic=lambda: now))
    on_bootstrap = print_progress().on_bootstrap
    pair: Any = SimpleNamespace(parent="fc1", child="fc2")
    for drawn in range(11):
        on_bootstrap(pair, drawn, 10, 0.5)  # five more for the layers after it
        now += 6
    assert capsys.readouterr().out.splitlines() == [
        "scores fc1 -> fc2: 2 of 10 bootstraps, about 1 min 18 s left for all layers",
        "scores fc1 -> fc2: 4 of 10 bootstraps, about 1 min 06 s left for all layers",
        "scores fc1 -> fc2: 6 of 10 bootstraps, about 54 s left for all layers",
        "scores fc1 -> fc2: 8 of 10 bootstraps, about 42 s left for all layers",
    ]
