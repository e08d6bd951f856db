"""What a tracking store has, read without MLflow, whose import takes seconds.

Only an SQLite database is read so, and only one that the installed MLflow needs no change of.
"""

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mint.reporting.folder import Ended
from mint.store.remembered import recall
from mint.tracking.preflight import SCHEMA, check_store
from mint.trial.provenance import installed_version

_RUNS = """SELECT experiments.name, runs.run_uuid, runs.status, tags.key, tags.value
FROM runs JOIN experiments USING (experiment_id) JOIN tags USING (run_uuid)
WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
AND tags.key IN (?, ?, ?, ?, ?, ?)"""
_TAGS = ("mint.key", "mint.finished", "mint.status", "mint.failure", "mint.owner", "mint.sweep")
_EXPERIMENTS = """SELECT name, experiments.experiment_id, key, value
FROM experiments LEFT JOIN experiment_tags USING (experiment_id) WHERE lifecycle_stage = 'active'"""


@dataclass(frozen=True)
class _Run:
    experiment: str
    run_id: str
    status: str
    tags: dict[str, str]

    @property
    def is_finished(self) -> bool:
        return self.status == "FINISHED" or "mint.finished" in self.tags


@dataclass(frozen=True)
class Glance:
    """The experiments of a store and the runs of trials.

    Attributes:
        experiments: ids by name.
        tags: of every experiment, by its name.
    """

    experiments: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]
    runs: Collection[_Run]

    def finished_runs(self, experiment: str) -> dict[str, str]:
        """Return what MlflowStore.finished_runs returns."""
        own = (run for run in self.runs if run.experiment == experiment and run.is_finished)
        return {run.tags["mint.key"]: run.run_id for run in own}

    def ended(self) -> dict[str, Ended]:
        """Return how the trials of all runs ended, by their keys."""
        ends = {}
        for run in self.runs:
            if status := "finished" if run.is_finished else run.tags.get("mint.status"):
                reason = "" if run.is_finished else run.tags.get("mint.failure", "")
                ends[run.tags["mint.key"]] = Ended(run.run_id, status, reason)
        return ends

    def has_orphans(self, experiment: str, owner: str, sweep: str | None) -> bool:
        """Return whether MlflowStore.close_orphans would change a run."""
        of_sweep = {"mint.owner": owner, "mint.sweep": sweep}
        for run in self.runs:
            half_closed = run.is_finished and run.status != "FINISHED"
            is_open = run.status == "RUNNING" and of_sweep.items() <= run.tags.items()
            if run.experiment == experiment and (half_closed or is_open):
                return True
        return False


def glance(uri: str) -> Glance | None:
    """Return what an SQLite store has; None if only MLflow can say."""
    check_store(uri)
    if not uri.startswith("sqlite:///"):
        return None
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    if not database.is_file():
        return Glance({}, {}, ())
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if recall(SCHEMA, installed_version("mlflow")) != revision.encode():
                return None
            tagged = connection.execute(_EXPERIMENTS).fetchall()
            found = connection.execute(_RUNS, _TAGS).fetchall()
    except (sqlite3.Error, TypeError):  # MLflow says what is wrong
        return None
    tags: dict[str, dict[str, str]] = {name: {} for name, *_ in tagged}
    for name, _, key, value in tagged:
        tags[name][key] = value
    runs: dict[str, _Run] = {}
    for experiment, run_id, status, key, value in found:
        runs.setdefault(run_id, _Run(experiment, run_id, status, {})).tags[key] = value
    own = [run for run in runs.values() if "mint.key" in run.tags]
    return Glance({name: str(number) for name, number, *_ in tagged}, tags, own)
