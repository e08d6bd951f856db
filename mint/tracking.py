"""The runs in MLflow: the only file that knows it. Every write may be repeated without harm."""

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mint.config import TrialConfig
from mint.errors import InputError
from mint.estimate import SCORES_FILE
from mint.provenance import Provenance
from mint.records import COLUMNS, sort_records, trial_columns
from mint.results import RESULT_FILE, Probe, TrialResult
from mint.trial import MASKS_FILE, SCORES_PLOT

# What it says of its tables is nothing that a user of a sweep can act on.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

DEFAULT_URI = "sqlite:///mlflow.db"

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
)
_VIEW = "mint"
_VIEW_COLUMNS = (
    "params.`groups`",
    "params.`samples_per_class`",
    "params.`upper_limit`",
    "params.`seed`",
    "metrics.`params_pruned`",
    "metrics.`accuracy`",
    "metrics.`accuracy_drop`",
    "metrics.`baseline_accuracy`",
    "metrics.`estimate/reliability`",
    "attributes.`Duration`",
)
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")

Series = dict[str, dict[int, float]]
"""For a metric's name, its value at every step."""


def tracking_uri(chosen: str | None) -> str:
    """Return the URI given, else that of MLFLOW_TRACKING_URI, else a database in this folder."""
    return chosen or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


class Tracker:
    """The runs of one tracking store, found by the content key in their tag mint.key."""

    def __init__(self, uri: str) -> None:
        """Remember the store; nothing is opened or made yet.

        Raises:
            InputError: the URI is of no kind that can be used.
        """
        scheme = urlsplit(uri).scheme.split("+")[0]
        self.shown = re.sub(r"//[^/@]*@", "//***@", uri)
        file = uri.removeprefix("sqlite:///")
        if scheme not in _SCHEMES or (scheme == "sqlite" and file in (uri, "", ":memory:")):
            raise InputError(
                f"--tracking-uri {self.shown}: allowed are sqlite:///FILE, the URI of another "
                "database, and http(s)://HOST:PORT of an MLflow server"
            )
        self._database: Path | None = None
        self.uri = uri
        if scheme == "sqlite":
            self._database = Path(file).absolute()
            # Absolute, for the workers of a sweep do not run in this folder.
            self.uri = f"sqlite:///{self._database}"

    @property
    def exists(self) -> bool:
        """Whether there is a store to read; asking makes none."""
        return self._database is None or self._database.is_file()

    def prepare(self, experiment: str) -> str:
        """Make the store and the experiment where they are missing, and return the latter's id.

        To be called before any trial: processes that meet a fresh database together break it.

        Raises:
            InputError: the store cannot be used.
        """
        if self._database:
            self._database.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as client:
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
            view = {
                "selectedColumns": _VIEW_COLUMNS,
                "orderByKey": "metrics.`params_pruned`",
                "orderByAsc": False,
            }
            client.set_experiment_tag(
                identifier, f"mlflow.sharedViewState.{_VIEW}", json.dumps(view)
            )
        return str(identifier)

    def view(self, experiment_id: str) -> str:
        """Return the path, on the server's address, of the table of runs with our columns."""
        return (
            f"/#/experiments/{experiment_id}/runs"
            f"?workflowType=machine_learning&viewStateShareKey={_VIEW}"
        )

    def finished_keys(self, experiment: str) -> set[str]:
        """Return the content keys of the finished runs of an experiment."""
        if not self.exists:
            return set()
        with self._opened() as client:
            found = client.get_experiment_by_name(experiment)
            runs = _finished(client, found) if found else []
        return {run.data.tags["mint.key"] for run in runs}

    def records(self) -> pd.DataFrame:
        """Return a row for every finished trial of every experiment."""
        with self._opened() as client:
            rows = [
                _row(run)
                for experiment in client.search_experiments()
                for run in _finished(client, experiment)
            ]
        return sort_records(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))

    def begin(self, config: TrialConfig, sweep: str | None, provenance: Provenance) -> str:
        """Return the id of the trial's run, now RUNNING: the one it has already, or a new one.

        Args:
            config: of the trial.
            sweep: that it is part of; None for a trial by itself.
            provenance: of the code.
        """
        client = MlflowClient(self.uri)
        tags = {
            "mint.key": config.key,
            "mint.sweep": sweep or "",
            "mint.seed": str(config.seed),
            "mint.git_dirty": str(provenance.git_dirty).lower(),
            "mlflow.source.git.commit": provenance.git_commit,
            "mlflow.source.name": f"sweeps/{sweep}.py" if sweep else "mint run",
            "mlflow.source.type": "LOCAL",
            "mlflow.note.content": f"{config.experiment.title}, trial {config.name}",
        }
        run = _run_of(client, config)
        if run is None:
            experiment_id = _experiment_id(client, config)
            run = client.create_run(experiment_id, run_name=config.name, tags=tags)
        run_id: str = run.info.run_id
        client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in _params(config).items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        if "mint.failure" in run.data.tags:
            client.delete_tag(run_id, "mint.failure")
        return run_id

    def log_probes(self, run_id: str, probes: Sequence[Probe]) -> None:
        """Log the probes so far: by number under probe/, their epochs counted on under retrain/."""
        _log_series(MlflowClient(self.uri), run_id, _probe_series(probes))

    def finish(self, run_id: str, result: TrialResult, folder: Path) -> None:
        """Give a run whatever it lacks of a finished trial, and close it as FINISHED."""
        client = MlflowClient(self.uri)
        finals: Series = {name: {0: getattr(result, name)} for name in _FINAL_METRICS}
        finals["probes"] = {0: len(result.probes)}
        finals["estimate/seconds"] = {0: result.score_seconds}
        finals["estimate/bootstraps"] = {0: result.bootstraps}
        for name, (dense, kept) in (
            ("multiply_adds", result.multiply_adds),
            ("state_bytes", result.state_bytes),
        ):
            finals |= {f"cost/{name}": {0: dense}, f"cost/pruned_{name}": {0: kept}}
        if result.reliability is not None:
            finals["estimate/reliability"] = {0: result.reliability}
        _log_series(client, run_id, _probe_series(result.probes) | finals)
        for file, subfolder in _ARTIFACT_FOLDERS.items():
            client.log_artifact(run_id, str(folder / file), subfolder)
        client.set_terminated(run_id, "FINISHED")

    def close(self, config: TrialConfig, status: str, reason: str, details: str = "") -> None:
        """Close the trial's run, if it is open, as FAILED or KILLED.

        Args:
            config: of the trial.
            status: FAILED or KILLED.
            reason: one line, for the tag mint.failure.
            details: such as a traceback, for the artifact failure.txt.
        """
        client = MlflowClient(self.uri)
        run = _run_of(client, config)
        if run is not None and run.info.status == "RUNNING":
            client.set_tag(run.info.run_id, "mint.failure", reason)
            if details:
                client.log_text(run.info.run_id, details, "failure.txt")
            client.set_terminated(run.info.run_id, status)

    @contextmanager
    def _opened(self) -> Iterator[MlflowClient]:
        try:
            yield MlflowClient(self.uri)
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"--tracking-uri {self.shown}: cannot be used as a tracking store: {reason}"
            ) from error

    def _artifacts(self, experiment: str) -> str | None:
        # A server decides for itself; beside a database the folder must be absolute, or each
        # process would put its files below the folder it happens to run in.
        if self._database is None:
            return None
        return (self._database.parent / "mlartifacts" / experiment).as_uri()


