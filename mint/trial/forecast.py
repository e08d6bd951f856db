"""Forecasts of the time and the memory of trials, from stages that finished here and from sizes."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from mint.config.schema import TrialConfig
from mint.data.facts import DataFacts
from mint.gmi.cpu.sizes import matrix_nbytes
from mint.machine import memory_bytes
from mint.models.layers import LayerTable, chosen_pairs
from mint.store.stage_cache import StageCache
from mint.training.epoch import evaluation_batch_size
from mint.trial.preflight import estimator_bytes, image_shape
from mint.trial.result import Baseline, TrialResult

# Resident bytes of a process with torch, numba, its kernels and scikit-learn, before any data.
_PROGRAM = 950 * 2**20
# Copies of a parameter: itself, its gradient, its momentum, and its mask or the saved copy.
_COPIES_OF_PARAMETERS = 4
# Copies of the largest value in a forward pass: input, output, and a working copy.
_COPIES_OF_LARGEST = 3


class Time(NamedTuple):
    """Seconds that trials take one after the other, by a number of finished trials.

    Baselines are those not finished yet; scores and retraining are those of all trials.
    """

    finished: int
    baselines: float
    scores: float
    retraining: float

    @property
    def total(self) -> float:
        """All stages together."""
        return self.baselines + self.scores + self.retraining


class Memory(NamedTuple):
    """Largest resident bytes of a trial's process on the CPU.

    Data are the images as stored. Training holds the parameters with the state of SGD and a
    batch's values in every layer, or an evaluation batch. Scores hold the activations of the
    estimation rows and the matrices of distances.
    """

    program: int
    data: int
    training: int
    scores: int

    @property
    def total(self) -> int:
        """Training and scoring never overlap."""
        return self.program + self.data + max(self.training, self.scores)


def forecast(
    trials: Sequence[TrialConfig],
    facts: DataFacts,
    layers: LayerTable,
    cache: StageCache,
    at_once: int,
) -> list[str]:
    """Return two lines on the time and the memory of unfinished trials of one experiment.

    Args:
        trials: to run, at least one.
        facts: of their data.
        layers: of their network.
        cache: of finished stages.
        at_once: number of trials side by side.
    """
    side_by_side = f", {at_once} at a time" if at_once > 1 else ""
    took = time_of(trials, cache)
    if took is None:
        lines = ["time:   unknown, no similar trial has finished here yet"]
    else:
        lines = [
            f"time:   about {format_duration(took.total / at_once)}{side_by_side}: baselines "
            f"{format_duration(took.baselines)}, scores {format_duration(took.scores)}, retraining "
            f"{format_duration(took.retraining)}, by {took.finished} finished trials"
        ]
    if trials[0].device != "cpu":
        return [*lines, "memory: not estimated for a GPU"]
    memory = memory_of(trials, facts, layers, at_once)
    together = f", {_gb(at_once * memory.total)} GB for {at_once}" if at_once > 1 else ""
    return [
        *lines,
        f"memory: about {_gb(memory.total)} GB a trial{together}, of {_gb(memory_bytes())} GB "
        f"here: libraries {_gb(memory.program)}, data {_gb(memory.data)}, and training "
        f"{_gb(memory.training)} or scores {_gb(memory.scores)}",
    ]


def time_of(trials: Sequence[TrialConfig], cache: StageCache) -> Time | None:
    """Return the time of trials, from finished ones of the same protocol and criteria.

    The time of scores is taken as proportional to bootstraps, blocks and the square of the rows,
    that of retraining to its epochs: without retraining there are none.

    Args:
        trials: of one experiment.
        cache: of finished stages.

    Returns:
        None if no finished trial is similar.
    """
    protocols = {trial.protocol for trial in trials}
    found = (cache.find("trials", key) for key in cache.keys("trials"))
    measured = [
        result
        for folder in found
        if folder and (result := TrialResult.load(folder)).keys.protocol in protocols
    ]
    rates = _seconds_per_work(measured)
    if not measured or any(trial.criterion not in rates for trial in trials):
        return None
    baselines = [_baseline_seconds(result.config, cache) for result in measured]
    known = [seconds for seconds in baselines if seconds is not None]
    if not known:
        return None
    missing = {trial.baseline_key for trial in trials if _baseline_seconds(trial, cache) is None}
    scored = {trial.scores_key(""): trial for trial in trials}
    retraining = _retraining_seconds(trials, measured)
    if retraining is None:
        return None
    return Time(
        finished=len(measured),
        baselines=len(missing) * fmean(known),
        scores=sum(rates[trial.criterion] * _work(trial) for trial in scored.values()),
        retraining=retraining,
    )


def memory_of(
    trials: Sequence[TrialConfig], facts: DataFacts, layers: LayerTable, at_once: int = 1
) -> Memory:
    """Return the memory of the largest of some trials of one experiment, so many side by side."""
    experiment = trials[0].experiment
    shape = image_shape(experiment.data, facts)
    assert shape
    all_values, largest = layers.values
    batch = max(
        experiment.training.batch_size, *(trial.retraining_settings.batch_size for trial in trials)
    )
    trained = 4 * (_COPIES_OF_PARAMETERS * layers.parameters + batch * all_values)
    evaluated = 4 * _COPIES_OF_LARGEST * evaluation_batch_size(math.prod(shape)) * largest
    pairs = chosen_pairs(layers, experiment)
    filters = {pair.parent_node: pair.parent_filters for pair in pairs}
    filters |= {pair.child_node: pair.child_filters for pair in pairs}
    return Memory(
        program=_PROGRAM,
        data=facts.stored_bytes,
        training=max(trained, evaluated),
        scores=max(_score_bytes(trial, facts.classes, filters, at_once) for trial in trials),
    )


def format_duration(seconds: float) -> str:
    """Return a time as text, such as 3 min 05 s; one below zero is 0 s."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _seconds_per_work(measured: Sequence[TrialResult]) -> dict[str, float]:
    rates = {}
    for criterion in {result.config.criterion for result in measured}:
        scored = [result for result in measured if result.config.criterion == criterion]
        work = sum(_work(result.config) for result in scored)
        rates[criterion] = sum(result.score_seconds for result in scored) / work
    return rates


