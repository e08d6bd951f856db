"""The one way to plan trials: for the command line, from Python and in sweeps."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from mint.config.grid import parse_limit
from mint.config.loading import ExperimentFile, validated
from mint.config.locations import cache_folder, data_folder
from mint.config.schema import DEFAULT_CRITERION, Experiment, InitialWeights, TrialConfig
from mint.data.checks import OnCheck, no_report
from mint.data.facts import DataFacts, needs_download, recall_facts, remember_facts
from mint.errors import InputError
from mint.machine import limited_threads
from mint.models.layers import LayerTable, Traced
from mint.models.own_code import source_digest
from mint.pruning.own_criteria import resolved_criterion
from mint.store.manifest import MANIFEST
from mint.store.remembered import recall, remember
from mint.store.stage_cache import StageCache
from mint.trial.preflight import (
    check_data,
    check_network,
    check_threads,
    image_shape,
    trace_network,
)
from mint.trial.provenance import Provenance

# They import torch, which takes seconds: a plan does with what it recalls.
if TYPE_CHECKING:
    from mint.data.datasets import Source
    from mint.trial.callbacks import TrialCallbacks
    from mint.trial.pipeline import TrialPipeline

_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class PlannedTrials:
    """Trials of one experiment, each key once, checked against machine, network and data."""

    configs: Sequence[TrialConfig]
    facts: DataFacts | None  # None if the data set is absent and was not to be downloaded
    layers: LayerTable | None  # of the untrained network; None if all trials are finished
    source: "Source | None" = None  # None where the facts were recalled

    @property
    def is_recalled(self) -> bool:
        """Whether the trials were checked against what is remembered of data or network."""
        return self.source is None or not isinstance(self.layers, Traced | None)


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
    recalling: bool = False,
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
        recalling: check against what is remembered of data and network, if nothing that it was
            computed from has changed: without their source, for a plan that is not carried out.

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
        "network_digest": source_digest(experiment.network.name),
        "init": _initial_weights(init, experiment),
    }
    origin = f"trial of {experiment.name}"
    trials = [validated(TrialConfig, {**point, **shared}, origin) for point in axes]
    trials = list({trial.key: trial for trial in trials}.values())
    layers, source, facts = None, None, None
    if needs_download(experiment.data, data_dir):
        shape = image_shape(experiment.data, None)
        if shape:
            layers = _checked_layers(trials, shape, init, recalling=recalling)
        if not download:
            return PlannedTrials(trials, None, layers)
    elif recalling:
        facts = recall_facts(experiment.data, data_dir)
    if facts is None:
        from mint.data.datasets import load_source

        with limited_threads(experiment.threads):
            source = load_source(experiment.data, data_dir, cache=cache_root, on_check=on_check)
        facts = source.facts
        remember_facts(facts, experiment.data, data_dir)
    trials = [trial.model_copy(update={"data_digest": facts.digest}) for trial in trials]
    if unfinished := [trial for trial in trials if not is_finished(trial.key)]:
        if layers is None:
            shape = image_shape(experiment.data, facts)
            assert shape
            layers = _checked_layers(unfinished, shape, init, recalling=recalling)
        check_data(unfinished, facts, layers, at_once)
    return PlannedTrials(trials, facts, layers, source)


_LAYERS = TypeAdapter(LayerTable)


def _checked_layers(
    trials: Sequence[TrialConfig],
    shape: tuple[int, int, int],
    init: Path | None,
    *,
    recalling: bool,
) -> LayerTable:
    """Return the layers of the trials' network, after a check of the trials against them."""
    experiment, weights = trials[0].experiment, trials[0].init
    check_threads(experiment)
    chosen = experiment.network
    identity = "layers", chosen.content(), shape, weights and weights.digest
    # A user's network may change with any of its own files.
    known = recall(*identity) if recalling and not chosen.is_users else None
    layers = _LAYERS.validate_json(known) if known else trace_network(experiment, shape, init)
    if not (known or chosen.is_users):
        remember(_LAYERS.dump_json(layers), *identity)
    check_network(trials, layers)
    return layers


@dataclass(frozen=True)
class PlannedTrial:
    """A single trial, ready to run."""

    pipeline: "TrialPipeline"
    layers: LayerTable | None  # of the untrained network; None if the trial is finished


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
    callbacks: "TrialCallbacks | None" = None,
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
    from mint.trial.pipeline import TrialPipeline

    values = {**axes, "criterion": resolved_criterion(axes.get("criterion", DEFAULT_CRITERION))}
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
    return PlannedTrial(pipeline, planned.layers)


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
    import torch

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