def _params(config: TrialConfig) -> dict[str, str | int | float | None]:
    chosen = config.experiment
    return {
        **{name: value for name, value in trial_columns(config).items() if name != "key"},
        "epochs": chosen.training.epochs,
        "max_drop": chosen.search.max_drop,
        "fraction": chosen.search.fraction,
        "data_digest": config.data_digest,
    }


def _probe_series(probes: Sequence[Probe]) -> Series:
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


def _log_series(client: MlflowClient, run_id: str, series: Mapping[str, dict[int, float]]) -> None:
    now = int(time.time() * 1000)
    missing = []
    for name, values in series.items():
        there = {metric.step for metric in client.get_metric_history(run_id, name)}
        missing += [Metric(name, v, now, step) for step, v in values.items() if step not in there]
    for start in range(0, len(missing), 1000):  # the most that one call takes
        client.log_batch(run_id, metrics=missing[start : start + 1000])


def _experiment_id(client: MlflowClient, config: TrialConfig) -> str:
    experiment = client.get_experiment_by_name(config.experiment.name)
    if experiment is None:
        raise LookupError(f"{config.experiment.name}: the tracking store is not prepared for it")
    identifier: str = experiment.experiment_id
    return identifier


def _run_of(client: MlflowClient, config: TrialConfig) -> Run | None:
    runs = client.search_runs(
        [_experiment_id(client, config)], f"tags.`mint.key` = '{config.key}'", max_results=1
    )
    return runs[0] if runs else None


def _finished(client: MlflowClient, experiment: Experiment) -> list[Run]:
    found: list[Run] = []
    page = None
    while True:
        runs = client.search_runs(
            [experiment.experiment_id],
            "attributes.status = 'FINISHED' AND tags.`mint.key` LIKE '%'",
            page_token=page,
        )
        found += runs
        page = runs.token
        if not page:
            return found


def _row(run: Run) -> dict[str, object]:
    values = {
        **run.data.params,
        **run.data.metrics,
        "bootstraps_drawn": run.data.metrics["estimate/bootstraps"],
        "reliability": run.data.metrics.get("estimate/reliability", math.nan),
        "key": run.data.tags["mint.key"],
        "run_id": run.info.run_id,
        "git_commit": run.data.tags["mlflow.source.git.commit"],
    }
    return {column: values[column] for column in COLUMNS}
