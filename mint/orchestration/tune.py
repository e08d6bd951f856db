"""Many trials on Ray Tune, on this machine or on a cluster."""

import gc
import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mint.orchestration.ray_setup  # noqa: F401  (Ray's settings come before Ray)

# isort: split
import pyarrow.fs
import ray
from ray import tune
from ray.tune.experiment import Trial

from mint.config.schema import TrialConfig
from mint.data.datasets import load_source
from mint.errors import error_line, without_secrets
from mint.machine import limited_threads
from mint.orchestration import interruption
from mint.orchestration.display import TimeLeft
from mint.orchestration.search_spaces import (
    EPOCH,
    PARAMS_PRUNED,
    VALIDATION_ACCURACY,
    TunePlan,
    grid_plan,
    trial_config,
)
from mint.orchestration.sweep_settings import SweepSettings
from mint.store.locks import in_use
from mint.store.remote import RemoteStore
from mint.store.stage_cache import StageCache
from mint.trial.result import LayerScoring, SearchStep, TrialResult

if TYPE_CHECKING:  # the monitor imports MLflow, which a worker does not need
    from mint.orchestration.trial_monitor import TrialMonitor
    from mint.training.epoch import Epoch
    from mint.trial.callbacks import TrialCallbacks

# A failed trial gets one line here and its traceback in its run, instead of pages of Ray's.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

_MAX_RETRIES = 3  # of a trial whose worker or node died
# Messages of a GPU besides torch.OutOfMemoryError, when another process has filled it.
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# In Ray's message when it kills a worker: was 7.60GB used / 8.00GB limit (0.95).
_KILLED_FOR_MEMORY = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB) limit")
# Fields of a trial's reports to Ray Tune; the end holds the arguments of TrialMonitor.ended.
_END, _MEMORY, _SEARCH_STEP, _PROGRESS = "end", "out_of_memory", "search_step", "progress"
_FACTS = ("stage", "epoch", "epochs", "validation_accuracy", "seconds_left")  # of a progress
_SECONDS_BETWEEN_REPORTS = 1.0  # a report makes the trial wait for the driver


def run_trials(
    plan: TunePlan, settings: SweepSettings, max_concurrent_trials: int, monitor: "TrialMonitor"
) -> None:
    """Run trials, and report their states to the monitor; Ctrl-C raises KeyboardInterrupt.

    A trial whose worker or node died is resumed, or runs after the others if it had not started.
    A trial that ran out of memory on a shared GPU runs once more after the others, with the GPU to
    itself: unlike a smaller batch, that changes no result.
    """
    watcher = _Watcher(monitor, retry_memory=0 < settings.gpus_per_trial < 1)
    trainable = tune.with_resources(
        tune.with_parameters(_run_one, settings=settings, at_once=max_concurrent_trials),
        {"cpu": settings.threads, "gpu": settings.gpus_per_trial},
    )
    with (
        watcher.raising(),
        _tune_folder(settings) as (filesystem, folder),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module=r"ray\.")
        tune.Tuner(
            trainable,
            param_space=plan.space,
            tune_config=tune.TuneConfig(
                max_concurrent_trials=max_concurrent_trials,
                num_samples=plan.samples,
                search_alg=plan.searcher,
                scheduler=plan.scheduler,
                reuse_actors=True,
                trial_name_creator=str,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=settings.name,
                storage_path=folder,
                storage_filesystem=filesystem,
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=_MAX_RETRIES),
            ),
        ).fit()
    if watcher.unstarted:
        run_trials(grid_plan(watcher.unstarted), settings, max_concurrent_trials, monitor)
    if watcher.to_retry:
        alone = replace(settings, gpus_per_trial=1.0)
        at_once = min(max_concurrent_trials, int(ray.cluster_resources()["GPU"]))
        run_trials(grid_plan(watcher.to_retry), alone, at_once, monitor)


@contextmanager
def _tune_folder(settings: SweepSettings) -> Iterator[tuple[pyarrow.fs.FileSystem | None, str]]:
    """Yield a folder for Ray Tune's own files, which all nodes see; remove it afterwards.

    A sweep always gets the same folder, so that a killed driver's files are removed, too.
    """
    storage = RemoteStore(settings.storage or str(settings.cache_root))
    name = f"ray/{settings.name}-{StageCache(settings.cache_root).identity}"
    folder = storage.scratch(name)
    try:
        if settings.storage is None:
            yield None, folder
        else:
            yield pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.files)), folder
    finally:
        with suppress(Exception):  # it must not hide how the sweep ended
            storage.remove(name)


def _run_one(parameters: dict[str, Any], settings: SweepSettings, at_once: int) -> None:
    """Run one trial in a worker, and report how it ended."""
    start = time.monotonic()
    report = _ended(parameters, settings, at_once)
    if settings.gpus_per_trial:
        import torch

        gc.collect()  # a traced network refers to itself
        torch.cuda.empty_cache()  # the next trial on this GPU may be another process's
    report[_END]["seconds"] = time.monotonic() - start
    tune.report(report)


