"""The one way to plan trials: for the command line, from Python and in sweeps."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mint.config.grid import parse_limit
from mint.config.loading import ExperimentFile, validated
from mint.config.locations import cache_folder, data_folder
from mint.config.schema import Experiment, InitialWeights, TrialConfig
from mint.data.checks import OnCheck, no_report
from mint.data.datasets import Source, load_source, needs_download
from mint.errors import InputError
from mint.machine import limited_threads
from mint.models import Traced, source_digest
from mint.store.manifest import MANIFEST
from mint.store.stage_cache import StageCache
from mint.trial.callbacks import TrialCallbacks
from mint.trial.pipeline import TrialPipeline
from mint.trial.preflight import check_data, check_network, image_shape
from mint.trial.provenance import Provenance

_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class PlannedTrials:
    """Trials of one experiment, each key once, checked against machine, network and data."""

    configs: Sequence[TrialConfig]
    source: Source | None  # None if the data set is absent and was not to be downloaded
    traced: Traced | None  # the untrained network; None if all trials are finished


def plan_trials(
    experiment: Experiment,
    axes: Iterable[Mapping[str, Any]],
    *,
    init: Path | None,
    device: Literal["cpu", "cuda"],
    data_dir: Path,
    cache_root: Path | None = None,
    on_check: OnCheck = no_report,
    is_finished: Callable[[str], bool] = lambda key: False,
    download: bool = True,
    at_once: int = 1,
) -> PlannedTrials:
    """Plan trials of one experiment, and check the unfinished ones before any work.

    Args:
        experiment: of all trials.
        axes: for each trial the fields criterion, groups, grouping, samples_per_class,
            upper_limit, fraction, bootstraps, retraining, compensate and seed of its TrialConfig.
        init: file of weights to start from; None for random ones.
        device: that trains; the experiment says where scores are estimated.
        data_dir: folder of the data sets.
        cache_root: folder of finished stages, as for load_source.
        on_check: reports the progress of the check of the images.
        is_finished: returns whether the trial of a key is finished.
        download: an absent data set.
        at_once: number of trials side by side on a machine.

    Raises:
        InputError: a value is not allowed, or the machine, the network or the data cannot serve a
            trial.
    """
    if experiment.estimate.device == "cuda" != device:
        raise InputError(
            "the trial trains on the CPU; allowed is cpu, or a GPU for both",
            parameter="estimate.device",
            value="cuda",
        )
    shared = {
        "experiment": experiment,
        "device": device,
        "estimator": experiment.estimate.device,
        "data_digest": "unknown",
        "network_digest": source_digest(experiment.network),
        "init": _initial_weights(init, experiment),
    }
    origin = f"trial of {experiment.name}"
    trials = [validated(TrialConfig, {**point, **shared}, origin) for point in axes]
    trials = list({trial.key: trial for trial in trials}.values())
    traced = None
    if needs_download(experiment.data, data_dir):
        shape = image_shape(experiment.data, None)
        traced = check_network(trials, shape, init) if shape else None
        if not download:
            return PlannedTrials(trials, None, traced)
    with limited_threads(experiment.threads):
        source = load_source(experiment.data, data_dir, cache=cache_root, on_check=on_check)
    trials = [trial.model_copy(update={"data_digest": source.digest}) for trial in trials]
    if unfinished := [trial for trial in trials if not is_finished(trial.key)]:
        if traced is None:
            shape = image_shape(experiment.data, source)
            assert shape
            traced = check_network(unfinished, shape, init)
        check_data(unfinished, source, traced, at_once)
    return PlannedTrials(trials, source, traced)


@dataclass(frozen=True)
class PlannedTrial:
    """A single trial, ready to run."""

    pipeline: TrialPipeline
    traced: Traced | None  # the untrained network; None if the trial is finished


@dataclass(frozen=True)
class TrialPaths:
    """Where a single trial finds and keeps files; None takes the default place."""

    init: Path | None = None  # file of weights to start from; None for random ones
    cache_dir: Path | None = None
    data_dir: Path | None = None


def plan_trial(
    file: ExperimentFile,
    axes: Mapping[str, Any],
    paths: TrialPaths,
    device: str,
    command: Sequence[str],
    callbacks: TrialCallbacks | None = None,
) -> PlannedTrial:
    """Plan a single trial, and check it before any of its stages runs.

    Args:
        file: experiment of the trial, and the defaults of its axes.
        axes: as for plan_trials, with upper_limit as text; None takes the file's default.
        paths: of its files.
        device: auto, cpu or cuda.
        command: words of the command that asks for the trial, for its provenance.
        callbacks: report its progress.

    Raises:
        InputError: as plan_trials, or an axis has no value.
    """
    values = dict(axes)
    for name in ("groups", "samples_per_class", "upper_limit"):
        if values[name] is None:
            if file.defaults is None:
                raise InputError(
                    f"must be given, for {file.experiment.name} has no section trial with a "
                    "default",
                    parameter=name,
                )
            values[name] = getattr(file.defaults, name)
    cache = StageCache(cache_folder(paths.cache_dir))
    device_class = _device_class(device)
    try:
        values["upper_limit"] = parse_limit(str(values["upper_limit"]), values["groups"])
        planned = plan_trials(
            file.experiment,
            [values],
            init=paths.init,
            device=device_class,
            data_dir=data_folder(paths.data_dir),
            cache_root=cache.root,
            on_check=callbacks.on_check if callbacks else no_report,
            is_finished=lambda key: cache.find("trials", key) is not None,
        )
    except InputError as error:
        if error.parameter and axes.get(error.parameter, "") is None:  # the file's default
            error.parameter = f"trial.{error.parameter}"
        raise
    (config,), source = planned.configs, planned.source
    assert source
    pipeline = TrialPipeline(
        config,
        source,
        cache=cache,
        provenance=Provenance.of_this_process(None, command, device_class),
        init=paths.init,
        callbacks=callbacks,
    )
    return PlannedTrial(pipeline, planned.traced)


def kept_initial_weights(cache: StageCache, config: TrialConfig) -> Path | None:
    """Return the file of initial weights that the cache keeps for a trial; None without any."""
    folder = config.init and cache.find("initial", config.init.digest)
    if not folder:
        return None
    # Its name is that of its first use, which may not be that in config.init.
    (file,) = (path for path in folder.iterdir() if path.name != MANIFEST)
    return file


def _device_class(name: str) -> Literal["cpu", "cuda"]:
    if name not in _DEVICES:
        raise InputError(f"allowed are {', '.join(_DEVICES)}", parameter="device", value=name)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError(
            "this machine has no GPU that torch can use; allowed: cpu",
            parameter="device",
            value=name,
        )
    return "cuda" if available and name != "cpu" else "cpu"


def _initial_weights(path: Path | None, experiment: Experiment) -> InitialWeights | None:
    if path is None:
        if experiment.training.epochs == 0:
            raise InputError(
                f"{experiment.name} does not train its baseline (training.epochs is 0), so the "
                "file of its weights must be given",
                parameter="init",
            )
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError(problem, parameter="init", value=path) from None
    return InitialWeights(file=path.name, digest=hashlib.sha256(content).hexdigest()[:16])
