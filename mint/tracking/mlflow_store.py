"""Trials as runs in MLflow. Every write can be repeated without harm."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError

from mint.config.locations import check_writable
from mint.config.schema import TrialConfig
from mint.errors import InputError, error_line, first_line, without_secrets
from mint.store.manifest import Manifest
from mint.store.stage_cache import StageCache
from mint.tracking.preflight import check_schema, check_store, reach_store
from mint.tracking.run_content import (
    NOTE_TAG,
    final_metrics,
    headline,
    params_of,
    step_series,
    tags_of,
)
from mint.tracking.seed_runs import SETTING_TAG, nest_seeds
from mint.tracking.shared_runs import (
    FAILURE_TAGS,
    FILES_PARAMETER,
    FINISHED_TAG,
    decide,
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
_LOCK_NUMBER = 0x6D696E74  # of PostgreSQL's advisory lock, "mint" in ASCII
_SERVED = "an MLflow server keeps; give the server's address, http(s)://HOST:PORT"


class StoredTrials(NamedTuple):
    """The trials of a store that ended, each with the id of its run.

    Attributes:
        read: their results.
        unread: a line for each run whose file could not be read.
    """

    read: list[tuple[str, TrialResult | FailedTrial]]
    unread: list[str]


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
        self._ready = False  # it has MLflow's tables
        self.uri = uri
        if uri.startswith("sqlite"):
            self._database = Path(uri.removeprefix("sqlite:///")).absolute()
            self.uri = f"sqlite:///{self._database}"

    @property
    def exists(self) -> bool:
        """Whether there is a store to read."""
        if not self._ready and (self._database is None or self._database.is_file()):
            reach_store(self.uri)
            self._ready = check_schema(self.uri)
        return self._ready

    def prepare(self, experiment: str) -> str:
        """Create the store and the experiment if they are missing; return the experiment's id."""
        with self._client() as client:
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
            if NOTE_TAG not in found.tags:
                pages = [f"[{page}]({path[1:]})" for page, path in paths(identifier).items()]
                client.set_experiment_tag(
                    identifier, NOTE_TAG, f"Trials of mint: {', '.join(pages)}"
                )
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

    def nest_seeds(self, experiment: str) -> None:
        """Nest the finished trials that differ in their seed below a run with their mean."""
        with self._client() as client:
            settings = _runs(client, experiment, SETTING_TAG)
            nest_seeds(client, _runs(client, experiment), settings)

    def results(self, cache: StageCache | None = None) -> StoredTrials:
        """Return the result of every trial that ended, as its own file holds it.

        A cache spares the download of the trials that it holds.

        Raises:
            InputError: no file can be read, or the store does not answer.
        """
        with self._client() as client:
            names = [experiment.name for experiment in client.search_experiments()]
            found = [run for name in names for run in _runs(client, name)]
        runs = [run for run in found if is_finished(run) or "mint.status" in run.data.tags]
        stored = StoredTrials([], [])
        with (
            tempfile.TemporaryDirectory() as downloads,
            ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
        ):
            read = partial(self._read, downloads=Path(downloads), cache=cache)
            for run, result in zip(runs, pool.map(read, runs), strict=True):
                if isinstance(result, str):
                    stored.unread.append(f"run {run.info.run_id}: {result}")
                else:
                    stored.read.append((run.info.run_id, result))
        if stored.unread and not stored.read:
            problem = f"none of its {len(runs)} trials can be read here; {stored.unread[0]}"
            raise self._error(problem)
        return stored

    def _read(
        self, run: Run, downloads: Path, cache: StageCache | None
    ) -> TrialResult | FailedTrial | str:
        """Return the result of a trial, or why it cannot be read."""
        finished = is_finished(run)
        file = RESULT_FILE if finished else FAILED_TRIAL_FILE
        place = run.data.params.get(FILES_PARAMETER) if finished else None
        artifact = "/".join(filter(None, (run.info.artifact_uri, place, file)))
        scheme = urlsplit(artifact).scheme
        try:
            if scheme in ("", "file"):
                path = Path(url2pathname(urlsplit(artifact).path))
            elif finished and cache and (cached := cache.find("trials", _key(run))):
                path = cached / file
            elif self._cannot_serve(scheme):
                return f"{file} is one of the files that {_SERVED}"
            else:
                folder = str(downloads / run.info.run_id)
                path = Path(download_artifacts(artifact, dst_path=folder, tracking_uri=self.uri))
            model = TrialResult if finished else FailedTrial
            return model.model_validate_json(path.read_bytes())
        except (MlflowException, OSError, ValueError) as error:
            if self.is_away():
                raise self._error(f"cannot be read: {without_secrets(first_line(error))}") from None
            return f"{file} cannot be read ({error_line(error)})"

    def _cannot_serve(self, scheme: str) -> bool:
        """Return whether files of this scheme need the address of an MLflow server."""
        return scheme == "mlflow-artifacts" and not self.uri.startswith("http")

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
                        stays_finished(client, run)
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
        tags = {**tags_of(config, keys, provenance), "mint.owner": owner}
        run = run_of_trial(client, config, tags)
        run_id: str = run.info.run_id
        if not is_finished(run):
            client.log_batch(
                run_id,
                params=[Param(name, str(value)) for name, value in params_of(config, keys).items()],
                tags=[
                    RunTag(name, value)
                    for name, value in tags.items()
                    if run.data.tags.get(name) != value  # a new run has them
                ],
            )
            for tag in FAILURE_TAGS & run.data.tags.keys():
                client.delete_tag(run_id, tag)
            if run.info.status == "RUNNING":
                return run_id
            client.update_run(run_id, status="RUNNING")
            run = client.get_run(run_id)
        return None if stays_finished(client, run) else run_id

    def log_search_steps(self, run_id: str, steps: Sequence[SearchStep]) -> None:
        """Log the search steps so far; the epochs of all retrainings are numbered through."""
        client = MlflowClient(self.uri)
        run = client.get_run(run_id)
        if not is_finished(run):
            log_series(client, run, step_series(steps))

    def finish(
        self, run_id: str, result: TrialResult, folder: Path, plot: Path | None = None
    ) -> None:
        """Write what a run lacks of a finished trial, then set it FINISHED.

        The folder holds the trial's result, masks and scores; the plot shows the scores. If
        another machine uploads the same trial with other figures, the files that were complete
        first count, and everything else is written from them.
        """
        client = MlflowClient(self.uri)
        run = client.get_run(run_id)
        if stays_finished(client, run):  # another machine has finished it
            return
        files = f"trial-{Manifest.load(folder).files[RESULT_FILE][1][:8]}"
        paths = [path for name in (MASKS_FILE, SCORES_FILE) if (path := folder / name).exists()]
        for path in (*paths, plot) if plot else paths:
            client.log_artifact(run_id, str(path), f"{files}/masks")
        client.log_artifact(run_id, str(folder / RESULT_FILE), files)
        if not decide(client, run_id, FILES_PARAMETER, files):
            files = client.get_run(run_id).data.params[FILES_PARAMETER]
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(client.download_artifacts(run_id, f"{files}/{RESULT_FILE}", scratch))
                result = TrialResult.model_validate_json(path.read_bytes())
        note = (
            f"{headline(result.config)}\n\n{result.params_pruned:.2f}% of the counted weights "
            f"pruned, accuracy {result.accuracy:.2f}%, baseline {result.baseline_accuracy:.2f}%"
        )
        if plot:
            shown = f"{files}/masks/{plot.name}"
            note += f"\n\n![{shown}](get-artifact?path={shown}&run_uuid={run_id})"
        tags = tags_of(result.config, result.keys, result.provenance)
        tags |= {"mint.device": result.device, NOTE_TAG: note, FINISHED_TAG: "true"}
        finals = {name: {0: value} for name, value in final_metrics(result).items()}
        log_series(client, run, {**step_series(result.search_steps), **finals}, tags)
        stays_finished(client, client.get_run(run_id))

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
        if not stays_finished(client, client.get_run(run_id)):
            client.set_tag(run_id, "mint.failure", reason[:_MAX_TAG_LENGTH])
            client.set_terminated(run_id, status)
            stays_finished(client, client.get_run(run_id))

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        reach_store(self.uri)
        try:
            if not self.exists:
                with self._lock():
                    MlflowClient(self.uri)  # creates the tables
                self._ready = check_schema(self.uri)
            yield MlflowClient(self.uri)
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            reason = without_secrets(first_line(error))
            raise self._error(f"cannot be used as a tracking store: {reason}") from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes from creating a database's tables: two at once break it."""
        if self._database:
            folder = self._database.parent
            check_writable("tracking_uri", folder)
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{self._database.name}.lock"):
                yield
        elif self.uri.startswith("postgresql"):
            engine = sqlalchemy.create_engine(self.uri, poolclass=sqlalchemy.NullPool)
            with engine.begin() as connection:  # the lock ends with it
                connection.execute(sqlalchemy.select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))
                yield
        else:
            yield

    def _check_artifacts(self, experiment: str, location: str) -> None:
        """Raise InputError if this machine cannot write the files of runs."""
        scheme = urlsplit(location).scheme
        if self._cannot_serve(scheme):
            raise self._error(f"its experiment {experiment} has files that {_SERVED}")
        if scheme not in ("", "file"):
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


def _key(run: Run) -> str:
    key: str = run.data.tags["mint.key"]
    return key


def _runs(client: MlflowClient, experiment: str, tag: str = "mint.key") -> list[Run]:
    """Return all runs of an experiment with a tag, by default those of trials, the newest first.

    There are none if there is no such experiment.
    """
    existing = client.get_experiment_by_name(experiment)
    found: list[Run] = []
    page = None
    while existing:
        runs = client.search_runs(
            [existing.experiment_id], f"tags.`{tag}` LIKE '%'", page_token=page
        )
        found += runs
        page = runs.token
        if not page:
            break
    return found
