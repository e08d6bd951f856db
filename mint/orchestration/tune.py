"""Many trials on Ray Tune, on this machine or on a cluster."""

import logging
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

# Before Ray is imported. Its newer output cannot be silenced, and under `uv run` it would
# build a second environment for its workers instead of using this one.
_WORKER_SETTINGS = {
    # A user's own network is imported from the folder where the sweep was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
for _name, _value in {
    **_WORKER_SETTINGS,
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_worker_niceness": "0",  # else workers give way to everything else on the machine
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has what they would write
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep at once: nothing can be lost
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # not every report has an accuracy
}.items():
    os.environ.setdefault(_name, _value)

import pyarrow.fs
import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial

import mint
from mint.cli.options import check_gpus
from mint.config.schema import TrialConfig
from mint.data.datasets import load_source
from mint.errors import InputError, WorkFailedError, error_line, first_line, without_secrets
from mint.models import own_module
from mint.orchestration import interruption
from mint.orchestration.search_spaces import (
    EPOCH,
    PARAMS_PRUNED,
    VALIDATION_ACCURACY,
    Plan,
    config_of,
    grid_plan,
)
from mint.orchestration.settings import Ending, Progress, SweepSettings
from mint.store.remote import RemoteStore
from mint.store.stage_cache import StageCache
from mint.trial.result import SearchStep, TrialResult

if TYPE_CHECKING:
    from mint.training.loop import Epoch
    from mint.trial.pipeline import TrialCallbacks
    from mint.trial.result import LayerScoring

# A trial that fails gets a line of ours and its traceback in its run, not pages of Ray's here.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

# How often a trial is taken up again whose worker, or node, has died.
_RETRIES = 3
_START_SECONDS = 60.0
_NOT_STARTED = "Ray did not start on this machine {}; the same command tries again"
# What a card says besides torch.OutOfMemoryError, when another process has filled it.
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_FINISHED, _FAILED, _DETAILS, _MEMORY = "finished", "failed", "details", "out_of_memory"
_PROBE, _SECONDS, _PROGRESS = "probe", "seconds", "progress"
# A report makes a trial wait for the driver: of many short epochs not each is told of.
_SECONDS_BETWEEN_REPORTS = 1.0


class Observer(Protocol):
    """Who is told what becomes of the trials."""

    def begun(self, config: TrialConfig) -> None:
        """A trial has begun, or was taken up again."""

    def epoch(self, config: TrialConfig, epoch: int, validation_accuracy: float) -> None:
        """A trial's retraining has come so far."""

    def progress(self, config: TrialConfig, progress: Progress) -> None:
        """A trial that is watched has come so far."""

    def probe(self, config: TrialConfig, probe: SearchStep) -> None:
        """A trial has tried a mask."""

    def ended(self, config: TrialConfig, ending: Ending) -> None:
        """A trial is over."""


@contextmanager
def connecting(address: str | None, network: str) -> Iterator[Callable[[SweepSettings], int]]:
    """Start Ray on this machine, or connect to a cluster, in the background.

    Args:
        address: of the cluster; None for this machine alone.
        network: name of the trials' network: a user's own travels to the nodes.

    Yields:
        A function that waits until Ray is there, and returns how many trials of a sweep fit on it
        side by side. It raises InputError where no cluster answers, it has no such GPUs, or it
        needs a storage, and WorkFailedError where Ray does not start on this machine.
    """
    started: Future[None] = Future()
    over = Event()

    def start() -> None:
        try:
            _connect(address, network)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        over.wait()  # Ray's servers die with the thread that started them

    # A daemon, for Ray may wait for ever for what answers and is no Ray.
    Thread(target=start, name="ray", daemon=True).start()

    def room(settings: SweepSettings) -> int:
        end = time.monotonic() + _START_SECONDS
        while not started.done():
            interruption.check()
            if time.monotonic() > end:
                took = f"within {_START_SECONDS:.0f} s"
                if address is None:
                    raise WorkFailedError(_NOT_STARTED.format(took))
                raise InputError(f"--ray-address {address}: Ray did not answer {took}")
            wait([started], 0.2)
        started.result()
        # Ray's core has put a handler below Python's that aborts the process: put ours back.
        interruption.restore()
        interruption.check()
        return _room(settings)

    try:
        yield room
    finally:
        if not interruption.asked():
            wait([started], _START_SECONDS)
        ray.shutdown()
        over.set()


def _connect(address: str | None, network: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        try:
            ray.init("local", include_dashboard=False, **quiet)
        except Exception as error:  # of many kinds, as where the machine is too busy
            raise WorkFailedError(_NOT_STARTED.format(f"({error_line(error)})")) from error
        return
    if _has_token():  # with an address Ray does not look for one by itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    modules = [module for module in (own_module(network),) if module]
    environment = {
        "py_modules": [str(Path(mint.__file__).parent), *map(str, modules)],
        "excludes": ["__pycache__"],
        "env_vars": _WORKER_SETTINGS,
    }
    try:
        ray.init(address, runtime_env=environment, **quiet)
    except Exception as error:  # of many kinds, by what is there instead
        cause = error.__cause__ or error
        raise InputError(
            f"--ray-address {address}: is no cluster that this program can join: "
            f"{first_line(cause)}; a cluster with token "
            "authentication needs its token in RAY_AUTH_TOKEN"
        ) from error


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _room(settings: SweepSettings) -> int:
    """Return how many trials fit side by side on what Ray has."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and settings.storage is None:
        raise InputError(
            f"--storage: must be given on a cluster of {len(nodes)} nodes: a folder that all of "
            "them share, or the URI of a file system that fsspec knows, such as s3://BUCKET/FOLDER"
        )
    resources = [node["Resources"] for node in nodes]
    if settings.gpus_per_trial:
        cards = max(int(of_node.get("GPU", 0)) for of_node in resources)
        where = "the node with most" if settings.on_cluster else "this machine"
        check_gpus(settings.gpus_per_trial, cards, where)
    room = sum(_room_on(of_node, settings) for of_node in resources)
    if room < 1:
        most = max(of_node.get("CPU", 0) for of_node in resources)
        raise InputError(
            f"--threads {settings.threads}: no node can run a trial; the largest has {most:g} CPUs"
        )
    return room


def _room_on(resources: Mapping[str, float], settings: SweepSettings) -> int:
    """Return how many trials fit on a node."""
    room = int(resources.get("CPU", 0)) // settings.threads
    share, cards = settings.gpus_per_trial, int(resources.get("GPU", 0))
    if share == 0:
        return room
    return min(room, cards * int(1 / share) if share <= 1 else cards // int(share))


def run_sweep(plan: Plan, settings: SweepSettings, room: int, observer: Observer) -> None:
    """Run trials; Ctrl-C ends it early, as KeyboardInterrupt.

    A trial whose worker or node died is taken up again. One that ran out of a card's memory while
    it shared the card is run once more, after the others, with the card to itself: unlike a
    smaller batch, that changes no result.

    Args:
        plan: of the trials.
        settings: where and how.
        room: how many fit side by side, as Ray says.
        observer: is told what becomes of them.
    """
    watcher = _Watcher(plan, observer, retry_memory=0 < settings.gpus_per_trial < 1)
    _fit(plan, settings, room, watcher)
    if watcher.to_retry:
        alone = replace(settings, gpus_per_trial=1.0)
        cards = int(ray.cluster_resources()["GPU"])
        again = grid_plan(watcher.to_retry)
        _fit(again, alone, min(room, cards), _Watcher(again, observer, retry_memory=False))


def _fit(plan: Plan, settings: SweepSettings, at_once: int, watcher: "_Watcher") -> None:
    trainable = tune.with_resources(
        tune.with_parameters(_run_one, settings=settings, base=plan.base),
        {"cpu": settings.threads, "gpu": settings.gpus_per_trial},
    )
    with (
        watcher.watching(),
        _tune_folder(settings) as (filesystem, folder),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module=r"ray\.")
        tune.Tuner(
            trainable,
            param_space=plan.space,
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
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
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
            ),
        ).fit()


@contextmanager
def _tune_folder(settings: SweepSettings) -> Iterator[tuple[pyarrow.fs.FileSystem | None, str]]:
    """Give Ray Tune a folder, that all nodes see, for what it writes and nobody needs.

    It is always the same for the same sweep, so that what a killed driver left is gone too.
    """
    storage = RemoteStore(settings.storage or str(settings.cache_root))
    name = f"ray/{settings.name}-{settings.owner}"
    folder = storage.scratch(name)
    try:
        if settings.storage is None:
            yield None, folder
        else:
            yield pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.files)), folder
    finally:
        with suppress(Exception):  # else it would take the place of how the sweep ended
            storage.remove(name)


def _run_one(parameters: dict[str, Any], settings: SweepSettings, base: TrialConfig | None) -> None:
    # Only workers need these: the driver starts seconds earlier without.
    import torch

    from mint.trial.pipeline import TrialPipeline, run_trial
    from mint.trial.setup import kept_initial_weights

    start = time.monotonic()
    config = config_of(parameters, base)
    own = os.environ if settings.on_cluster else {}
    try:
        storage = None if settings.storage is None else RemoteStore(settings.storage)
        cache = StageCache(Path(own.get("MINT_CACHE_DIR") or settings.cache_root), storage)
        stages = TrialPipeline(
            config,
            load_source(
                config.experiment.data, Path(own.get("MINT_DATA_DIR") or settings.data_dir)
            ),
            cache=cache,
            provenance=settings.provenance,
            init=kept_initial_weights(cache, config),
            callbacks=_reporting(config, settings),
        )
        result = TrialResult.load(run_trial(stages))
        told: dict[str, Any] = {
            _FINISHED: True,
            VALIDATION_ACCURACY: result.validation_accuracy,
            PARAMS_PRUNED: result.params_pruned,
        }
    except Exception as error:  # whatever it is ends this trial, and no other
        told = {
            _FAILED: error_line(error),
            _DETAILS: without_secrets(traceback.format_exc()),
            _MEMORY: any(sign in str(error) for sign in _OUT_OF_MEMORY)
            or isinstance(error, torch.OutOfMemoryError),
        }
    if settings.gpus_per_trial:
        torch.cuda.empty_cache()  # the next trial on this card may be another process's
    tune.report({**told, _SECONDS: time.monotonic() - start})


def _reporting(config: TrialConfig, settings: SweepSettings) -> "TrialCallbacks":
    """Return who passes on to Ray Tune what a trial tells of its progress."""
    from mint.orchestration.display import TimeLeft
    from mint.trial.pipeline import TrialCallbacks

    reported = 0.0
    left = TimeLeft()

    def progress(told: Progress) -> None:
        nonlocal reported
        if settings.live and time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            tune.report({_PROGRESS: asdict(told)})
            reported = time.monotonic()

    def layer(scoring: "LayerScoring") -> None:
        progress(Progress("scores"))

    def epoch(stage: str, epoch: "Epoch", epochs: int) -> None:
        seconds = left.after(stage, epoch, epochs)
        progress(Progress(stage, epoch.epoch, epochs, epoch.validation_accuracy, seconds))
        # The last one is told at the end, with the result.
        if settings.every_epoch and stage == "retraining" and epoch.epoch < epochs:
            tune.report({EPOCH: epoch.epoch, VALIDATION_ACCURACY: epoch.validation_accuracy})

    def probe(probe: SearchStep) -> None:
        tune.report({_PROBE: probe.model_dump_json()})

    return TrialCallbacks(on_epoch=epoch, on_layer_scores=layer, on_search_step=probe)


class _Watcher(Callback):
    """Passes on what Ray Tune tells of the trials."""

    def __init__(self, plan: Plan, observer: Observer, *, retry_memory: bool) -> None:
        self._base = plan.base
        self._observer = observer
        self._retry_memory = retry_memory
        self._started: dict[str, float] = {}
        self._error: Exception | None = None
        self.to_retry: list[TrialConfig] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise what went wrong in an observer, as it was."""
        try:
            yield
        except KeyboardInterrupt:
            if self._error:
                raise self._error from None
            raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Let no error of an observer pass for a trial's: Tune would run the trial again."""
        interruption.check()
        try:
            yield
        except Exception as error:
            self._error = error
            raise KeyboardInterrupt from error

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a restore that nobody asks for, and locks cannot be."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._started.setdefault(trial.trial_id, time.monotonic())
        with self._telling():
            self._observer.begun(self._config(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        config = self._config(trial)
        with self._telling():
            if _PROBE in result:
                self._observer.probe(config, SearchStep.model_validate_json(result[_PROBE]))
            elif _PROGRESS in result:
                self._observer.progress(config, Progress(**result[_PROGRESS]))
            elif EPOCH in result:
                self._observer.epoch(config, result[EPOCH], result[VALIDATION_ACCURACY])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        last, config = trial.last_result, self._config(trial)
        seconds = float(last.get(_SECONDS, self._elapsed(trial)))
        if last.get(_FINISHED):
            ending = Ending("finished", "", "", seconds)
        elif _FAILED in last:
            memory = bool(last[_MEMORY])
            if memory and self._retry_memory:
                self.to_retry.append(config)
                return
            reason = f"out of GPU memory: {last[_FAILED]}" if memory else str(last[_FAILED])
            ending = Ending("failed", reason, str(last[_DETAILS]), seconds)
        else:
            reason = f"stopped by asha in epoch {last.get(EPOCH)} of retraining"
            ending = Ending("stopped", reason, "", seconds)
        with self._telling():
            self._observer.ended(config, ending)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        if trial.num_failures <= _RETRIES:
            return  # it is taken up again
        # Only here, not yet in the storage where Ray's own functions look for it.
        file = trial.error_file
        error = Path(file).read_text() if file and Path(file).exists() else ""
        details = without_secrets(error)
        lines = details.strip().splitlines() or [""]
        reason = f"the worker died {trial.num_failures} times: {lines[-1].strip()}"
        ending = Ending("failed", reason, details, self._elapsed(trial))
        with self._telling():
            self._observer.ended(self._config(trial), ending)

    def _config(self, trial: Trial) -> TrialConfig:
        return config_of(trial.config, self._base)

    def _elapsed(self, trial: Trial) -> float:
        return time.monotonic() - self._started.get(trial.trial_id, time.monotonic())