def _ended(parameters: dict[str, Any], settings: SweepSettings, at_once: int) -> dict[str, Any]:
    """Run one trial and return the report of its end; none of its objects outlive the call."""
    import torch

    from mint.trial.pipeline import TrialPipeline, run_trial
    from mint.trial.setup import kept_initial_weights

    folders = sorted({str(Path(module).parent) for module in settings.own_code})
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    config = trial_config(parameters)
    node = os.environ if settings.ray_address else {}
    report: dict[str, Any] = {}
    try:
        storage = None if settings.storage is None else RemoteStore(settings.storage)
        cache = StageCache(Path(node.get("MINT_CACHE_DIR") or settings.cache_root), storage)
        data_dir = Path(node.get("MINT_DATA_DIR") or settings.data_dir)
        with limited_threads(config.experiment.threads):
            source = load_source(config.experiment.data, data_dir, cache=cache.root)
        pipeline = TrialPipeline(
            config,
            source,
            cache=cache,
            provenance=settings.provenance,
            init=kept_initial_weights(cache, config),
            callbacks=_callbacks(settings),
            at_once=settings.sharing_memory(at_once),
        )
        with in_use(cache):  # a node's own: the driver has locked another
            result = TrialResult.load(run_trial(pipeline))
        report[VALIDATION_ACCURACY] = result.validation_accuracy
        report[PARAMS_PRUNED] = result.params_pruned
        end: dict[str, Any] = {"status": "finished"}
    except Exception as error:  # it ends this trial and no other
        reason, details = error_line(error), without_secrets(traceback.format_exc())
        if isinstance(error, torch.OutOfMemoryError) or any(
            sign in reason for sign in _OUT_OF_MEMORY
        ):
            report[_MEMORY], reason = True, f"out of GPU memory: {reason}"
        end = {"status": "failed", "reason": reason, "details": details}
    return {**report, _END: end}


def _callbacks(settings: SweepSettings) -> "TrialCallbacks":
    """Return callbacks that report a trial's progress to Ray Tune."""
    from mint.trial.callbacks import TrialCallbacks

    reported = 0.0
    time_left = TimeLeft()

    def report(*values: Any) -> None:
        nonlocal reported
        if settings.live and time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            tune.report({_PROGRESS: dict(zip(_FACTS, values, strict=True))})
            reported = time.monotonic()

    def on_layer_scores(scoring: LayerScoring) -> None:
        report("scores", 0, 0, None, None)

    def on_epoch(stage: str, epoch: "Epoch", epochs: int) -> None:
        seconds = time_left.after(stage, epoch, epochs)
        report(stage, epoch.epoch, epochs, epoch.validation_accuracy, seconds)
        # The last epoch is reported with the result.
        if settings.search == "asha" and stage == "retraining" and epoch.epoch < epochs:
            tune.report({EPOCH: epoch.epoch, VALIDATION_ACCURACY: epoch.validation_accuracy})

    def on_search_step(step: SearchStep) -> None:
        tune.report({_SEARCH_STEP: step.model_dump_json()})

    return TrialCallbacks(on_epoch, on_layer_scores, on_search_step=on_search_step)


def _cause_of_death(details: str) -> str:
    """Return one line on why a worker died, from the text of Ray's error."""
    if used := _KILLED_FOR_MEMORY.search(details):
        return (
            f"Ray killed it because {used[1]} of {used[2]} of the node's memory were in use; lower "
            "max_concurrent, samples_per_class or training.batch_size"
        )
    return (details.strip().splitlines() or [""])[-1].strip()


class _Watcher(tune.Callback):
    """Passes Ray Tune's events on to a monitor."""

    def __init__(self, monitor: "TrialMonitor", *, retry_memory: bool) -> None:
        self.to_retry: list[TrialConfig] = []
        self.unstarted: list[TrialConfig] = []
        self._monitor = monitor
        self._retry_memory = retry_memory
        self._started: dict[str, float] = {}
        self._error: Exception | None = None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise an error of the monitor as it was."""
        try:
            yield
        except KeyboardInterrupt:
            if self._error:
                raise self._error from None
            raise

    @contextmanager
    def _monitoring(self) -> Iterator[None]:
        """Turn an error of the monitor into an interrupt: Tune would run the trial again."""
        interruption.check()
        try:
            yield
        except Exception as error:
            self._error = error
            raise KeyboardInterrupt from error

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles callbacks for a restore that nobody asks for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._started.setdefault(trial.trial_id, time.monotonic())
        with self._monitoring():
            self._monitor.started(trial_config(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        config = trial_config(trial.config)
        with self._monitoring():
            if _SEARCH_STEP in result:
                step = SearchStep.model_validate_json(result[_SEARCH_STEP])
                self._monitor.search_step(config, step)
            elif _PROGRESS in result:
                self._monitor.progress(config, result[_PROGRESS])
            elif EPOCH in result:
                self._monitor.epoch(config, result[EPOCH], result[VALIDATION_ACCURACY])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        last, config = trial.last_result, trial_config(trial.config)
        if _MEMORY in last and self._retry_memory:
            self.to_retry.append(config)
            return
        reason = f"stopped by asha in epoch {last.get(EPOCH)} of retraining"
        stopped = {"status": "stopped", "seconds": self._elapsed(trial), "reason": reason}
        with self._monitoring():
            self._monitor.ended(config, **last.get(_END, stopped))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        config = trial_config(trial.config)
        if trial.num_failures <= _MAX_RETRIES:
            # Tune gives up a trial at once if the worker that it kept for the trial has died.
            self.unstarted.append(config)
            return
        # Ray's own functions would look in the storage, where the file is not yet.
        file = trial.error_file
        details = without_secrets(Path(file).read_text() if file and Path(file).exists() else "")
        reason = f"the worker died {trial.num_failures} times: {_cause_of_death(details)}"
        with self._monitoring():
            self._monitor.ended(config, "failed", self._elapsed(trial), reason, details)

    def _elapsed(self, trial: Trial) -> float:
        return time.monotonic() - self._started.get(trial.trial_id, time.monotonic())
