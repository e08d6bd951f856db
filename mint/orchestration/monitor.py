"""The states of a sweep's trials: written to disk, passed on to MLflow, shown to the user."""

import time
from dataclasses import asdict

from mint.config.schema import TrialConfig
from mint.orchestration.display import Lines
from mint.orchestration.settings import Progress, TrialOutcome
from mint.store.stage_cache import StageCache
from mint.tracking.writer import RunWriter
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.forecast import format_duration
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep, TrialKeys, TrialResult


class TrialMonitor:
    """Receives the states of a sweep's trials.

    Attributes:
        trials: configurations of the trials that ended, by key.
        finished: number of trials that finished.
        failed: number of trials that failed.
        seconds: sum of the trials' run times.
    """

    def __init__(
        self,
        to_run: int,
        cache: StageCache,
        writer: RunWriter,
        provenance: Provenance,
        display: Lines,
    ) -> None:
        """Prepare for a number of trials; failed ones are written to the cache."""
        self.trials: dict[str, TrialConfig] = {}
        self.finished = self.failed = 0
        self.seconds = 0.0
        self._to_run = to_run
        self._cache = cache
        self._failed_trials = FailedTrials(cache)
        self._writer = writer
        self._provenance = provenance
        self._display = display
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

    def progress(self, config: TrialConfig, progress: Progress) -> None:
        """Show the progress of a trial."""
        self._display.show("progress", trial=config.name, key=config.key, **asdict(progress))

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

    def ended(self, config: TrialConfig, outcome: TrialOutcome) -> None:
        """Write how a trial ended, to disk first."""
        self.trials[config.key] = config
        self.seconds += outcome.seconds
        result = None
        if outcome.status == "finished":
            folder = self._cache.find("trials", config.key)
            assert folder, f"{config.name}: finished, but its result cannot be found"
            result = TrialResult.load(folder)
            self.finished += 1
            self._failed_trials.forget(config.key)
            self._writer.finished(config.key)
        else:
            trial = FailedTrial(
                keys=TrialKeys.of(config),
                config=config,
                status=outcome.status,
                reason=outcome.reason,
                details=outcome.details,
                history=tuple(self._history.get(config.key, ())),
                provenance=self._provenance,
            )
            self.failed += outcome.status == "failed"
            self._failed_trials.write(trial)
            self._writer.failed(trial)
        self._running.pop(config.key, None)  # last: interrupt() closes the others
        self._show_end(config, outcome, result)

    def _show_end(
        self, config: TrialConfig, outcome: TrialOutcome, result: TrialResult | None
    ) -> None:
        ended, width = len(self.trials), len(str(self._to_run))
        left = (time.monotonic() - self._start) / ended * (self._to_run - ended)
        if result:
            what = (
                f"pruned {result.params_pruned:6.2f}%  accuracy {result.accuracy:.2f}%  "
                f"(baseline {result.baseline_accuracy:.2f}%)"
            )
        else:
            what = f"{outcome.status.upper()}: {outcome.reason}"
        figures = ("params_pruned", "accuracy", "baseline_accuracy")
        self._display.show(
            "ended",
            f"[{ended:{width}}/{self._to_run}] {config.name:<24} {what}  "
            f"{format_duration(outcome.seconds)}, about {format_duration(left)} left",
            trial=config.name,
            key=config.key,
            status=outcome.status,
            reason=outcome.reason,
            **{name: getattr(result, name, None) for name in figures},
            seconds=outcome.seconds,
            ended=ended,
            to_run=self._to_run,
            seconds_left=left,
        )

    def interrupt(self, reason: str) -> None:
        """Close the runs of the trials that are running."""
        for config in self._running.values():
            self._writer.interrupted(config, reason)
        self._running.clear()
