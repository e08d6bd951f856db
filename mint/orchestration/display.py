"""What a sweep prints while it runs: lines, a live table, JSON for scripts, or almost nothing."""

import json
import sys
import time
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from mint.trial.forecast import format_duration

if TYPE_CHECKING:
    from rich.table import Table

    from mint.data.checks import OnCheck
    from mint.models.layers import LayerPair
    from mint.training.epoch import Epoch
    from mint.trial.callbacks import TrialCallbacks
    from mint.trial.result import LayerScoring, SearchStep


_SECONDS_BETWEEN_LINES = 10  # on the check of a large data set, and on long scores


class Lines:
    """Prints the line of every event that has one, such as the end of a trial."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def show(self, event: str, line: str = "", **facts: Any) -> None:
        """Show an event: its line to a reader, its facts to a program.

        Events are plan, started, progress, search_step, ended (of a trial), note and end.
        """
        if line:
            print(line, flush=True)

    def say(self, line: str) -> None:
        """Show a line without facts."""
        self.show("note", line)


class Silent(Lines):
    """Prints nothing."""

    def show(self, event: str, line: str = "", **facts: Any) -> None:
        """Do nothing."""


class Quiet(Lines):
    """Prints failed trials, and one line at the end."""

    def show(self, event: str, line: str = "", **facts: Any) -> None:
        if event == "ended" and facts["status"] == "failed":
            print(line, file=sys.stderr, flush=True)
        if event == "end":
            took = format_duration(facts["seconds"])
            finished = f"{facts['finished']} of {facts['to_run']} trials finished"
            print(f"{finished}, {facts['failed']} failed, {took}", flush=True)


class JsonLines(Lines):
    """Prints an object a line: the event, and its facts or its text."""

    def show(self, event: str, line: str = "", **facts: Any) -> None:
        print(json.dumps({"event": event, **(facts or {"text": line})}), flush=True)


class Watch(Lines):
    """Prints the lines, and below them a live table of the running trials."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._running: dict[str, dict[str, Any]] = {}
        self._title = ""
        # Soft wrap leaves the breaking of long lines to the terminal.
        self._console = console = Console(soft_wrap=True, highlight=False, markup=False)
        self._live = Live(
            get_renderable=self.table, console=console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: str, line: str = "", **facts: Any) -> None:
        if line:
            self._console.print(line)
        if event in ("started", "progress", "search_step"):
            self._running.setdefault(facts["key"], {"stage": "started"}).update(facts)
        elif event == "ended":
            self._running.pop(facts["key"], None)
            left = format_duration(facts["seconds_left"])
            self._title = f"{facts['ended']} of {facts['to_run']} trials, about {left} left"

    def table(self) -> "Table":
        """Return the table of the running trials."""
        from rich.table import Column, Table

        texts = [Column(name, no_wrap=True) for name in ("Trial", "Stage")]
        names = ("Epoch", "Accuracy (%)", "Params pruned (%)", "Stage left")
        numbers = [Column(name, justify="right") for name in names]
        table = Table(*texts, *numbers, title=self._title or None, title_justify="left")
        for row in list(self._running.values()):
            epochs, left = row.get("epochs"), row.get("seconds_left")
            percents = (row.get("validation_accuracy"), row.get("params_pruned"))
            table.add_row(
                row["trial"],
                row["stage"],
                f"{row['epoch']}/{epochs}" if epochs else "",
                *("" if value is None else f"{value:.2f}" for value in percents),
                "" if left is None else format_duration(left),
            )
        return table


class TimeLeft:
    """The time left of a training, from the epochs reported so far."""

    def __init__(self) -> None:
        self._stage, self._last = "", 0
        self._seconds: list[float] = []

    def after(self, stage: str, epoch: "Epoch", epochs: int) -> float:
        """Return the seconds left after an epoch; a resumed training counts its own epochs."""
        if stage != self._stage or epoch.epoch <= self._last:
            self._seconds = []
        self._stage, self._last = stage, epoch.epoch
        self._seconds.append(epoch.seconds)
        return fmean(self._seconds) * (epochs - epoch.epoch)


def print_progress() -> "TrialCallbacks":
    """Return callbacks of a single trial that print a line for everything that takes long."""
    from mint.trial.callbacks import TrialCallbacks

    time_left, say = TimeLeft(), Lines().say
    began = shown = 0.0

    def on_epoch(stage: str, epoch: "Epoch", epochs: int) -> None:
        left = format_duration(time_left.after(stage, epoch, epochs))
        say(
            f"{stage} epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.4f}  validation "
            f"{epoch.validation_accuracy:.2f}%  {format_duration(epoch.seconds)}, "
            f"about {left} left"
        )

    def on_layer_scores(scoring: "LayerScoring") -> None:
        reliable = "" if scoring.reliability is None else f"  reliability {scoring.reliability:.2f}"
        drawn = f"{scoring.bootstraps} bootstraps, " if scoring.bootstraps else ""
        say(
            f"scores {scoring.parent} -> {scoring.child}: {scoring.blocks} blocks, {drawn}"
            f"{scoring.seconds:.1f} s{reliable}"
        )

    def on_bootstrap(pair: "LayerPair", drawn: int, most: int, later: float) -> None:
        nonlocal began, shown
        now = time.monotonic()
        if drawn == 0:
            began = shown = now
        elif now - shown > _SECONDS_BETWEEN_LINES and drawn < most:
            left = format_duration((now - began) / drawn * (most - drawn + later * most))
            of_all = f"{drawn} of {most} bootstraps"
            say(f"scores {pair.parent} -> {pair.child}: {of_all}, about {left} left for all layers")
            shown = now

    def on_search_step(step: "SearchStep") -> None:
        verdict = {True: "passed", False: "too much", None: "as given"}[step.passed]
        accuracy = step.retraining.validation_accuracy
        say(f"pruned {step.params_pruned:.2f}%: validation {accuracy:.2f}%, {verdict}")

    on_check = check_progress(Lines())
    return TrialCallbacks(on_epoch, on_layer_scores, on_bootstrap, on_search_step, on_check)


def check_progress(display: Lines) -> "OnCheck":
    """Return a callback that shows how far a check of images is, if it takes long."""
    began = shown = time.monotonic()

    def on_check(checked: int, images: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > _SECONDS_BETWEEN_LINES and checked < images:
            left = format_duration((now - began) / checked * (images - checked))
            display.say(f"checked {checked} of {images} images, about {left} left")
            shown = now

    return on_check
