"""What a sweep shows while it runs: lines, a live table, JSON for scripts, or next to nothing."""

import json
import sys
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.table import Table

    from mint.training.loop import Epoch


class Lines:
    """Prints a line of whatever has one, such as the end of a trial."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""

    def tell(self, event: str, line: str = "", **facts: Any) -> None:
        """Show what has happened.

        Args:
            event: plan, begun, progress, probe, ended (each of a trial), note or end (of the
                sweep).
            line: for a reader; empty where lines would be too many.
            facts: the same for a program.
        """
        if line:
            print(line, flush=True)

    def say(self, line: str) -> None:
        """Show a line that has no facts."""
        self.tell("note", line)


class Quiet(Lines):
    """Prints trials that failed, and one line at the end."""

    def tell(self, event: str, line: str = "", **facts: Any) -> None:
        if event == "ended" and facts["status"] == "failed":
            print(line, file=sys.stderr, flush=True)
        if event == "end":
            print(
                f"{facts['finished']} of {facts['to_run']} trials finished, {facts['failed']} "
                f"failed, {duration(facts['seconds'])}",
                flush=True,
            )


class JsonLines(Lines):
    """Prints an object a line: its event, and the facts or the text of it."""

    def tell(self, event: str, line: str = "", **facts: Any) -> None:
        print(json.dumps({"event": event, **(facts or {"text": line})}), flush=True)


class Watch(Lines):
    """Keeps a table of the running trials below the lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._running: dict[str, dict[str, Any]] = {}
        self._title = ""
        # Soft: a line that is wider than the terminal is the terminal's to break.
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._live = Live(
            get_renderable=self.table, console=self._console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, event: str, line: str = "", **facts: Any) -> None:
        if line:
            self._console.print(line)
        if event == "begun":
            self._running[facts["key"]] = {"stage": "begun", **facts}
        elif event in ("progress", "probe"):
            row = self._running.setdefault(facts["key"], {"stage": "begun"})
            row.update(facts)
        elif event == "ended":
            self._running.pop(facts["key"], None)
            self._title = (
                f"{facts['over']} of {facts['to_run']} trials, about "
                f"{duration(facts['seconds_left'])} left"
            )

    def table(self) -> "Table":
        """Return the trials that are running now."""
        from rich.table import Table

        table = Table(title=self._title or None, title_justify="left")
        table.add_column("Trial", no_wrap=True)
        table.add_column("Stage", no_wrap=True)
        for name in ("Epoch", "Accuracy (%)", "Params pruned (%)", "Stage left"):
            table.add_column(name, justify="right")
        for row in list(self._running.values()):
            epochs, left = row.get("epochs"), row.get("seconds_left")
            table.add_row(
                row["trial"],
                row["stage"],
                f"{row['epoch']}/{epochs}" if epochs else "",
                _percent(row.get("validation_accuracy")),
                _percent(row.get("params_pruned")),
                "" if left is None else duration(left),
            )
        return table


class TimeLeft:
    """The time left of a training, from the epochs reported so far."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0
        self._seconds: list[float] = []

    def after(self, stage: str, epoch: "Epoch", epochs: int) -> float:
        """Return the seconds left after an epoch; a resumed training counts its own epochs."""
        if stage != self._stage or epoch.epoch <= self._last:
            self._seconds = []
        self._stage, self._last = stage, epoch.epoch
        self._seconds.append(epoch.seconds)
        return fmean(self._seconds) * (epochs - epoch.epoch)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return a time in words, such as 3 min 05 s."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
