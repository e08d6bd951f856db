"""What trials will take: time, from what stages took here before, and memory, from their sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch.fx.passes.shape_prop import TensorMetadata

from mint.config.schema import CRITERIA, TrialConfig
from mint.data.datasets import Source, machine_memory
from mint.data.images import StoredImages
from mint.gmi.cpu.distances import shape_of
from mint.models import Traced, chosen_pairs
from mint.orchestration.display import duration
from mint.store.stage_cache import Cache
from mint.training.loop import evaluation_batch
from mint.trial.preflight import image_shape
from mint.trial.result import Baseline, TrialResult

# Resident bytes of a process with torch, numba, its kernels and scikit-learn, before any data.
_PROGRAM = 950 * 2**20
# Of a parameter: itself, its gradient, its momentum, and the mask or the copy that is saved.
_COPIES_OF_PARAMETERS = 4
# Of the largest value in a forward pass alone: what is read, written, and worked with.
_COPIES_OF_LARGEST = 3
_ESTIMATOR_LIMIT = 2 * 2**30  # the default of gmi_bootstraps


@dataclass(frozen=True)
class Time:
    """Seconds of trials that are to be run, one after the other.

    Attributes:
        trials: finished ones that this is taken from.
        baselines: of those that are not kept yet.
        scores: of all, kept or not.
        retraining: of all search steps.
    """

    trials: int
    baselines: float
    scores: float
    retraining: float

    @property
    def total(self) -> float:
        return self.baselines + self.scores + self.retraining


def forecast(
    waiting: Sequence[TrialConfig],
    source: Source,
    traced: Traced,
    cache: Cache,
    at_once: int,
    *,
    on_gpu: bool,
) -> list[str]:
    """Return in two lines what trials of one experiment will take.

    Args:
        waiting: to be run, at least one.
        source: their data.
        traced: layers and pairs of their network.
        cache: of finished stages.
        at_once: how many are run side by side.
        on_gpu: where.
    """
    side_by_side = f", {at_once} at a time" if at_once > 1 else ""
    took = time_of(waiting, cache, on_gpu=on_gpu)
    if took is None:
        lines = ["time:   unknown, for no such trial was measured here yet"]
    else:
        lines = [
            f"time:   about {duration(took.total / at_once)}{side_by_side}: baselines "
            f"{duration(took.baselines)}, scores {duration(took.scores)}, retraining "
            f"{duration(took.retraining)} in all, going by {took.trials} finished trials"
        ]
    if on_gpu:
        return [*lines, "memory: unknown, for that of a GPU is not estimated"]
    memory = memory_of(waiting, source, traced)
    all_of_them = (
        f", {_gb(at_once * memory.total)} GB for {at_once} at a time" if at_once > 1 else ""
    )
    return [
        *lines,
        f"memory: about {_gb(memory.total)} GB a trial{all_of_them}, of {_gb(machine_memory())} GB "
        f"here: libraries {_gb(memory.program)}, data {_gb(memory.data)}, and training "
        f"{_gb(memory.training)} or scores {_gb(memory.scores)}",
    ]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def time_of(waiting: Sequence[TrialConfig], cache: Cache, *, on_gpu: bool) -> Time | None:
    """Return how long trials will take, going by finished ones of the same protocol and criteria.

    Scores are taken to cost as their bootstraps, their blocks and the square of their rows; every
    retraining what those of the finished trials cost on average.

    Args:
        waiting: trials of one experiment.
        cache: of finished stages.
        on_gpu: whether to go by trials that ran on one.

    Returns:
        None where there is nothing to go by.
    """
    protocols = {trial.protocol for trial in waiting}
    found = (cache.find("trials", key) for key in cache.keys("trials"))
    measured = [TrialResult.load(folder) for folder in found if folder]
    measured = [
        result
        for result in measured
        if result.config.protocol in protocols and (result.device != "cpu") == on_gpu
    ]
    rates = _score_rates(measured)
    if not measured or any(trial.criterion not in rates for trial in waiting):
        return None
    baselines = [_baseline_seconds(result.config, cache) for result in measured]
    known = [seconds for seconds in baselines if seconds is not None]
    if not known:
        return None
    missing = {trial.baseline_key for trial in waiting if _baseline_seconds(trial, cache) is None}
    scored = {trial.scores_key(""): trial for trial in waiting}
    retraining = fmean(
        sum(step.retraining.seconds for step in result.search_steps) for result in measured
    )
    return Time(
        trials=len(measured),
        baselines=len(missing) * fmean(known),
        scores=sum(rates[trial.criterion] * _work(trial) for trial in scored.values()),
        retraining=retraining * len(waiting),
    )


def _score_rates(measured: Sequence[TrialResult]) -> dict[str, float]:
    """Return, for every criterion that was measured, the seconds of a unit of work."""
    rates = {}
    for criterion in CRITERIA:
        of_it = [result for result in measured if result.config.criterion == criterion]
        if of_it:
            work = sum(_work(result.config) for result in of_it)
            rates[criterion] = sum(result.score_seconds for result in of_it) / work
    return rates


def _work(config: TrialConfig) -> int:
    bootstraps = config.estimate.bootstraps if config.uses("bootstraps") else 1
    return bootstraps * max(1, config.groups) ** 2 * max(1, config.samples_per_class) ** 2


def _baseline_seconds(config: TrialConfig, cache: Cache) -> float | None:
    folder: Path | None = cache.find("baselines", config.baseline_key)
    return Baseline.load(folder).seconds if folder else None


@dataclass(frozen=True)
class Memory:
    """Bytes of a trial's process at most, on the CPU.

    Attributes:
        program: Python and the libraries.
        data: the images as they are kept.
        training: parameters with what SGD keeps of them, and a batch's values in every layer; or
            the widest values of a pass over many images at once, where these are more.
        scores: activations of the estimation rows, and the matrices of distances.
    """

    program: int
    data: int
    training: int
    scores: int

    @property
    def total(self) -> int:
        return self.program + self.data + max(self.training, self.scores)


def memory_of(trials: Sequence[TrialConfig], source: Source, traced: Traced) -> Memory:
    """Return what the largest of some trials of one experiment takes."""
    experiment = trials[0].experiment
    shape = image_shape(experiment.data, source)
    assert shape is not None
    values = [
        math.prod(node.meta["tensor_meta"].shape)
        for node in traced.graph.graph.nodes
        if isinstance(node.meta.get("tensor_meta"), TensorMetadata)
    ]
    parameters = sum(parameter.numel() for parameter in traced.graph.parameters())
    batch = max(experiment.training.batch_size, experiment.retraining_settings.batch_size)
    trained = 4 * (_COPIES_OF_PARAMETERS * parameters + batch * sum(values))
    evaluated = 4 * _COPIES_OF_LARGEST * evaluation_batch(math.prod(shape)) * max(values)
    pairs = chosen_pairs(traced, experiment)
    filters = {pair.parent_node: pair.parent_filters for pair in pairs}
    filters |= {pair.child_node: pair.child_filters for pair in pairs}
    return Memory(
        program=_PROGRAM,
        data=sum(
            images.pixels.nbytes
            for images in (source.train, source.test)
            if isinstance(images, StoredImages)
        ),
        training=max(trained, evaluated),
        scores=max(_score_bytes(trial, source.classes, filters) for trial in trials),
    )


def _score_bytes(config: TrialConfig, classes: int, filters: dict[str, int]) -> int:
    rows = classes * config.samples_per_class
    activations = 4 * rows * sum(filters.values())
    if not config.uses("bootstraps"):
        return activations
    in_trees = rows - rows // 3
    matrices = min(config.groups, max(filters.values())) + 2 * config.experiment.threads + 1
    return activations + min(_ESTIMATOR_LIMIT, matrices * shape_of(in_trees).nbytes)
