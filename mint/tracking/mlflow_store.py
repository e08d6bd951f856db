"""The runs in MLflow: the only file that knows it. Every write may be repeated without harm."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mint.config.schema import DEFAULT_CRITERION, TrialConfig
from mint.errors import InputError, first_line, without_secrets
from mint.pruning.layer_table import layers_text
from mint.reporting.trial_table import COLUMNS, table_of_rows, trial_columns
from mint.tracking.preflight import check_store, reach_store
from mint.tracking.views import VIEW_TAG, experiment_note, run_note, view_state
from mint.trial.failed_trials import FailedTrial
from mint.trial.provenance import Provenance
from mint.trial.result import (
    MASKS_FILE,
    RESULT_FILE,
    SCORES_FILE,
    SearchStep,
    TrialKeys,
    TrialResult,
)

# What it says of its tables is nothing that a user of a sweep can act on.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

SCORES_PLOT = "scores.png"
_ARTIFACT_FOLDERS = {
    MASKS_FILE: "masks",
    SCORES_FILE: "masks",
    SCORES_PLOT: "masks",
    RESULT_FILE: None,
}
_FINAL_METRICS = (
    "params_pruned",
    "accuracy",
    "baseline_accuracy",
    "accuracy_drop",
    "validation_accuracy",
    "baseline_validation_accuracy",
    "pruned_weights",
    "prunable_weights",
    "counted_weights",
    "score_seconds",
)
# Of runs from before they had the names of records.
_FORMER_METRICS = {
    "estimate/bootstraps": "bootstraps_drawn",
    "estimate/reliability": "reliability",
}
_NOTE = "mlflow.note.content"  # a description, in Markdown
_LONGEST_TAG = 5000
# MLflow's own settings, where the user has none: a server that is away is noticed in seconds, not
# after minutes of trying again, for mint tries again by itself; and lines are mint's to print.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

Series = dict[str, dict[int, float]]
"""For a metric's name, its value at every step."""


