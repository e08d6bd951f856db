"""Brings the runs of a tracking store up to what the trials have come to, beside the trials."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from mint.config.schema import TrialConfig
from mint.errors import without_secrets
from mint.orchestration.interruption import STOP_SECONDS
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import Tracker
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep, TrialResult

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Delivery:
    """One thread that writes runs, from records that are on the disk already.

    It alone writes, so no trial waits for the store, and a store that goes away stops none: what
    could not be written is tried again, and what is left at the end is delivered by the next start
    or by `mint sync`. Of every trial only its latest state is written.

    Use it as a context; on leaving, what is due is delivered.
    """

    def __init__(
        self,
        tracker: Tracker,
        cache: StageCache,
        provenance: Provenance,
        delivered: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        """Prepare the thread.

        Args:
            tracker: of a store that is prepared for the experiments.
            cache: that holds the records.
            provenance: of trials that have no record yet.
            delivered: keys of trials whose finished runs the store has already.
            say: told in a line when the store goes away, and when it is back.
        """
        self._tracker = tracker
        self._cache = cache
        self._provenance = provenance
        self._delivered = delivered
        self._say = say
        self._runs: dict[str, str] = {}
        self._due: dict[str, Callable[[], None]] = {}
        self._change = threading.Condition()
        self._deadline: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._deliver, name="delivery", daemon=True)
        self._trouble = ""

    def __enter__(self) -> "Delivery":
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(STOP_SECONDS if error else None)

    def running(self, config: TrialConfig, probes: Sequence[SearchStep] = ()) -> None:
        """Have a trial's run be open, with the probes so far."""
        probes = tuple(probes)
        self._put(config, lambda: self._write_running(config, probes))

    def finished(self, config: TrialConfig) -> None:
        """Have a finished trial's run hold its result."""
        self._put(config, lambda: self._write_finished(config))

    def gap(self, gap: FailedTrial) -> None:
        """Have the run of a trial that failed, or was stopped, say so."""
        self._put(gap.config, lambda: self._write_gap(gap))

    def killed(self, config: TrialConfig, reason: str) -> None:
        """Have the run of a trial that was begun be closed; its trial is to be run again."""
        self._put(config, lambda: self._write_killed(config, reason))

    def close(self, seconds: float | None = None) -> int:
        """Deliver what is due and end the thread.

        Args:
            seconds: after which to give up; None to go on as long as the store answers.

        Returns:
            The number of trials whose runs are behind.
        """
        if self._closed:
            return len(self._due)
        with self._change:
            end = float("inf") if seconds is None else time.monotonic() + seconds
            self._deadline = min(end, self._deadline or end)
            self._change.notify()
        self._thread.join(seconds)
        self._closed = True  # a call that hangs is left behind with its thread
        return len(self._due)

    @property
    def trouble(self) -> str:
        """Why the store could not be written to, the last time it could not."""
        return self._trouble

    def _put(self, config: TrialConfig, write: Callable[[], None]) -> None:
        if config.key in self._delivered:
            return
        with self._change:
            self._due[config.key] = write
            self._change.notify()

    def _deliver(self) -> None:
        pause, away = _FIRST_PAUSE, False
        hopeless: set[str] = set()  # once no more is to come, each is tried once
        while True:
            with self._change:
                while not self._due and self._deadline is None:
                    self._change.wait()
                waiting = [item for item in self._due.items() if item[0] not in hopeless]
                if not waiting or time.monotonic() > (self._deadline or float("inf")):
                    return
                key, write = waiting[0]
            try:
                write()
            except Exception as error:  # of the store, the network, the disk: none ends a sweep
                self._trouble = without_secrets(f"{type(error).__name__}: {error}").splitlines()[0]
                if not away:
                    self._say(
                        f"the tracking store cannot be written to ({self._trouble}); the trials go "
                        "on, their records are kept and delivered later"
                    )
                away = True
                with self._change:
                    if self._deadline is not None:
                        hopeless.add(key)
                        if self._tracker.is_away():
                            return
                        continue
                    self._due[key] = self._due.pop(key)  # last, so that one cannot hold up all
                    self._change.wait_for(lambda: self._deadline is not None, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            with self._change:
                if self._due[key] is write:
                    del self._due[key]
            if away:
                self._say("the tracking store is back")
            pause, away = _FIRST_PAUSE, False

    def _run(self, config: TrialConfig, provenance: Provenance) -> str:
        if config.key not in self._runs:
            owner = self._cache.identity
            with self._cache.lock("deliveries"):  # else two sweeps could make the same run twice
                self._runs[config.key] = self._tracker.begin(config, provenance, owner)
        return self._runs[config.key]

    def _write_running(self, config: TrialConfig, probes: Sequence[SearchStep]) -> None:
        run_id = self._run(config, self._provenance)
        if probes:
            self._tracker.log_search_steps(run_id, probes)

    def _write_finished(self, config: TrialConfig) -> None:
        folder = self._cache.folder("trials", config.key)
        result = TrialResult.load(folder)
        run_id = self._run(config, result.provenance)
        with self._cache.lock("deliveries"):  # of another sweep that has the same trial
            self._tracker.finish(run_id, result, folder)

    def _write_gap(self, gap: FailedTrial) -> None:
        self._tracker.close_failed(self._run(gap.config, gap.provenance), gap)
        del self._runs[gap.config.key]  # a trial that is run again opens its run again

    def _write_killed(self, config: TrialConfig, reason: str) -> None:
        if config.key in self._runs:
            self._tracker.close(self._runs[config.key], "KILLED", reason)


def deliver_missing(delivery: Delivery, cache: StageCache, configs: Iterable[TrialConfig]) -> None:
    """Have the trials that have ended on the disk be delivered, where the store has them not.

    Args:
        delivery: to do it.
        cache: that holds the records.
        configs: of trials.
    """
    gaps = FailedTrials(cache)
    for config in configs:
        if cache.find("trials", config.key):
            delivery.finished(config)
        elif gap := gaps.read(config.key):
            delivery.gap(gap)
