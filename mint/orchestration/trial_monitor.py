"""The states of trials: written to disk, passed on to MLflow, shown to the user."""

import time
from collections.abc import Mapping
from typing import Any, Literal

from mint.config.schema import TrialConfig
from mint.orchestration.display import Lines
from mint.tracking.run_writer import RunWriter
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.forecast import format_duration
from mint.trial.result import SearchStep, TrialKeys, TrialResult

Status = Literal["finished", "failed", "stopped"]
_FIGURES = ("params_pruned", "accuracy", "baseline_accuracy")


class TrialMonitor:
    """Receives the states of trials.

    Attributes:
        keys: of the trials that ended, each once.
        finished: number of trials that finished.
        failed: number of trials that failed.
        seconds: sum of the trials' run times.
        unread: keys of the finished trials whose results the storage did not give.
    """

    def __init__(self, writer: RunWriter, display: Lines, to_run: int) -> None:
        self.keys: dict[str, None] = {}
        self.finished = self.failed = 0
        self.seconds = 0.0
        self.unread: list[str] = []
        self._writer = writer
        self._display = display
        self._to_run = to_run
        self._failed_trials = FailedTrials(writer.cache)
        self._start = time.monotonic()
        self._running: dict[str, TrialConfig] = {}
        self._steps: dict[str, list[SearchStep]] = {}
        self._history: dict[str, list[tuple[int, float]]] = {}

    def started(self, config: TrialConfig) -> None:
        """Note that a trial started, or resumed: it then reports its search steps again."""
        self._running[config.key] = config
        self._steps[config.key] = []
        self._history[config.key] = []
        self._writer.running(config)
        self._display.show("started", trial=config.name, key=config.key)

    def progress(self, config: TrialConfig, facts: Mapping[str, Any]) -> None:
        """Show the progress of a trial in a stage."""
        self._display.show("progress", trial=config.name, key=config.key, **facts)

    def epoch(self, config: TrialConfig, epoch: int, validation_accuracy: float) -> None:
        """Note an epoch of retraining."""
        self._history[config.key].append((epoch, validation_accuracy))

    def search_step(self, config: TrialConfig, step: SearchStep) -> None:
        """Add a search step to a trial's run."""
        self._steps[config.key].append(step)
        self._writer.running(config, self._steps[config.key])
        self._display.show(
            "search_step",
            trial=config.name,
            key=config.key,
            params_pruned=step.params_pruned,
            validation_accuracy=step.retraining.validation_accuracy,
            passed=step.passed,
        )

    def ended(
        self,
        config: TrialConfig,
        status: Status,
        seconds: float,
        reason: str = "",
        details: str = "",
    ) -> None:
        """Write how a trial ended, to disk first.

        A failed or stopped trial has a reason in one line, and maybe details, such as a traceback.
        """
        self.keys[config.key] = None
        self.seconds += seconds
        result = None
        if status == "finished":
            self.finished += 1
            self._failed_trials.forget(config.key)
            if folder := self._writer.cache.find("trials", config.key):
                result = TrialResult.load(folder)
                self._writer.finished(config.key)
            else:
                self.unread.append(config.key)
        else:
            trial = FailedTrial(
                keys=TrialKeys.of(config),
                config=config,
                status=status,
                reason=reason,
                details=details,
                history=tuple(self._history.get(config.key, ())),
                provenance=self._writer.provenance,
            )
            self.failed += status == "failed"
            self._failed_trials.write(trial)
            self._writer.failed(trial)
        self._running.pop(config.key, None)  # last: interrupt() closes the others
        figures = {name: getattr(result, name, None) for name in _FIGURES}
        what = f"{status.upper()}: {reason or 'the storage has not given its result yet'}"
        if result:
            what = "pruned {:6.2f}%  accuracy {:.2f}%  (baseline {:.2f}%)".format(*figures.values())
        ended, width = len(self.keys), len(str(self._to_run))
        left = (time.monotonic() - self._start) / ended * (self._to_run - ended)
        self._display.show(
            "ended",
            f"[{ended:{width}}/{self._to_run}] {config.name:<24} {what}  "
            f"{format_duration(seconds)}, about {format_duration(left)} left",
            trial=config.name,
            key=config.key,
            **figures,
            status=status,
            reason=reason,
            seconds=seconds,
            ended=ended,
            to_run=self._to_run,
            seconds_left=left,
        )

    def interrupt(self, reason: str) -> None:
        """Close the runs of the trials that are running."""
        for config in self._running.values():
            self._writer.interrupted(config.key, reason)
        self._running.clear()
