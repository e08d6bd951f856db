"""Trials as runs in MLflow. Every write can be repeated without harm."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mint.config.locations import check_writable
from mint.config.schema import TrialConfig, format_share
from mint.errors import InputError, first_line, without_secrets
from mint.store.stage_cache import StageCache
from mint.tracking.preflight import check_schema, check_store, reach_store
from mint.tracking.shared_runs import (
    FAILURE_TAGS,
    FINISHED_TAG,
    is_finished,
    log_series,
    run_of_trial,
    stays_finished,
)
from mint.tracking.ui import VIEW_TAG, paths, view_state
from mint.trial.failed_trials import FAILED_TRIAL_FILE, FailedTrial
from mint.trial.provenance import Provenance
from mint.trial.result import (
    MASKS_FILE,
    RESULT_FILE,
    SCORES_FILE,
    SearchStep,
    TrialKeys,
    TrialResult,
)

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

_NOTE = "mlflow.note.content"  # a description in Markdown
_MAX_TAG_LENGTH = 5000
_PARALLEL_DOWNLOADS = 8
# Defaults for MLflow's own settings: it notices within seconds that a server is away, since mint
# retries by itself, and it prints nothing.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class MlflowStore:
    """The runs of one tracking store; the tag mint.key of a run holds the key of its trial.

    Making the object opens and creates nothing. It and its methods raise InputError if the store
    cannot be reached or used.

    Attributes:
        uri: of the store, with absolute paths.
        shown: the URI without secrets.
    """

    def __init__(self, uri: str) -> None:
        check_store(uri)
        self.shown = without_secrets(uri)
        for name, value in _MLFLOW_SETTINGS.items():
            os.environ.setdefault(name, value)
        self._database: Path | None = None
        self._checked = False
        self.uri = uri
        if uri.startswith("sqlite"):
            self._database = Path(uri.removeprefix("sqlite:///")).absolute()
            self.uri = f"sqlite:///{self._database}"

    @property
    def exists(self) -> bool:
        """Whether there is a store to read."""
        return self._database is None or self._database.is_file()

    def prepare(self, experiment: str) -> str:
        """Create the store and the experiment if they are missing; return the experiment's id.

        Call it before any trial runs: processes that open a new database together break it.
        """
        with self._lock(), self._client() as client:
            found = client.get_experiment_by_name(experiment)
            if found is None:
                # Absolute, or each process would write below its own working folder.
                beside = self._database.parent / "mlartifacts" if self._database else None
                artifacts = (beside / experiment).as_uri() if beside else None
                try:
                    client.create_experiment(experiment, artifacts)
                except MlflowException as error:  # another machine may have just created it
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                found = client.get_experiment_by_name(experiment)
                assert found
            if found.lifecycle_stage != "active":
                problem = "was deleted; restore it there, or use another store"
                raise self._error(f"its experiment {experiment} {problem}")
            self._check_artifacts(experiment, found.artifact_location)
            identifier = str(found.experiment_id)
            client.set_experiment_tag(identifier, VIEW_TAG, view_state())
            if _NOTE not in found.tags:
                pages = [f"[{page}]({path[1:]})" for page, path in paths(identifier).items()]
                client.set_experiment_tag(identifier, _NOTE, f"Trials of mint: {', '.join(pages)}")
        return identifier

    def experiments(self) -> dict[str, str]:
        """Return the ids of the experiments that mint prepared, by name."""
        with self._client() as client:
            found = client.search_experiments(order_by=["name ASC"])
        return {each.name: str(each.experiment_id) for each in found if VIEW_TAG in each.tags}

    def finished_runs(self, experiment: str) -> dict[str, str]:
        """Return the ids of an experiment's finished runs, by the keys of their trials."""
        if not self.exists:
            return {}
        with self._client() as client:
            runs = _runs(client, experiment)
        return {_key(run): run.info.run_id for run in runs if is_finished(run)}

    def results(
        self, cache: StageCache | None = None
    ) -> Iterator[tuple[str, TrialResult | FailedTrial]]:
        """Yield the run id and the result of every trial that ended, as its own file holds it.

        A cache spares the download of the trials that it holds.
        """
        with self._client() as client:
            names = [experiment.name for experiment in client.search_experiments()]
            found = [run for name in names for run in _runs(client, name)]
        runs = [run for run in found if is_finished(run) or "mint.status" in run.data.tags]
        with (
            tempfile.TemporaryDirectory() as downloads,
            ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
        ):
            read = partial(self._read, downloads=Path(downloads), cache=cache)
            for run, result in zip(runs, pool.map(read, runs), strict=True):
                if result is not None:
                    yield run.info.run_id, result

    def _read(
        self, run: Run, downloads: Path, cache: StageCache | None
    ) -> TrialResult | FailedTrial | None:
        finished = is_finished(run)
        file = RESULT_FILE if finished else FAILED_TRIAL_FILE
        artifact = f"{run.info.artifact_uri}/{file}"
        try:
            if urlsplit(artifact).scheme in ("", "file"):
                path = Path(url2pathname(urlsplit(artifact).path))
            elif finished and cache and (cached := cache.find("trials", _key(run))):
                path = cached / file
            else:
                folder = str(downloads / run.info.run_id)
                path = Path(download_artifacts(artifact, dst_path=folder, tracking_uri=self.uri))
            model = TrialResult if finished else FailedTrial
            return model.model_validate_json(path.read_bytes())
        except (MlflowException, OSError, ValueError) as error:
            if self.is_away():
                raise self._error(f"cannot be read: {without_secrets(first_line(error))}") from None
            warnings.warn(
                f"run {run.info.run_id} of {self.shown}: {file} cannot be read "
                f"({type(error).__name__}); the trial is left out",
                stacklevel=2,
            )
            return None

    def close_orphans(
        self, experiment: str, owner: str, reason: str, sweep: str | None = None
    ) -> int:
        """Close runs that are open although no process works on them; return their number.

        Args:
            experiment: of the runs.
            owner: identity of a stage cache in which no other process runs these trials.
            reason: for the tag mint.failure.
            sweep: of the runs; None for all.
        """
        closed = 0
        with self._client() as client:
            for run in _runs(client, experiment):
                tags = run.data.tags
                if is_finished(run):
                    if run.info.status != "FINISHED":  # who changed it died before this
                        stays_finished(client, run.info.run_id)
                elif (
                    run.info.status == "RUNNING"
                    and tags.get("mint.owner") == owner
                    and sweep in (None, tags.get("mint.sweep"))
                ):
                    self.close(run.info.run_id, "KILLED", reason)
                    closed += 1
        return closed

    def is_away(self) -> bool:
        """Return whether the store does not answer."""
        try:
            with self._client() as client:
                client.search_experiments(max_results=1)
        except InputError:
            return True
        return False

    def begin(
        self, config: TrialConfig, keys: TrialKeys, provenance: Provenance, owner: str
    ) -> str | None:
        """Set the run of a trial RUNNING, after creating it if it is missing; return its id.

        Return None if the run is finished already, and leave it so. The owner is the identity of
        the stage cache that the trial runs in.
        """
        client = MlflowClient(self.uri)
        tags = {**_tags(config, keys, provenance), "mint.owner": owner}
        run = run_of_trial(client, config, tags)
        run_id: str = run.info.run_id
        if not is_finished(run):
            client.log_batch(
                run_id,
                params=[Param(name, str(value)) for name, value in _params(config, keys).items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
            for tag in FAILURE_TAGS & run.data.tags.keys():
                client.delete_tag(run_id, tag)
        return None if stays_finished(client, run_id) else run_id

    def log_search_steps(self, run_id: str, steps: Sequence[SearchStep]) -> None:
        """Log the search steps so far; the epochs of all retrainings are numbered through."""
        client = MlflowClient(self.uri)
        run = client.get_run(run_id)
        if not is_finished(run):
            log_series(client, run, _step_series(steps))

    def finish(
        self, run_id: str, result: TrialResult, folder: Path, plot: Path | None = None
    ) -> None:
        """Write what a run lacks of a finished trial, then set it FINISHED.

        The folder holds the trial's result, masks and scores; the plot shows the scores.
        """
        client = MlflowClient(self.uri)
        if stays_finished(client, run_id):  # another machine has finished it
            return
        finals = {name: {0: value} for name, value in _final_metrics(result).items()}
        log_series(client, client.get_run(run_id), {**_step_series(result.search_steps), **finals})
        note = (
            f"{_headline(result.config)}\n\n{result.params_pruned:.2f}% of the counted weights "
            f"pruned, accuracy {result.accuracy:.2f}%, baseline {result.baseline_accuracy:.2f}%"
        )
        files = (folder / MASKS_FILE, folder / SCORES_FILE)
        artifacts = [path for path in files if path.exists()]  # not every trial keeps its scores
        if plot:
            artifacts.append(plot)
            shown = f"masks/{plot.name}"
            note += f"\n\n![{shown}](get-artifact?path={shown}&run_uuid={run_id})"
        for path in artifacts:
            client.log_artifact(run_id, str(path), "masks")
        client.log_artifact(run_id, str(folder / RESULT_FILE))
        tags = _tags(result.config, result.keys, result.provenance)
        tags |= {"mint.device": result.device, _NOTE: note, FINISHED_TAG: "true"}
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        stays_finished(client, run_id)

    def close_failed(self, run_id: str, failed: FailedTrial) -> None:
        """Write what is known of a failed or stopped trial to its run, then close it."""
        client = MlflowClient(self.uri)
        run = client.get_run(run_id)
        if is_finished(run):
            return
        log_series(client, run, {"retrain/validation_accuracy": dict(failed.history)})
        client.log_text(run_id, failed.model_dump_json(indent=1), FAILED_TRIAL_FILE)
        if failed.details:
            client.log_text(run_id, failed.details, "failure.txt")
        client.set_tag(run_id, "mint.status", failed.status)
        self.close(run_id, "FAILED" if failed.status == "failed" else "KILLED", failed.reason)

    def close(self, run_id: str, status: str, reason: str) -> None:
        """Close a run as FAILED or KILLED, with the reason in a tag, unless it is finished."""
        client = MlflowClient(self.uri)
        if not stays_finished(client, run_id):
            client.set_tag(run_id, "mint.failure", reason[:_MAX_TAG_LENGTH])
            client.set_terminated(run_id, status)
            stays_finished(client, run_id)

    def _lock(self) -> AbstractContextManager[object]:
        """Keep other processes of this machine from creating the same thing in a database."""
        if self._database is None:
            return nullcontext()
        folder = self._database.parent
        check_writable("tracking_uri", folder)
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{self._database.name}.lock")

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        reach_store(self.uri)
        if not self._checked:
            self._checked = check_schema(self.uri)
        try:
            yield MlflowClient(self.uri)
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            reason = without_secrets(first_line(error))
            raise self._error(f"cannot be used as a tracking store: {reason}") from error

    def _check_artifacts(self, experiment: str, location: str) -> None:
        """Raise InputError if files of runs go to a folder that this machine cannot write."""
        if urlsplit(location).scheme not in ("", "file"):
            return
        folder = Path(url2pathname(urlsplit(location).path))
        try:
            check_writable("tracking_uri", folder)
        except InputError as error:
            raise self._error(
                f"its experiment {experiment} keeps files in {folder}, which this machine cannot "
                f"write ({error.problem}); make that folder writable here, or use another store: "
                "mint sync writes this machine's trials to it"
            ) from None

    def _error(self, problem: str) -> InputError:
        return InputError(problem, parameter="tracking_uri", value=self.shown)


def _headline(config: TrialConfig) -> str:
    return f"{config.experiment.title}, trial {config.name}"


def _tags(config: TrialConfig, keys: TrialKeys, provenance: Provenance) -> dict[str, str]:
    dirty, sweep = provenance.git_dirty, provenance.sweep
    return {
        "mint.key": keys.key,
        "mint.sweep": sweep or "",
        "mint.seed": str(config.seed),
        "mint.command": provenance.command,
        "mint.device": provenance.device,
        "mint.git_dirty": "unknown" if dirty is None else str(dirty).lower(),
        **{f"mint.version.{name}": text for name, text in provenance.versions.items()},
        "mlflow.source.git.commit": provenance.git_commit,
        "mlflow.source.name": f"sweeps/{sweep}.py" if sweep else "mint run",
        "mlflow.source.type": "LOCAL",
        _NOTE: _headline(config),
    }


def _params(config: TrialConfig, keys: TrialKeys) -> dict[str, str | int | float | None]:
    axes = ("criterion", "groups", "grouping", "samples_per_class", "seed", "data_digest")
    return {
        "experiment": config.experiment.name,
        "protocol": keys.protocol,
        **{name: getattr(config, name) for name in axes},
        "upper_limit": format_share(config.upper_limit),
        # MLflow's charts leave out runs whose value is a word where others have numbers.
        "upper_limit_or_1": 1 if config.upper_limit is None else config.upper_limit,
        "fraction": format_share(config.search.fraction),
        "margin": config.search.margin,
        "bootstraps": config.estimate.bootstraps if config.uses("bootstraps") else 0,
        "retraining": config.retraining,
        "compensate": config.compensate,
        "epochs": config.experiment.training.epochs,
    }


def _final_metrics(result: TrialResult) -> dict[str, float]:
    metrics = {name: value for name, value in result if isinstance(value, int | float)}
    del metrics["seconds"]  # MLflow has the duration of the run
    metrics["bootstraps_drawn"] = metrics.pop("bootstraps")
    metrics["search_steps"] = len(result.search_steps)
    metrics["multiply_adds"], metrics["pruned_multiply_adds"] = result.multiply_adds
    metrics["state_bytes"], metrics["pruned_state_bytes"] = result.state_bytes
    return metrics


def _step_series(steps: Sequence[SearchStep]) -> dict[str, dict[int, float]]:
    epochs = [epoch for step in steps for epoch in step.retraining.training]
    series: dict[str, list[float]] = {
        "search/params_pruned": [step.params_pruned for step in steps],
        "search/validation_accuracy": [step.retraining.validation_accuracy for step in steps],
        "search/passed": [step.passed for step in steps if step.passed is not None],
        "retrain/loss": [epoch.loss for epoch in epochs],
        "retrain/validation_accuracy": [epoch.validation_accuracy for epoch in epochs],
    }
    return {name: dict(enumerate(values, start=1)) for name, values in series.items()}


def _key(run: Run) -> str:
    key: str = run.data.tags["mint.key"]
    return key


def _runs(client: MlflowClient, experiment: str) -> list[Run]:
    """Return all runs of trials of an experiment; none if there is no such experiment."""
    existing = client.get_experiment_by_name(experiment)
    found: list[Run] = []
    page = None
    while existing:
        runs = client.search_runs(
            [existing.experiment_id], "tags.`mint.key` LIKE '%'", page_token=page
        )
        found += runs
        page = runs.token
        if not page:
            break
    return found
