"""Background thread that writes trial states to MLflow."""

import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from mint.config.schema import TrialConfig
from mint.errors import error_line, first_line, without_secrets
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import SCORES_FILE, SearchStep, TrialKeys, TrialResult

STOP_SECONDS = 4.0
"""Time to write after an interruption; a process gets ten seconds in all to stop."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LAST_PAUSES = (1.0, 3.0)  # before the last tries, when the trials have ended


class RunWriter:
    """Writes the latest state of every trial to its run, from files that are on disk already.

    No trial waits for the store, and a store that goes away stops none. A write that failed is
    repeated; what is missing at the end is written by the next start or by `mint sync`.

    Use it as a context: leaving it writes what is waiting.
    """

    def __init__(
        self,
        store: MlflowStore,
        cache: StageCache,
        provenance: Provenance,
        finished_runs: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        """Prepare the thread.

        Args:
            store: prepared for the experiments.
            cache: of the trials.
            provenance: of trials that run now.
            finished_runs: keys of trials whose finished runs the store has already.
            say: prints a line when the store goes away or comes back.
        """
        self.trouble = ""  # why the last write failed
        self.cache, self.provenance = cache, provenance
        self._store = store
        self._finished_runs = finished_runs
        self._say = say
        self._run_ids: dict[str, str | None] = {}  # None: another machine has finished the trial
        self._waiting: dict[str, Callable[[], None]] = {}
        self._given_up: set[str] = set()
        self._last_tries = 0  # that failed one after the other
        self._deadline: float | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="run-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(STOP_SECONDS if error else None)

    def running(self, config: TrialConfig, steps: Sequence[SearchStep] = ()) -> None:
        """Set a trial's run RUNNING, with the search steps so far."""
        self._put(config.key, partial(self._write_running, config, tuple(steps)))

    def finished(self, key: str) -> None:
        """Write the result of a finished trial, and set its run FINISHED."""
        self._put(key, partial(self._write_finished, key))

    def failed(self, trial: FailedTrial) -> None:
        """Write why a trial failed or was stopped, and close its run."""
        self._put(trial.keys.key, partial(self._write_failed, trial))

    def interrupted(self, key: str, reason: str) -> None:
        """Set the run of a trial KILLED; the trial has to run again."""
        self._put(key, partial(self._write_interrupted, key, reason))

    def ended(self, keys: Iterable[str]) -> None:
        """Write the trials among these keys that finished, failed or were stopped earlier."""
        failed_trials = FailedTrials(self.cache)
        for key in keys:
            if self.cache.find("trials", key):
                self.finished(key)
            elif failed := failed_trials.read(key):
                self.failed(failed)

    def close(self, seconds: float | None = None) -> int:
        """Write what is waiting, end the thread, and return the number of trials not written.

        It takes at most these seconds; without them, as long as the store answers.
        """
        with self._change:
            end = float("inf") if seconds is None else time.monotonic() + seconds
            self._deadline = min(end, self._deadline or end)
            self._change.notify()
        left = max(0, self._deadline - time.monotonic())
        self._thread.join(min(left, threading.TIMEOUT_MAX))  # a call that hangs is left behind
        return len(self._waiting)

    def _put(self, key: str, write: Callable[[], None]) -> None:
        if key not in self._finished_runs:
            with self._change:
                self._waiting[key] = write
                self._change.notify()

    def _work(self) -> None:
        pause = 0.0  # before the next try; 0 while the store is there
        while task := self._next_task():
            key, write = task
            try:
                write()
            except Exception as error:  # of the store, the network, the disk: none ends a sweep
                self.trouble = f"{type(error).__name__}: {without_secrets(first_line(error))}"
                if not pause:
                    self._say(
                        f"the tracking store cannot be written to ({self.trouble}); the trials go "
                        "on, and their results are written later"
                    )
                pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE
                if not self._retry_later(key, pause):
                    return
                continue
            with self._change:
                if self._waiting[key] is write:
                    del self._waiting[key]
            if pause:
                self._say("the tracking store is back")
            pause, self._last_tries = 0.0, 0

    def _next_task(self) -> tuple[str, Callable[[], None]] | None:
        """Wait for a state to write; return None when the thread has to end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._deadline is not None)
            if time.monotonic() > (self._deadline or float("inf")):
                return None
            tasks = self._waiting.items()
            return next((task for task in tasks if task[0] not in self._given_up), None)

    def _retry_later(self, key: str, pause: float) -> bool:
        """Put a failed write last, and return whether to go on; while closing, give it up soon."""
        with self._change:
            if self._deadline is None:
                self._waiting[key] = self._waiting.pop(key)
                self._change.wait_for(lambda: self._deadline is not None, pause)
                return True
        self._last_tries += 1
        if self._last_tries <= len(_LAST_PAUSES):
            time.sleep(_LAST_PAUSES[self._last_tries - 1])
            return True
        self._given_up.add(key)
        return not self._store.is_away()

    def _run_id(self, config: TrialConfig, keys: TrialKeys, provenance: Provenance) -> str | None:
        """Return the id of a trial's run; None if the run is finished already."""
        if keys.key not in self._run_ids:
            run_id = self._store.begin(config, keys, provenance, self.cache.identity)
            self._run_ids[keys.key] = run_id
        return self._run_ids[keys.key]

    def _write_running(self, config: TrialConfig, steps: Sequence[SearchStep]) -> None:
        run_id = self._run_id(config, TrialKeys.of(config), self.provenance)
        if run_id and steps:
            self._store.log_search_steps(run_id, steps)

    def _write_finished(self, key: str) -> None:
        folder = self.cache.folder("trials", key)
        result = TrialResult.load(folder)
        run_id = self._run_id(result.config, result.keys, result.provenance)
        if run_id:
            with tempfile.TemporaryDirectory() as scratch:
                plot = self._draw_scores(folder, Path(scratch) / "scores.png")
                self._store.finish(run_id, result, folder, plot)

    def _draw_scores(self, trial: Path, plot: Path) -> Path | None:
        """Draw the scores of a finished trial, if it keeps them; a failure costs the plot alone."""
        if not (trial / SCORES_FILE).exists():
            return None
        try:
            from mint.reporting.heat_maps import draw_trial_scores

            draw_trial_scores(trial, plot)
        except Exception as error:
            self._say(f"{trial.name}: its scores are not drawn ({error_line(error)})")
            return None
        return plot

    def _write_failed(self, trial: FailedTrial) -> None:
        run_id = self._run_id(trial.config, trial.keys, trial.provenance)
        if run_id:
            self._store.close_failed(run_id, trial)
        del self._run_ids[trial.keys.key]  # a trial that runs again opens its run again

    def _write_interrupted(self, key: str, reason: str) -> None:
        if run_id := self._run_ids.get(key):
            self._store.close(run_id, "KILLED", reason)