def _retraining_seconds(
    trials: Sequence[TrialConfig], measured: Sequence[TrialResult]
) -> float | None:
    """Return the seconds of all retrainings; None if only trials without any have finished."""
    searches = [len(result.search_steps) for result in measured if result.config.search.steps]
    epochs = 0.0
    for trial in trials:
        most = trial.search.steps or 1  # a given fraction takes one step
        steps = fmean(searches) if searches and trial.search.steps else most
        epochs += steps * trial.retraining_settings.epochs
    trained = [step.retraining for result in measured for step in result.search_steps]
    known = sum(len(each.training) for each in trained)
    if epochs and not known:
        return None
    seconds = sum(each.seconds for each in trained if each.training)
    return epochs * seconds / known if known else 0.0


def _work(config: TrialConfig) -> int:
    bootstraps = config.estimate.bootstraps if config.uses("bootstraps") else 1
    return bootstraps * max(1, config.groups) ** 2 * max(1, config.samples_per_class) ** 2


def _baseline_seconds(config: TrialConfig, cache: StageCache) -> float | None:
    folder = cache.find("baselines", config.baseline_key)
    return Baseline.load(folder).seconds if folder else None


def _score_bytes(
    config: TrialConfig, classes: int, filters: Mapping[str, int], at_once: int
) -> int:
    rows = classes * config.samples_per_class
    activations = 4 * rows * sum(filters.values())
    if not config.uses("bootstraps"):
        return activations
    in_trees = rows - rows // 3
    matrices = min(config.groups, max(filters.values())) + 2 * config.experiment.threads + 1
    return activations + min(estimator_bytes(config, at_once), matrices * matrix_nbytes(in_trees))
