"""Drives one sweep: runs what is missing, writes its runs, rebuilds the report."""

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
from mint.gmi.compiling import compiling_kernels
from mint.orchestration import interruption
from mint.orchestration.display import Lines
from mint.orchestration.resources import count_concurrent_trials
from mint.orchestration.sweep_settings import SweepOutcome, SweepRequest
from mint.reporting.folder import is_current, rebuild_report
from mint.reporting.made import RESULTS_FILE
from mint.store.locks import locked
from mint.tracking.glance import glance
from mint.tracking.ui import VIEW_TAG, view_state
from mint.trial.failed_trials import FailedTrial, FailedTrials, missing_trials
from mint.trial.forecast import forecast, format_duration
from mint.trial.result import TrialResult

# MLflow takes seconds to import: Ray starts in the meantime.
if TYPE_CHECKING:
    from mint.orchestration.ray_setup import Nodes
    from mint.orchestration.trial_monitor import TrialMonitor
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
        return _nothing_to_do(request, display) or _run(request, display, list)

    from mint.orchestration.ray_setup import connecting

    # Ray starts in the background while the store is prepared: both take seconds. So do the
    # kernels, which the trials need only after their first baseline.
    with (
        compiling_kernels(),
        connecting(request.settings.ray_address, request.settings.own_code) as wait_for_nodes,
    ):
        return _run(request, display, wait_for_nodes)


def show_plan(request: SweepRequest, display: Lines) -> None:
    """Show the trials of a sweep, the time they take and the memory they need; run nothing.

    Raises:
        InputError: the store is not available.
    """
    known, experiment = glance(request.tracking_uri), request.base.experiment.name
    missing = _missing(request, (known or _store(request)).finished_runs(experiment))
    to_run = _announce(request, missing, display)
    planned = request.planned
    if request.settings.search != "optuna":
        keys = {trial.key for trial in missing}
        for trial in planned.configs:
            display.say(f"  {trial.name}{'' if trial.key in keys else '  (finished)'}")
    if to_run and planned.facts and planned.layers:
        # The corners of its search space stand for the trials that Optuna will draw.
        expected = missing or list(islice(cycle(planned.configs), to_run))
        at_once = min(to_run, request.settings.sharing_memory(request.max_concurrent_trials))
        for line in forecast(expected, planned.facts, planned.layers, request.cache, at_once):
            display.say(line)


def _nothing_to_do(request: SweepRequest, display: Lines) -> SweepOutcome | None:
    """End a sweep whose trials, runs and tables are all there; None if any may be missing.

    It takes no more than a look at the store and at the report: neither MLflow nor pandas.
    """
    settings, cache = request.settings, request.cache
    name, sweep = request.base.experiment.name, settings.provenance.sweep
    known = glance(request.tracking_uri)
    if not known or name not in known.experiments or known.tags[name].get(VIEW_TAG) != view_state():
        return None
    ended = known.ended()
    for key in (trial.key for trial in request.planned.configs):
        status = "finished" if cache.find("trials", key) else "stopped"
        if key not in ended or ended[key].status != status:
            return None
    with locked(cache, settings.name, settings.provenance.command), display:
        if known.has_orphans(name, cache.identity, sweep):
            return None
        if not is_current(request.output, ended, request.references):
            return None
        _announce(request, (), display)
        display.say(f"tables: {request.output / RESULTS_FILE}")
        display.show("end", finished=0, failed=0, to_run=0, seconds=0.0)
    return SweepOutcome(False, [], known.experiments[name])


def _store(request: SweepRequest) -> "MlflowStore":
    from mint.tracking.mlflow_store import MlflowStore

    return MlflowStore(request.tracking_uri)


def _missing(request: SweepRequest, finished_runs: Collection[str]) -> list[TrialConfig]:
    """Return the trials of a grid that have no result; none for Optuna, which draws its trials."""
    search = request.settings.search
    if search == "optuna":
        return []
    trials = request.planned.configs
    return missing_trials(trials, request.cache, finished_runs, stopped=search == "asha")


def _count_to_run(request: SweepRequest, missing: Sequence[TrialConfig]) -> int:
    return request.draws if request.settings.search == "optuna" else len(missing)


def _announce(request: SweepRequest, missing: Sequence[TrialConfig], display: Lines) -> int:
    """Show the number of trials, and return how many are to run."""
    to_run, sweep = _count_to_run(request, missing), request.settings.provenance.sweep
    name = request.base.experiment.name
    total = to_run if request.settings.search == "optuna" else len(request.planned.configs)
    display.show(
        "plan",
        f"{sweep} of {name}: {total} trials, {total - to_run} already finished, {to_run} to run",
        sweep=sweep,
        experiment=name,
        trials=total,
        to_run=to_run,
    )
    return to_run


