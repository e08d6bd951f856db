"""Drives one sweep: runs what is missing, writes its runs, rebuilds the report."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from mint.config.schema import TrialConfig
from mint.errors import InputError
from mint.orchestration import interruption
from mint.orchestration.display import Lines
from mint.orchestration.resources import count_concurrent_trials
from mint.orchestration.settings import SweepOutcome, SweepRequest, SweepSettings
from mint.reporting.folder import rebuild_report
from mint.reporting.trial_table import trial_table
from mint.store.locks import locked
from mint.trial.failed_trials import FailedTrial, FailedTrials, missing_trials
from mint.trial.forecast import forecast, format_duration
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult

# MLflow takes seconds to import: Ray starts in the meantime.
if TYPE_CHECKING:
    from mint.orchestration.monitor import TrialMonitor
    from mint.orchestration.ray_setup import Nodes
    from mint.tracking.mlflow_store import MlflowStore


def run_sweep(request: SweepRequest, display: Lines) -> SweepOutcome:
    """Run what is missing of a sweep, write its runs to MLflow, and rebuild the report.

    Raises:
        InputError: another process runs the sweep, or the store, the cluster or its GPUs are not
            available.
        WorkFailedError: Ray does not start on this machine.
        OSError: the disk is full or broken; what has finished is kept.
    """
    if not _count_to_run(request, _missing(request, ())):
        return _Driver(request, display).run(list)
    if request.ray_address is None:  # before Ray is imported: its servers then keep to loopback
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

    from mint.orchestration.ray_setup import connecting

    # Ray starts in the background while the store is prepared: both take seconds.
    with connecting(request.ray_address, request.experiment.network.name) as wait_for_nodes:
        return _Driver(request, display).run(wait_for_nodes)


def show_plan(request: SweepRequest, display: Lines) -> None:
    """Show the trials of a sweep, the time they take and the memory they need; run nothing.

    Raises:
        InputError: the store is not available.
    """
    missing = _missing(request, _store(request).finished_runs(request.experiment.name))
    to_run = _count_to_run(request, missing)
    _announce(request, to_run, display)
    planned = request.planned
    trials, source, traced = planned.configs, planned.source, planned.traced
    if request.search != "optuna":
        keys = {trial.key for trial in missing}
        for trial in trials:
            display.say(f"  {trial.name}{'' if trial.key in keys else '  (finished)'}")
    if to_run and source and traced:
        # The corners of its search space stand for the trials that Optuna will draw.
        expected = missing or list(islice(cycle(trials), to_run))
        fitting = max(1, (os.cpu_count() or 1) // request.experiment.threads)
        at_once = min(to_run, request.max_concurrent_trials or fitting)
        for line in forecast(expected, source, traced, request.cache, at_once):
            display.say(line)


def _store(request: SweepRequest) -> "MlflowStore":
    from mint.tracking.mlflow_store import MlflowStore

    return MlflowStore(request.tracking_uri)


def _missing(request: SweepRequest, finished_runs: Collection[str]) -> list[TrialConfig]:
    """Return the trials of a grid that have no result; none for Optuna, which draws its trials."""
    if request.search == "optuna":
        return []
    trials, stopped = request.planned.configs, request.search == "asha"
    return missing_trials(trials, request.cache, finished_runs, stopped=stopped)


def _count_to_run(request: SweepRequest, missing: Sequence[TrialConfig]) -> int:
    return request.draws if request.search == "optuna" else len(missing)


def _announce(request: SweepRequest, to_run: int, display: Lines) -> None:
    name, searching = request.experiment.name, request.search == "optuna"
    total = to_run if searching else len(request.planned.configs)
    display.show(
        "plan",
        f"{request.name} of {name}: {total} trials, {total - to_run} already finished, "
        f"{to_run} to run",
        sweep=request.name,
        experiment=name,
        trials=total,
        to_run=to_run,
    )


class _Driver:
    """Runs one sweep in this process."""

    def __init__(self, request: SweepRequest, display: Lines) -> None:
        cache = request.cache
        device = "cuda" if request.gpus_per_trial else "cpu"
        self._request = request
        self._cache = cache
        self._display = display
        self._store = _store(request)
        self._settings = SweepSettings(
            name=f"{request.name}-{request.experiment.name}",
            data_dir=request.data_dir.absolute(),
            cache_root=cache.root,
            storage=cache.storage.uri if cache.storage else None,
            gpus_per_trial=request.gpus_per_trial,
            threads=request.experiment.threads,
            provenance=Provenance.of_this_process(request.name, request.command, device),
            owner=cache.identity,
            every_epoch=request.search == "asha",
            live=request.live,
            on_cluster=request.ray_address is not None,
        )

    def run(self, wait_for_nodes: "Callable[[], Nodes]") -> SweepOutcome:
        """Lock the sweep and run it, once Ray's nodes are there."""
        request, experiment = self._request, self._request.experiment.name
        command = self._settings.provenance.command
        experiment_id = self._store.prepare(experiment)
        with locked(self._cache, self._settings.name, command):
            finished_runs = self._store.finished_runs(experiment)
            missing = _missing(request, finished_runs)
            _announce(request, _count_to_run(request, missing), self._display)
            reason = "the driver that ran it died"
            orphans = self._store.close_orphans(
                experiment, self._settings.owner, reason, request.name
            )
            if orphans:
                self._display.say(f"closed {orphans} runs whose driver had died")
            init = request.planned.configs[0].init
            if init and request.init:
                copy = partial(_copy, request.init, init.file)
                self._cache.produce("initial", init.digest, copy)
            with self._display:
                return self._run_trials(missing, finished_runs, wait_for_nodes, experiment_id)

    def _run_trials(
        self,
        missing: Sequence[TrialConfig],
        finished_runs: Collection[str],
        wait_for_nodes: "Callable[[], Nodes]",
        experiment_id: str,
    ) -> SweepOutcome:
        from mint.orchestration.monitor import TrialMonitor
        from mint.tracking.writer import RunWriter, write_ended

        start, interrupted = time.monotonic(), False
        provenance, say = self._settings.provenance, self._display.say
        to_run = _count_to_run(self._request, missing)
        writer = RunWriter(
            self._store, self._cache, provenance, finished_runs, say, interruption.STOP_SECONDS
        )
        with writer:
            grid = self._request.search != "optuna"
            planned = [trial.key for trial in self._request.planned.configs if grid]
            write_ended(writer, self._cache, planned)
            monitor = TrialMonitor(to_run, self._cache, writer, provenance, self._display)
            if to_run:
                interrupted = self._run_on_ray(missing, wait_for_nodes, monitor)
            unwritten = writer.close(interruption.STOP_SECONDS if interrupted else None)
        store_error = writer.trouble if unwritten else ""
        line = (
            f"stopped: {monitor.finished} of {to_run} trials finished, "
            f"{to_run - len(monitor.trials)} to run"
        )
        if not interrupted:
            store_error = self._rebuild_report([*planned, *monitor.trials], store_error)
            took = format_duration(time.monotonic() - start)
            line = f"trials: {format_duration(monitor.seconds)} in all, {took} on the clock"
        self._display.show(
            "end",
            line if to_run else "",
            finished=monitor.finished,
            failed=monitor.failed,
            to_run=to_run,
            seconds=time.monotonic() - start,
        )
        return SweepOutcome(
            to_run=to_run,
            finished=monitor.finished,
            failed=monitor.failed,
            interrupted=interrupted,
            unwritten=unwritten,
            store_error=store_error,
            experiment_id=experiment_id,
        )

    def _run_on_ray(
        self,
        missing: Sequence[TrialConfig],
        wait_for_nodes: "Callable[[], Nodes]",
        monitor: "TrialMonitor",
    ) -> bool:
        """Run trials, and return whether they were interrupted."""
        try:
            fitting = count_concurrent_trials(wait_for_nodes(), self._settings)
            at_once = min(fitting, self._request.max_concurrent_trials or sys.maxsize)
            self._display.say(f"{at_once} at a time")

            from mint.orchestration.search_spaces import make_plan
            from mint.orchestration.tune import run_trials

            plan = make_plan(self._request, missing, at_once)
            run_trials(plan, self._settings, at_once, monitor)
        except KeyboardInterrupt:
            interruption.ignore()
            monitor.interrupt(interruption.STOPPED)
            return True
        except BaseException as error:
            monitor.interrupt(f"the sweep broke off: {type(error).__name__}")
            raise
        return False

    def _rebuild_report(self, keys: Sequence[str], store_error: str) -> str:
        """Rebuild the report from disk and store, and return why the store could not be read."""
        of_store = None
        if not store_error:
            try:
                of_store = trial_table(self._store.results(self._cache))
            except InputError as error:
                store_error = str(error)
        failed_trials = FailedTrials(self._cache)
        results: list[TrialResult | FailedTrial] = []
        for key in dict.fromkeys(keys):
            if folder := self._cache.find("trials", key):
                results.append(TrialResult.load(folder))
            elif failed := failed_trials.read(key):
                results.append(failed)
        rebuild_report(
            self._request.output,
            of_disk=trial_table(("", result) for result in results),
            of_store=of_store,
            references=self._request.references,
            say=self._display.say,
        )
        return store_error


def _copy(file: Path, name: str, folder: Path) -> None:
    shutil.copyfile(file, folder / name)
