"""Runs that several machines write at the same time: one a trial, and finished for good."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException

from mint.config.schema import TrialConfig

FINISHED_TAG = "mint.finished"
"""Tag of a run that has everything of a finished trial; nobody removes it."""

FAILURE_TAGS = frozenset({"mint.failure", "mint.status"})
"""Tags of a run that was closed without a result."""

FILES_PARAMETER = "files"
"""Parameter of a run: the folder of the files that count; "" in runs without it."""

_MAX_METRICS_PER_CALL = 900  # MLflow takes 1000 metrics and tags
_STAYS, _DOUBLE = "experiment", "(double)"  # a parameter, and its value in a run that goes


def log_series(
    client: MlflowClient,
    run: Run,
    series: Mapping[str, Mapping[int, float]],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log the steps of metrics that a run lacks, and then its tags: MLflow writes these last.

    MLflow keeps a step once if its time is the same, too, so that time is not when it is written.
    """
    metrics = [
        Metric(name, value, run.info.start_time + step, step)
        for name, values in series.items()
        for step, value in values.items()
    ]
    while len(metrics) > _MAX_METRICS_PER_CALL:
        client.log_batch(run.info.run_id, metrics=metrics[:_MAX_METRICS_PER_CALL])
        metrics = metrics[_MAX_METRICS_PER_CALL:]
    last = [RunTag(name, value) for name, value in (tags or {}).items()]
    if metrics or last:
        client.log_batch(run.info.run_id, metrics=metrics, tags=last)


def run_of_trial(client: MlflowClient, config: TrialConfig, tags: Mapping[str, str]) -> Run:
    """Return the run of a trial, after creating it with these tags if it is missing.

    Machines that create a run at the same time all end up with the same one. MLflow lets nobody
    change a parameter: its first value decides whether a run stays.
    """
    experiment = client.get_experiment_by_name(config.experiment.name)
    if experiment is None:
        raise LookupError(f"{config.experiment.name}: the store is not prepared for it")
    identifier, condition = experiment.experiment_id, f"tags.`mint.key` = '{tags['mint.key']}'"
    while True:
        found = list(client.search_runs([identifier], condition))
        doubles = [run for run in found if run.data.params.get(_STAYS) == _DOUBLE]
        candidates = [run for run in found if run not in doubles]
        if not candidates:
            client.create_run(identifier, None, dict(tags), config.name)
            continue
        undecided = [run for run in candidates if _STAYS not in run.data.params]
        chosen = min(
            candidates, key=lambda run: (not is_finished(run), run in undecided, run.info.run_id)
        )
        others = [run for run in undecided if run is not chosen]
        if all(decide(client, run.info.run_id, _STAYS, _DOUBLE) for run in others) and decide(
            client, chosen.info.run_id, _STAYS, config.experiment.name
        ):
            for run in (*doubles, *others):
                client.delete_run(run.info.run_id)
            return chosen


def decide(client: MlflowClient, run_id: str, parameter: str, value: str) -> bool:
    """Set a run's parameter, and return whether no other machine has decided otherwise."""
    try:
        client.log_param(run_id, parameter, value)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        return False
    return True


def is_finished(run: Run) -> bool:
    """Return whether a run has everything of a finished trial, whatever its state says."""
    return run.info.status == "FINISHED" or FINISHED_TAG in run.data.tags


def stays_finished(client: MlflowClient, run: Run) -> bool:
    """Return whether a run, as just read, is finished; undo what another machine wrote after that.

    MLflow cannot set a state on the condition of another. So a trial's end first gets a tag that
    nobody removes; whoever sets a state reads the run afterwards.
    """
    if not is_finished(run):
        return False
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")
    for tag in FAILURE_TAGS & run.data.tags.keys():
        client.delete_tag(run.info.run_id, tag)
    return True