class Tracker:
    """The runs of one tracking store, found by the content key in their tag mint.key."""

    def __init__(self, uri: str) -> None:
        """Remember the store; nothing is opened or made yet.

        Raises:
            InputError: the URI is of no kind that can be used.
        """
        check_store(uri)
        self.shown = without_secrets(uri)
        for name, value in _MLFLOW_SETTINGS.items():
            os.environ.setdefault(name, value)
        self._made_here: set[str] = set()
        self._logged: dict[str, dict[str, set[int]]] = {}
        self._database: Path | None = None
        self.uri = uri
        if uri.startswith("sqlite"):
            self._database = Path(uri.removeprefix("sqlite:///")).absolute()
            # Absolute, as the folder of its artifacts is.
            self.uri = f"sqlite:///{self._database}"

    @property
    def exists(self) -> bool:
        """Whether there is a store to read; asking makes none."""
        return self._database is None or self._database.is_file()

    def prepare(self, experiment: str) -> str:
        """Make the store and the experiment where they are missing, and return the latter's id.

        To be called before any trial: processes that meet a fresh database together break it,
        so one waits for the other.

        Raises:
            InputError: the store cannot be reached, or not be used.
        """
        reach_store(self.uri)
        with self._alone(), self._opened() as client:
            found = client.get_experiment_by_name(experiment)
            if found is None:
                identifier = client.create_experiment(experiment, self._artifacts(experiment))
            elif found.lifecycle_stage == "active":
                identifier = found.experiment_id
            else:
                raise InputError(
                    f"--tracking-uri {self.shown}: its experiment {experiment} was deleted; "
                    "restore it there, or use another store"
                )
            client.set_experiment_tag(identifier, VIEW_TAG, view_state())
            if _NOTE not in client.get_experiment(identifier).tags:
                note = experiment_note(identifier)
                client.set_experiment_tag(identifier, _NOTE, note)
        return str(identifier)

    def experiments(self) -> dict[str, str]:
        """Return the id of every experiment that was prepared here, by name.

        Raises:
            InputError: the store cannot be reached, or not be used.
        """
        reach_store(self.uri)
        with self._opened() as client:
            found = client.search_experiments(order_by=["name ASC"])
        return {each.name: str(each.experiment_id) for each in found if VIEW_TAG in each.tags}

    def runs(self, experiment: str) -> dict[str, str]:
        """Return, for the content key of every trial of an experiment, the id of its finished run.

        Raises:
            InputError: the store cannot be reached, or not be used.
        """
        if not self.exists:
            return {}
        reach_store(self.uri)
        with self._opened() as client:
            found = client.get_experiment_by_name(experiment)
            runs = _runs(client, found) if found else []
        return {
            run.data.tags["mint.key"]: run.info.run_id
            for run in runs
            if run.info.status == "FINISHED"
        }

    def records(self) -> pd.DataFrame:
        """Return a row for every trial of every experiment that has ended, with a result or not.

        Raises:
            InputError: the store cannot be reached, or not be used.
        """
        reach_store(self.uri)
        with self._opened() as client:
            rows = [
                _row(client, run)
                for experiment in client.search_experiments()
                for run in _runs(client, experiment)
                if run.info.status == "FINISHED" or "mint.status" in run.data.tags
            ]
        return table_of_rows(rows)

    def close_orphans(
        self, experiment: str, owner: str, reason: str, sweep: str | None = None
    ) -> int:
        """Close the open runs that nobody works on any more as KILLED, and return their number.

        Args:
            experiment: of the runs.
            owner: of the runs, as begin was told: a folder of stages that nobody else runs these
                trials in.
            reason: for the tag mint.failure.
            sweep: of the runs; None for all.
        """
        with self._opened() as client:
            found = client.get_experiment_by_name(experiment)
            runs = _runs(client, found) if found else []
            orphans = [
                run
                for run in runs
                if run.info.status == "RUNNING"
                and run.data.tags.get("mint.owner") == owner
                and sweep in (None, run.data.tags.get("mint.orchestration.tune"))
            ]
            for run in orphans:
                self.close(run.info.run_id, "KILLED", reason)
        return len(orphans)

    def is_away(self) -> bool:
        """Tell whether the store does not answer, as after a write that failed."""
        try:
            reach_store(self.uri)
            with self._opened() as client:
                client.search_experiments(max_results=1)
        except InputError:
            return True
        return False

    def begin(self, config: TrialConfig, provenance: Provenance, owner: str) -> str:
        """Return the id of the trial's run, now RUNNING: the one it has already, or a new one.

        Args:
            config: of the trial.
            provenance: of the trial.
            owner: the folder of stages that it is run in (StageCache.identity).
        """
        client = MlflowClient(self.uri)
        tags = {
            "mint.key": config.key,
            "mint.orchestration.tune": provenance.sweep or "",
            "mint.owner": owner,
            "mint.seed": str(config.seed),
            "mint.command": provenance.command,
            "mint.device": provenance.device,
            "mint.git_dirty": _word(provenance.git_dirty),
            **{f"mint.version.{name}": text for name, text in provenance.versions.items()},
            "mlflow.source.git.commit": provenance.git_commit,
            "mlflow.source.name": f"sweeps/{provenance.sweep}.py"
            if provenance.sweep
            else "mint run",
            "mlflow.source.type": "LOCAL",
            _NOTE: _headline(config),
        }
        with self._alone():
            run = self._run_of(client, config)
            if run is None:
                run = client.create_run(
                    self._experiment_id(client, config), run_name=config.name, tags=tags
                )
                self._made_here.add(run.info.run_id)
        run_id: str = run.info.run_id
        client.log_batch(
            run_id,
            # A param cannot change, and a setting may be told in other words by now.
            params=[
                Param(name, str(value))
                for name, value in _params(config).items()
                if name != "setting" or name not in run.data.params
            ],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        for tag in ("mint.failure", "mint.status"):
            if tag in run.data.tags:
                client.delete_tag(run_id, tag)
        return run_id

    def log_search_steps(self, run_id: str, probes: Sequence[SearchStep]) -> None:
        """Log the probes so far: by number under probe/, their epochs counted on under retrain/."""
        self._log_series(MlflowClient(self.uri), run_id, _probe_series(probes))

    def finish(self, run_id: str, result: TrialResult, folder: Path) -> None:
        """Give a run whatever it lacks of a finished trial, and close it as FINISHED."""
        client = MlflowClient(self.uri)
        finals: Series = {name: {0: getattr(result, name)} for name in _FINAL_METRICS}
        finals["search_steps"] = {0: len(result.search_steps)}
        finals["bootstraps_drawn"] = {0: result.bootstraps}
        for name, (dense, kept) in (
            ("multiply_adds", result.multiply_adds),
            ("state_bytes", result.state_bytes),
        ):
            finals |= {name: {0: dense}, f"pruned_{name}": {0: kept}}
        if result.reliability is not None:
            finals["reliability"] = {0: result.reliability}
        self._forget(run_id)  # another sweep that has the same trial may have written, too
        self._log_series(client, run_id, _probe_series(result.search_steps) | finals)
        tags = [RunTag("mint.device", result.device)]
        layers = layers_text(result.layers)
        if len(layers) <= _LONGEST_TAG:  # else they are read from the record, below
            tags.append(RunTag("mint.pruning.layer_table", layers))
        figures = (
            f"{result.params_pruned:.2f}% of the counted weights pruned, accuracy "
            f"{result.accuracy:.2f}%, before {result.baseline_accuracy:.2f}%"
        )
        picture = f"{_ARTIFACT_FOLDERS[SCORES_PLOT]}/{SCORES_PLOT}"
        note = run_note(_headline(result.config), figures, run_id, picture)
        tags.append(RunTag(_NOTE, note))
        client.log_batch(run_id, tags=tags)
        for file, subfolder in _ARTIFACT_FOLDERS.items():
            if (folder / file).exists():
                client.log_artifact(run_id, str(folder / file), subfolder)
        client.set_terminated(run_id, "FINISHED")

    def close(self, run_id: str, status: str, reason: str) -> None:
        """Close a run that has no result, as FAILED or KILLED, with the reason in a tag."""
        client = MlflowClient(self.uri)
        client.set_tag(run_id, "mint.failure", reason[:_LONGEST_TAG])
        client.set_terminated(run_id, status)

    def close_failed(self, run_id: str, gap: FailedTrial) -> None:
        """Close the run of a trial that failed or was stopped, with all that is known of it."""
        client = MlflowClient(self.uri)
        reached = {"retrain/validation_accuracy": dict(gap.history)}
        self._log_series(client, run_id, reached)
        client.set_tag(run_id, "mint.status", gap.status)
        if gap.details:
            client.log_text(run_id, gap.details, "failure.txt")
        self.close(run_id, "FAILED" if gap.status == "failed" else "KILLED", gap.reason)

    def _log_series(
        self, client: MlflowClient, run_id: str, series: Mapping[str, dict[int, float]]
    ) -> None:
        # What a run has is asked once, and of one that was made here not at all.
        logged = self._logged.setdefault(run_id, {})
        now = int(time.time() * 1000)
        missing = []
        for name, values in series.items():
            if name not in logged:
                made_here = run_id in self._made_here
                history = [] if made_here else client.get_metric_history(run_id, name)
                logged[name] = {metric.step for metric in history}
            there = logged[name]
            missing += [
                Metric(name, value, now, step)
                for step, value in values.items()
                if step not in there
            ]
        for start in range(0, len(missing), 1000):  # the most that one call takes
            batch = missing[start : start + 1000]
            try:
                client.log_batch(run_id, metrics=batch)
            except BaseException:  # it may have been written all the same: ask again
                self._forget(run_id)
                raise
            for metric in batch:
                logged[metric.key].add(metric.step)

    def _forget(self, run_id: str) -> None:
        self._logged.pop(run_id, None)
        self._made_here.discard(run_id)

    def _run_of(self, client: MlflowClient, config: TrialConfig) -> Run | None:
        runs = client.search_runs(
            [self._experiment_id(client, config)],
            f"tags.`mint.key` = '{config.key}'",
            max_results=1,
        )
        return runs[0] if runs else None

    def _experiment_id(self, client: MlflowClient, config: TrialConfig) -> str:
        experiment = client.get_experiment_by_name(config.experiment.name)
        if experiment is None:
            raise LookupError(
                f"{config.experiment.name}: the tracking store is not prepared for it"
            )
        identifier: str = experiment.experiment_id
        return identifier

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making the same thing in a database on this machine."""
        if self._database is None:
            yield
            return
        try:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._database.with_name(f"{self._database.name}.lock"))
            lock.acquire()
        except OSError as error:
            raise InputError(
                f"--tracking-uri {self.shown}: cannot be used as a tracking store: {error.strerror}"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _opened(self) -> Iterator[MlflowClient]:
        try:
            yield MlflowClient(self.uri)
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            reason = without_secrets(first_line(error))
            raise InputError(
                f"--tracking-uri {self.shown}: cannot be used as a tracking store: {reason}"
            ) from error

    def _artifacts(self, experiment: str) -> str | None:
        # A server decides for itself; beside a database the folder must be absolute, or each
        # process would put its files below the folder it happens to run in.
        if self._database is None:
            return None
        return (self._database.parent / "mlartifacts" / experiment).as_uri()


def _word(truth: bool | None) -> str:
    return "unknown" if truth is None else str(truth).lower()


def _headline(config: TrialConfig) -> str:
    return f"{config.experiment.title}, trial {config.name}"


def _params(config: TrialConfig) -> dict[str, str | int | float | None]:
    return {
        **{
            name: value
            for name, value in trial_columns(config, TrialKeys.of(config)).items()
            if name != "key"
        },
        # MLflow's charts leave out the runs whose value is a word where others have numbers.
        "upper_limit_or_1": 1 if config.upper_limit is None else config.upper_limit,
        "epochs": config.experiment.training.epochs,
        "max_drop": config.search.max_drop,
        "data_digest": config.data_digest,
    }


def _probe_series(probes: Sequence[SearchStep]) -> Series:
    series: Series = {}

    def add(name: str, values: Sequence[float]) -> None:
        series[name] = dict(enumerate(values, start=1))

    add("probe/params_pruned", [probe.params_pruned for probe in probes])
    add("probe/validation_accuracy", [p.retraining.validation_accuracy for p in probes])
    if all(probe.passed is not None for probe in probes):
        add("probe/passed", [float(bool(probe.passed)) for probe in probes])
    epochs = [epoch for probe in probes for epoch in probe.retraining.training]
    add("retrain/loss", [epoch.loss for epoch in epochs])
    add("retrain/validation_accuracy", [epoch.validation_accuracy for epoch in epochs])
    return series


def _runs(client: MlflowClient, experiment: Experiment) -> list[Run]:
    found: list[Run] = []
    page = None
    while True:
        runs = client.search_runs(
            [experiment.experiment_id],
            "tags.`mint.key` LIKE '%'",
            page_token=page,
        )
        found += runs
        page = runs.token
        if not page:
            return found


def _layers(client: MlflowClient, run: Run) -> str:
    """Return the layers as records have them: of the tag, else of the record kept with the run."""
    if tagged := run.data.tags.get("mint.pruning.layer_table"):
        return tagged
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(run.info.run_id, RESULT_FILE, folder)
        return layers_text(TrialResult.load(Path(folder)).layers)


def _row(client: MlflowClient, run: Run) -> dict[str, object]:
    """Return the same row as mint.reporting.trial_table makes of the trial's own record."""
    gap = None if run.info.status == "FINISHED" else run.data.tags["mint.status"]
    logged = {} if gap else run.data.metrics
    metrics = {_FORMER_METRICS.get(name, name): value for name, value in logged.items()}
    values = {
        "criterion": DEFAULT_CRITERION,  # of runs from before there were others
        **metrics,
        **run.data.params,
        "layers": "" if gap else _layers(client, run),
        "status": gap or "finished",
        "reason": run.data.tags.get("mint.failure", "") if gap else "",
        "key": run.data.tags["mint.key"],
        "run_id": run.info.run_id,
        "git_commit": run.data.tags["mlflow.source.git.commit"],
    }
    return {column: values[column] for column in COLUMNS if column in values}


def store_records(tracker: Tracker) -> pd.DataFrame | None:
    """Return the trials of a tracking store; None, and a warning, if it cannot be read."""
    try:
        return tracker.records()
    except InputError as error:
        print(f"the tables are made without it: {error}", file=sys.stderr)
        return None
