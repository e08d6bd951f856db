"""A run for each setting that several seeds have: their mean and spread, the seeds nested below.

MLflow itself has no such run (mlflow issues 3762 and 4277).
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from mint.config.keys import content_key
from mint.tracking.shared_runs import FILES_PARAMETER, is_finished

SETTING_TAG = "mint.setting"
"""Tag of a setting's run: a key of what its trials share. It has no tag mint.key."""

_SEEDS_TAG, _PARENT_TAG = "mint.seeds", "mlflow.parentRunId"
_OF_ONE_TRIAL = frozenset({"seed", FILES_PARAMETER})
_METRICS = (
    *("params_pruned", "accuracy", "accuracy_drop", "accuracy_before_retraining"),
    *("baseline_accuracy", "dense_accuracy", "share_at_margin", "reliability"),
)


def nest_seeds(client: MlflowClient, trials: Iterable[Run], settings: Iterable[Run]) -> None:
    """Write a run for each setting with two finished seeds or more, and nest their runs below it.

    Args:
        client: of the store.
        trials: runs of one experiment's trials.
        settings: runs of settings that there are, the newest first.
    """
    known: dict[str, Run] = {}
    for run in settings:
        double = known.get(run.data.tags[SETTING_TAG])
        if double:  # another machine wrote it at the same time; the older one counts
            client.delete_run(double.info.run_id)
        known[run.data.tags[SETTING_TAG]] = run
    by_setting: dict[str, list[Run]] = defaultdict(list)
    for run in filter(is_finished, trials):
        by_setting[content_key("setting", _shared(run))].append(run)
    for setting, own in by_setting.items():
        seeds = sorted({run.data.params["seed"] for run in own}, key=int)
        if len(seeds) < 2:
            continue
        parent = known.get(setting) or _create(client, setting, own[0])
        if parent.data.tags.get(_SEEDS_TAG) != " ".join(seeds):
            _write(client, parent.info.run_id, own, seeds)
        for run in own:
            if run.data.tags.get(_PARENT_TAG) != parent.info.run_id:
                client.set_tag(run.info.run_id, _PARENT_TAG, parent.info.run_id)


def _shared(trial: Run) -> dict[str, str]:
    """Return the parameters that a trial shares with other seeds of its setting."""
    return {key: text for key, text in trial.data.params.items() if key not in _OF_ONE_TRIAL}


def _create(client: MlflowClient, setting: str, trial: Run) -> Run:
    name = str(trial.info.run_name).rpartition("-seed")[0]
    run = client.create_run(trial.info.experiment_id, None, {SETTING_TAG: setting}, name)
    params = [Param(key, text) for key, text in _shared(trial).items()]
    client.log_batch(run.info.run_id, params=params)
    return run


def _write(client: MlflowClient, run_id: str, trials: Sequence[Run], seeds: Sequence[str]) -> None:
    """Write the mean and the standard deviation of every metric, with three decimals."""
    now = int(1000 * time.time())
    figures = {"seeds": float(len(seeds))}
    for name in _METRICS:
        values = [run.data.metrics[name] for run in trials if name in run.data.metrics]
        if len(values) > 1:
            figures |= {name: round(fmean(values), 3), f"{name}_sd": round(stdev(values), 3)}
    metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(_SEEDS_TAG, " ".join(seeds))])
    client.set_terminated(run_id, "FINISHED")
