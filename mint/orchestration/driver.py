"""Drives one sweep: what is missing is run, runs are delivered, tables rebuilt."""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mint.cli.options import EXIT_FAILED, EXIT_INTERRUPTED
from mint.config.schema import TrialConfig
from mint.orchestration import interruption
from mint.orchestration.display import Lines, duration
from mint.orchestration.monitor import Ledger
from mint.orchestration.settings import SweepSettings
from mint.reporting.folder import rebuild_report
from mint.reporting.trial_table import trial_table
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import Tracker, store_records
from mint.tracking.writer import Delivery, deliver_missing
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.result import TrialResult

if TYPE_CHECKING:
    from mint.orchestration.search_spaces import Plan


@dataclass(frozen=True)
class Sweep:
    """A sweep that is to be driven.

    Attributes:
        delivered: keys of the trials whose finished runs the store has already.
        trials: all of a grid; none of a search, which draws them one after the other.
        to_run: how many are to be run.
        plan: makes what Ray Tune runs, told how many trials fit side by side.
        settings: of the trials.
        max_concurrent: how many of them run side by side; None for as many as there is room for.
        output: folder of the report.
    """

    delivered: Collection[str]
    trials: Sequence[TrialConfig]
    to_run: int
    plan: Callable[[int], "Plan"]
    settings: SweepSettings
    max_concurrent: int | None
    output: Path


def drive(
    sweep: Sweep,
    cache: StageCache,
    tracker: Tracker,
    room: Callable[[SweepSettings], int],
    display: Lines,
) -> int:
    """Run a sweep to its end and return the exit code.

    Args:
        sweep: to run; this process holds it (mint.store.locks).
        cache: of finished stages.
        tracker: of a store that is prepared for the experiment.
        room: tells how many trials fit side by side, once Ray is there (mint.orchestration.tune.connecting).
        display: told what happens.

    Raises:
        InputError: the store, the cluster or the GPUs that were asked for are not there.
        OSError: the disk is full or broken; what is finished is kept.
    """
    start, say = time.monotonic(), display.say
    provenance = sweep.settings.provenance
    interrupted = False
    with Delivery(tracker, cache, provenance, sweep.delivered, say) as delivery:
        deliver_missing(delivery, cache, sweep.trials)
        ledger = Ledger(sweep.to_run, cache, delivery, provenance, display)
        if sweep.to_run:
            try:
                at_once = min(room(sweep.settings), sweep.max_concurrent or sys.maxsize)
                say(f"{at_once} at a time")

                from mint.orchestration.tune import (
                    run_sweep,  # with Ray, which nothing else here needs
                )

                run_sweep(sweep.plan(at_once), sweep.settings, at_once, ledger)
            except KeyboardInterrupt:
                interrupted = True
                interruption.ignore()
                ledger.interrupt(interruption.STOPPED)
            except BaseException as error:
                ledger.interrupt(f"the sweep broke off: {type(error).__name__}")
                raise
        behind = delivery.close(interruption.STOP_SECONDS if interrupted else None)

    def end(line: str) -> None:
        display.tell(
            "end",
            line,
            finished=len(ledger.finished),
            failed=len(ledger.failed),
            to_run=sweep.to_run,
            seconds=time.monotonic() - start,
        )

    if interrupted:
        end(
            f"stopped: {len(ledger.finished)} of {sweep.to_run} trials finished, "
            f"{sweep.to_run - ledger.over} to run"
        )
        return EXIT_INTERRUPTED
    planned = {trial.key: trial for trial in sweep.trials}
    of_store = None if behind else store_records(tracker)
    _report(planned | ledger.trials, cache, sweep.output, of_store, say)
    wall = time.monotonic() - start
    took = f"trials: {duration(ledger.seconds)} in all, {duration(wall)} on the clock"
    end(took if sweep.to_run else "")
    if behind:
        print(
            f"the runs of {behind} trials are behind, for the tracking store could not be written "
            f"to ({delivery.trouble}); mint sync delivers them",
            file=sys.stderr,
        )
    if ledger.failed:
        print(f"{len(ledger.failed)} of {sweep.to_run} trials failed", file=sys.stderr)
    return EXIT_FAILED if ledger.failed or of_store is None else 0


def _report(
    trials: Mapping[str, TrialConfig],
    cache: StageCache,
    output: Path,
    of_store: pd.DataFrame | None,
    say: Callable[[str], None],
) -> None:
    failed_trials = FailedTrials(cache)
    results: list[tuple[str, TrialResult | FailedTrial]] = []
    for trial in trials.values():
        if folder := cache.find("trials", trial.key):
            results.append(("", TrialResult.load(folder)))
        elif failed := failed_trials.read(trial.key):
            results.append(("", failed))
    rebuild_report(output, of_disk=trial_table(results), of_store=of_store, say=say)