def _run(
    request: SweepRequest, display: Lines, wait_for_nodes: "Callable[[], Nodes]"
) -> SweepOutcome:
    """Lock the sweep and run it, once Ray's nodes are there."""
    from mint.orchestration.trial_monitor import TrialMonitor
    from mint.tracking.run_writer import STOP_SECONDS, RunWriter

    store, cache, settings = _store(request), request.cache, request.settings
    experiment, provenance = request.base.experiment.name, settings.provenance
    experiment_id = store.prepare(experiment)
    with locked(cache, settings.name, provenance.command), display:
        finished_runs = store.finished_runs(experiment)
        missing = _missing(request, finished_runs)
        to_run = _announce(request, missing, display)
        reason = "the driver that ran it died"
        orphans = store.close_orphans(experiment, cache.identity, reason, provenance.sweep)
        if orphans:
            display.say(f"marked as failed: {orphans} MLflow runs that an earlier start left open")
        start, interrupted = time.monotonic(), False
        with RunWriter(store, cache, provenance, finished_runs, display.say) as writer:
            drawn = settings.search == "optuna"
            planned = [] if drawn else [trial.key for trial in request.planned.configs]
            writer.ended(planned)
            monitor = TrialMonitor(writer, display, to_run)
            if to_run:
                interrupted = _run_on_ray(request, missing, wait_for_nodes, monitor, display)
            if not interrupted:
                writer.ended(monitor.unread)  # the storage may answer again
            unwritten = writer.close(STOP_SECONDS if interrupted else None)
        problems = []
        if unwritten:
            why = writer.trouble or "there was no time left"
            problem = f"could not be written to the tracking store ({why})"
            problems.append(f"the runs of {unwritten} trials {problem}; mint sync writes them")
        if unread := [key for key in monitor.unread if not cache.folder("trials", key).exists()]:
            problem = "finished, but the storage has not given their results"
            problems.append(f"{len(unread)} trials {problem}; the same command tries again")
        finished, left = monitor.finished, to_run - len(monitor.keys)
        line = f"stopped: {finished} of {to_run} trials finished, {left} to run"
        if not interrupted:
            keys = [*planned, *monitor.keys]
            problems += _rebuild_report(request, keys, None if unwritten else store, display)
            took = format_duration(time.monotonic() - start)
            line = f"trials: {format_duration(monitor.seconds)} in all, {took} on the clock"
        if monitor.failed:
            problems.append(f"{monitor.failed} of {to_run} trials failed")
        display.show(
            "end",
            line if to_run else "",
            finished=finished,
            failed=monitor.failed,
            to_run=to_run,
            seconds=time.monotonic() - start,
        )
    return SweepOutcome(interrupted, problems, experiment_id)


def _run_on_ray(
    request: SweepRequest,
    missing: Sequence[TrialConfig],
    wait_for_nodes: "Callable[[], Nodes]",
    monitor: "TrialMonitor",
    display: Lines,
) -> bool:
    """Run trials, and return whether they were interrupted."""
    try:
        if (file := request.init) and (init := request.base.init):
            request.cache.produce("initial", init.digest, partial(_copy, file))
        fitting = count_concurrent_trials(wait_for_nodes(), request.settings)
        at_once = min(fitting, request.max_concurrent_trials or sys.maxsize)
        display.say(f"{at_once} at a time")

        from mint.orchestration.search_spaces import make_plan
        from mint.orchestration.tune import run_trials

        run_trials(make_plan(request, missing, at_once), request.settings, at_once, monitor)
    except KeyboardInterrupt:
        interruption.ignore()
        monitor.interrupt(interruption.STOPPED)
        return True
    except BaseException as error:
        monitor.interrupt(f"the sweep broke off: {type(error).__name__}")
        raise
    return False


def _rebuild_report(
    request: SweepRequest, keys: Sequence[str], store: "MlflowStore | None", display: Lines
) -> list[str]:
    """Rebuild the report from disk and store; return a line if the store could not be read."""
    from mint.reporting.trials_csv import trial_table

    of_store, problems = None, []
    if store:
        try:
            store.nest_seeds(request.base.experiment.name)
            results, unread = store.results(request.cache)
            of_store = trial_table(results)
            for run in unread:
                display.say(run)
        except InputError as error:
            problems.append(f"the tables are made without it: {error}")
    failed_trials = FailedTrials(request.cache)
    of_disk: list[TrialResult | FailedTrial] = []
    for key in dict.fromkeys(keys):
        if folder := request.cache.find("trials", key):
            of_disk.append(TrialResult.load(folder))
        elif failed := failed_trials.read(key):
            of_disk.append(failed)
    rebuild_report(
        request.output,
        of_disk=trial_table(("", result) for result in of_disk),
        of_store=of_store,
        references=request.references,
        say=display.say,
    )
    return problems


def _copy(file: Path, folder: Path) -> None:
    shutil.copyfile(file, folder / file.name)
