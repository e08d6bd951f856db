"""What became of a sweep's trials: kept on the disk, passed on to the store, told to the user."""

import time
from dataclasses import asdict

from mint.config.schema import TrialConfig
from mint.orchestration.display import Lines, duration
from mint.orchestration.settings import Ending, Progress
from mint.store.stage_cache import StageCache
from mint.tracking.writer import Delivery
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep, TrialKeys, TrialResult


class Ledger:
    """Observes a sweep.

    Attributes:
        trials: for the key of every trial that is over, its configuration.
        finished: for the key of every trial that finished, its result.
        failed: for the key of every trial that failed, the reason.
        seconds: that all these trials ran, together.
    """

    def __init__(
        self,
        trials: int,
        cache: StageCache,
        delivery: Delivery,
        provenance: Provenance,
        display: Lines,
    ) -> None:
        """Begin with nothing.

        Args:
            trials: that are to be run.
            cache: of the records; gaps are written there.
            delivery: to the tracking store.
            provenance: of the trials.
            display: told what becomes of every trial.
        """
        self._trials = trials
        self._cache = cache
        self._gaps = FailedTrials(cache)
        self._delivery = delivery
        self._provenance = provenance
        self._display = display
        self._start = time.monotonic()
        self._open: dict[str, TrialConfig] = {}
        self._probes: dict[str, list[SearchStep]] = {}
        self._history: dict[str, list[tuple[int, float]]] = {}
        self.trials: dict[str, TrialConfig] = {}
        self.finished: dict[str, TrialResult] = {}
        self.failed: dict[str, str] = {}
        self.seconds = 0.0

    @property
    def over(self) -> int:
        """How many trials have ended."""
        return len(self.trials)

    def begun(self, config: TrialConfig) -> None:
        """Open the trial's run."""
        self._open[config.key] = config
        # Of a trial that is taken up again, the probes so far are told again.
        self._probes[config.key] = []
        self._history[config.key] = []
        self._delivery.running(config)
        self._display.tell("begun", trial=config.name, key=config.key)

    def progress(self, config: TrialConfig, progress: Progress) -> None:
        """Show how far a trial has come."""
        self._display.tell("progress", trial=config.name, key=config.key, **asdict(progress))

    def epoch(self, config: TrialConfig, epoch: int, validation_accuracy: float) -> None:
        """Remember how far a retraining has come."""
        self._history[config.key].append((epoch, validation_accuracy))

    def probe(self, config: TrialConfig, probe: SearchStep) -> None:
        """Add a probe to the trial's run."""
        self._probes[config.key].append(probe)
        self._delivery.running(config, self._probes[config.key])
        self._display.tell(
            "probe",
            trial=config.name,
            key=config.key,
            params_pruned=probe.params_pruned,
            validation_accuracy=probe.retraining.validation_accuracy,
            passed=probe.passed,
        )

    def ended(self, config: TrialConfig, ending: Ending) -> None:
        """Take down how a trial ended: on the disk first, then for the store and the user."""
        self.trials[config.key] = config
        self.seconds += ending.seconds
        if ending.status == "finished":
            self._end_finished(config)
        else:
            gap = FailedTrial(
                keys=TrialKeys.of(config),
                config=config,
                status="failed" if ending.status == "failed" else "stopped",
                reason=ending.reason,
                details=ending.details,
                history=tuple(self._history.get(config.key, ())),
                provenance=self._provenance,
            )
            self._gaps.write(gap)
            self._delivery.gap(gap)
            if gap.status == "failed":
                self.failed[config.key] = gap.reason
        self._open.pop(config.key, None)  # last: whoever interrupts closes what is still open
        self._tell(config, ending)

    def _end_finished(self, config: TrialConfig) -> None:
        folder = self._cache.find("trials", config.key)
        if folder is None:
            raise RuntimeError(f"{config.name}: finished, but its record is nowhere to be found")
        self.finished[config.key] = TrialResult.load(folder)
        self._gaps.forget(config.key)
        self._delivery.finished(config)

    def _tell(self, config: TrialConfig, ending: Ending) -> None:
        elapsed = time.monotonic() - self._start
        left = elapsed / self.over * (self._trials - self.over)
        width = len(str(self._trials))
        result = self.finished.get(config.key)
        if result:
            what = (
                f"pruned {result.params_pruned:6.2f}%  accuracy {result.accuracy:.2f}%  "
                f"(baseline {result.baseline_accuracy:.2f}%)"
            )
        else:
            what = f"{ending.status.upper()}: {ending.reason}"
        figures = ("params_pruned", "accuracy", "baseline_accuracy")
        self._display.tell(
            "ended",
            f"[{self.over:{width}}/{self._trials}] {config.name:<24} {what}  "
            f"{duration(ending.seconds)}, about {duration(left)} left",
            trial=config.name,
            key=config.key,
            status=ending.status,
            reason=ending.reason,
            **{name: getattr(result, name) if result else None for name in figures},
            seconds=ending.seconds,
            over=self.over,
            to_run=self._trials,
            seconds_left=left,
        )

    def interrupt(self, reason: str) -> None:
        """Close the runs of the trials that were running."""
        for config in self._open.values():
            self._delivery.killed(config, reason)
        self._open.clear()
