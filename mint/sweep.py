"""Many trials on Ray Tune: the only file that knows it."""

import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported. Its newer output cannot be silenced, and under `uv run` it would
# build a second environment for its workers instead of using this one.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# A user's own network is imported from the folder where the sweep was started.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray
import torch
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial

from mint.cache import Cache
from mint.config import TrialConfig
from mint.provenance import Provenance
from mint.results import Probe, TrialResult
from mint.sources import load_source
from mint.tracking import Tracker
from mint.trial import Listener, Stages, run_trial

# A trial that fails gets a line of ours and its traceback in its run, not pages of Ray's here.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class SweepSettings:
    """Where and how a sweep's trials run.

    Attributes:
        name: of the sweep, kept in the runs' tag mint.sweep.
        data_dir: of the data sets.
        cache: of finished stages.
        tracking_uri: of the MLflow store, already prepared.
        max_concurrent: trials that run side by side.
        gpus_per_trial: a share of a card, or 0 for the CPU.
        init: file of the weights that baselines start from.
    """

    name: str
    data_dir: Path
    cache: Cache
    tracking_uri: str
    max_concurrent: int
    gpus_per_trial: float
    init: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """Keys of the trials that are done, and of those that failed, with the reason."""

    done: set[str]
    failed: dict[str, str]


def deliver(trials: Sequence[TrialConfig], settings: SweepSettings) -> None:
    """Give the tracking store trials that are finished on disk."""
    tracker = Tracker(settings.tracking_uri)
    provenance = Provenance.of_this_code()
    for config in trials:
        folder = settings.cache.folder("trials", config.key)
        run_id = tracker.begin(config, settings.name, provenance)
        tracker.finish(run_id, TrialResult.load(folder), folder)


def run_sweep(
    trials: Sequence[TrialConfig],
    settings: SweepSettings,
    *,
    on_trial: Callable[[TrialConfig, TrialResult | str, float], None],
) -> Outcome:
    """Run the trials and return what became of them. Ctrl-C ends it early.

    Args:
        trials: none of them finished.
        settings: where and how.
        on_trial: called after each with its result, or the reason of its failure, and its seconds.
    """
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    provenance = Provenance.of_this_code()
    watcher = _Watcher(settings, on_trial)
    trainable = tune.with_resources(
        tune.with_parameters(_run_one, settings=settings, provenance=provenance),
        {"cpu": trials[0].experiment.threads, "gpu": settings.gpus_per_trial},
    )
    settings.cache.root.mkdir(parents=True, exist_ok=True)
    storage = Path(tempfile.mkdtemp(prefix="ray-", dir=settings.cache.root))
    try:
        tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search([t.model_dump_json() for t in trials])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=settings.max_concurrent,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=settings.name,
                storage_path=str(storage),
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    outcome = Outcome(watcher.done, watcher.failed)
    tracker = Tracker(settings.tracking_uri)
    for config in trials:
        if config.key in outcome.failed:
            tracker.close(config, "FAILED", outcome.failed[config.key])
        elif config.key not in outcome.done:
            tracker.close(config, "KILLED", "the sweep was stopped")
    return outcome


def _run_one(parameters: dict[str, Any], settings: SweepSettings, provenance: Provenance) -> None:
    config = TrialConfig.model_validate_json(parameters["trial"])
    tracker = Tracker(settings.tracking_uri)
    run_id = tracker.begin(config, settings.name, provenance)
    probes: list[Probe] = []

    def on_probe(probe: Probe) -> None:
        probes.append(probe)
        tracker.log_probes(run_id, probes)

    try:
        stages = Stages(
            config,
            load_source(config.experiment.data, settings.data_dir),
            cache=settings.cache,
            device=torch.device("cuda" if settings.gpus_per_trial else "cpu"),
            init=settings.init,
            listener=Listener(probe=on_probe),
        )
        folder = run_trial(stages)
        tracker.finish(run_id, TrialResult.load(folder), folder)
    except Exception as error:
        tracker.close(config, "FAILED", _reason(error), details=traceback.format_exc())
        raise
    tune.report({"finished": 1})


class _Watcher(Callback):
    """Keeps count of the trials as Ray Tune tells of their ends."""

    def __init__(
        self,
        settings: SweepSettings,
        on_trial: Callable[[TrialConfig, TrialResult | str, float], None],
    ) -> None:
        self._cache = settings.cache
        self._on_trial = on_trial
        self._started: dict[str, float] = {}
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._started[str(trial)] = time.monotonic()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        config = _config_of(trial)
        self.done.add(config.key)
        result = TrialResult.load(self._cache.folder("trials", config.key))
        self._on_trial(config, result, self._seconds(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        config = _config_of(trial)
        # Only here, not yet in the storage where Ray's own functions look for it.
        file = trial.error_file
        error = Path(file).read_text() if file and Path(file).exists() else "the worker died"
        self.failed[config.key] = _reason(error)
        self._on_trial(config, self.failed[config.key], self._seconds(trial))

    def _seconds(self, trial: Trial) -> float:
        return time.monotonic() - self._started.get(str(trial), time.monotonic())


def _config_of(trial: Trial) -> TrialConfig:
    return TrialConfig.model_validate_json(trial.config["trial"])


def _trial_name(trial: Trial) -> str:
    return _config_of(trial).name


def _reason(error: object) -> str:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {cause}".splitlines()[0]
    return str(cause).strip().splitlines()[-1]
