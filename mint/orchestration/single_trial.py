"""Runs one trial, with its MLflow run, its page and the report."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mint.errors import InputError, error_line, without_secrets
from mint.orchestration.interruption import STOP_SECONDS, STOPPED
from mint.reporting.folder import rebuild_report
from mint.reporting.trial_page import write_trial_page
from mint.reporting.trial_table import trial_table
from mint.store.locks import locked
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.writer import RunWriter
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.result import SearchStep, TrialKeys, TrialResult


@dataclass(frozen=True)
class ReportedTrial:
    """A finished trial that is in the report.

    Attributes:
        result: of the trial.
        folder: of its stage cache entry.
        page: file of its page.
        experiment_id: MLflow's id of the experiment.
        store_error: why its run could not be written; empty if it was.
    """

    result: TrialResult
    folder: Path
    page: Path
    experiment_id: str
    store_error: str


def run_and_report(
    pipeline: TrialPipeline,
    store: MlflowStore,
    output: Path,
    references: Sequence[Path],
    say: Callable[[str], None],
) -> ReportedTrial:
    """Run a trial, keep its MLflow run up to date, write its page and rebuild the report.

    Args:
        pipeline: stages of the trial.
        store: gets its run.
        output: results folder.
        references: files of published rows for the report.
        say: gets a line about the store and about the tables.

    Raises:
        InputError: another process runs the trial, or the store cannot be used.
        TrainingDivergedError: a training loss is no longer finite.
    """
    config, cache, provenance = pipeline.config, pipeline.cache, pipeline.provenance
    experiment_id = store.prepare(config.experiment.name)
    finished_runs = store.finished_runs(config.experiment.name)
    with (
        locked(cache, f"{config.experiment.name}-{config.key}", provenance.command),
        RunWriter(store, cache, provenance, finished_runs, say, STOP_SECONDS) as writer,
    ):
        folder = _run(pipeline, writer)
        trouble = writer.trouble if writer.close() else ""
    result = TrialResult.load(folder)
    page = write_trial_page(output, result)
    of_store = None
    if not trouble:
        try:
            of_store = trial_table(store.results(cache))
        except InputError as error:
            say(f"the tables are made without the tracking store: {error}")
    of_disk = trial_table([("", result)])
    rebuild_report(output, of_disk=of_disk, of_store=of_store, references=references, say=say)
    return ReportedTrial(result, folder, page, experiment_id, trouble)


def _run(pipeline: TrialPipeline, writer: RunWriter) -> Path:
    """Run a trial, write its states to its run, and return its folder."""
    config, callbacks = pipeline.config, pipeline.callbacks
    failed_trials = FailedTrials(pipeline.cache)
    steps: list[SearchStep] = []

    def on_search_step(step: SearchStep) -> None:
        steps.append(step)
        writer.running(config, steps)
        callbacks.on_search_step(step)

    pipeline.callbacks = replace(callbacks, on_search_step=on_search_step)
    writer.running(config)
    try:
        folder = run_trial(pipeline)
    except KeyboardInterrupt:
        writer.interrupted(config, STOPPED)
        raise
    except Exception as error:
        failed = FailedTrial(
            keys=TrialKeys.of(config),
            config=config,
            status="failed",
            reason=error_line(error),
            details=without_secrets(traceback.format_exc()),
            provenance=pipeline.provenance,
        )
        failed_trials.write(failed)
        writer.failed(failed)
        raise
    failed_trials.forget(config.key)
    writer.finished(config.key)
    return folder
