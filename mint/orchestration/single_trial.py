"""Runs one trial, with its MLflow run, its page and the report."""

import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mint.errors import InputError, WorkFailedError, error_line, without_secrets
from mint.orchestration.display import Silent
from mint.orchestration.interruption import STOPPED, requested
from mint.orchestration.trial_monitor import TrialMonitor
from mint.reporting.folder import rebuild_report
from mint.reporting.trial_page import write_trial_page
from mint.reporting.trials_csv import trial_table
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.run_writer import RunWriter
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.result import SearchStep, TrialResult

_say = partial(print, flush=True)


def run_and_report(
    pipeline: TrialPipeline, store: MlflowStore, output: Path, references: Sequence[Path]
) -> str:
    """Run a trial, keep its MLflow run up to date, write its page and rebuild the report.

    Args:
        pipeline: stages of the trial.
        store: gets its run; its id of the experiment is returned.
        output: results folder.
        references: files of published rows for the report.

    Raises:
        InputError: another process runs the trial, or the store cannot be used.
        WorkFailedError: a training loss is no longer finite, or the run could not be written.
    """
    cache, name = pipeline.cache, pipeline.experiment.name
    experiment_id = store.prepare(name)
    finished_runs = store.finished_runs(name)
    with (
        pipeline.locked(),
        RunWriter(store, cache, pipeline.provenance, finished_runs, _say) as writer,
    ):
        if cache.find("trials", pipeline.config.key):
            _say("the trial was finished already; nothing runs again")
        folder = _run(pipeline, TrialMonitor(writer, Silent(), to_run=1))
        unwritten = writer.close()
    result, of_store = TrialResult.load(folder), None
    page = write_trial_page(output, result)
    if not unwritten:
        try:
            store.nest_seeds(name)
            results, unread = store.results(cache)
            of_store = trial_table(results)
            for run in unread:
                _say(run)
        except InputError as error:
            _say(f"the tables are made without the tracking store: {error}")
    of_disk = trial_table([("", result)])
    rebuild_report(output, of_disk=of_disk, of_store=of_store, references=references, say=_say)
    accuracies = f"{result.accuracy:.2f}%, the baseline's {result.baseline_accuracy:.2f}%"
    _say(f"pruned {result.params_pruned:.2f}%: test accuracy {accuracies}")
    _say(f"trial:  {folder}\npage:   {page}")
    if unwritten:
        problem = f"its run could not be written to the tracking store ({writer.trouble})"
        raise WorkFailedError(f"the trial is finished, but {problem}; mint sync writes it")
    return experiment_id


def _run(pipeline: TrialPipeline, monitor: TrialMonitor) -> Path:
    """Run a trial, report its states, and return its folder."""
    config, callbacks = pipeline.config, pipeline.callbacks

    def on_search_step(step: SearchStep) -> None:
        monitor.search_step(config, step)
        callbacks.on_search_step(step)

    pipeline.callbacks = replace(callbacks, on_search_step=on_search_step)
    monitor.started(config)
    try:
        folder = run_trial(pipeline)
    except KeyboardInterrupt:
        monitor.interrupt(STOPPED)
        raise
    except Exception as error:
        if requested():  # an import that a signal stops may fail in another way
            monitor.interrupt(STOPPED)
            raise KeyboardInterrupt from error
        details = without_secrets(traceback.format_exc())
        monitor.ended(config, "failed", 0, error_line(error), details)
        raise
    monitor.ended(config, "finished", 0)
    return folder
