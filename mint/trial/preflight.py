"""What trials ask for, held against the machine, the network and the data before any work."""

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from mint.config.schema import DataConfig, Experiment, TrialConfig
from mint.data.datasets import KNOWN_SHAPES, Source
from mint.data.loading import smallest_class
from mint.errors import InputError
from mint.models import (
    PUBLISHED_NAMES,
    LayerPair,
    Traced,
    build_network,
    chosen_pairs,
    load_weights,
    trace,
)


def image_shape(data: DataConfig, source: Source | None) -> tuple[int, int, int] | None:
    """Return (channels, height, width) as the network sees images; None where only data can tell.

    Args:
        data: how images are prepared.
        source: the data set, where it is at hand.
    """
    known = source.train.shape[1:] if source else KNOWN_SHAPES.get(data.name)
    side = data.crop or data.size
    if known is None and (side is None or data.channels is None):
        return None
    channels, height, width = known or (data.channels or 0, 0, 0)
    return (data.channels or channels, side or height, side or width)


def untrained(experiment: Experiment, shape: tuple[int, int, int]) -> Traced:
    """Return the layers and pairs of an experiment's network for images of a shape."""
    return trace(build_network(experiment.network), torch.zeros(1, *shape))


def check_trials(
    trials: Sequence[TrialConfig], source: Source | None, init: Path | None = None
) -> None:
    """Refuse trials of one experiment that the machine, the network or the data cannot serve.

    Args:
        trials: of the same experiment.
        source: the data set; None where it is not at hand yet, to check what needs none.
        init: file of weights to start from.

    Raises:
        InputError: more threads than cores, arguments, images or weights that the network does
            not take, pairs that it has not, more groups than filters, more images than there are,
            a criterion that a layer has not what it needs for.
    """
    experiment = trials[0].experiment
    cores = os.cpu_count() or 1
    if experiment.threads > cores:
        raise InputError(
            f"threads {experiment.threads} of {experiment.name}: this machine allows 1 to {cores}"
        )
    if init:
        load_initial(build_network(experiment.network), experiment, init)
    whole = image_shape(experiment.data.model_copy(update={"crop": None}), source)
    if whole and (experiment.data.crop or 0) > min(whole[1:]):
        raise InputError(
            f"data.crop {experiment.data.crop} of {experiment.name}: allowed are 1 to "
            f"{min(whole[1:])}, the side of the images"
        )
    shape = image_shape(experiment.data, source)
    if shape:
        _check_network(trials, untrained(experiment, shape))
    if source is None:
        return
    images, classes = len(source.train_labels), source.classes
    if not classes <= experiment.data.validation_size <= images - classes:
        raise InputError(
            f"data.validation_size {experiment.data.validation_size} of {experiment.name}: must "
            f"be from {classes} to {images - classes} of the {images} training images"
        )
    assert shape is not None
    with torch.inference_mode():
        outputs = build_network(experiment.network).eval()(torch.zeros(1, *shape))
    found = tuple(outputs.shape)[1:] if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (classes,):
        raise InputError(
            f"network {experiment.network.name} of {experiment.name}: puts out {found} for an "
            f"image, where the {classes} classes of {experiment.data.name} need ({classes},)"
        )
    for config in trials:
        available = smallest_class(
            source, validation_size=experiment.data.validation_size, seed=config.seed
        )
        if config.samples_per_class > available:
            raise InputError(
                f"--samples-per-class {config.samples_per_class}: {experiment.data.name} "
                f"allows 1 to {available}, the training images of its rarest class"
            )


def _check_network(trials: Sequence[TrialConfig], traced: Traced) -> None:
    experiment = trials[0].experiment
    pairs = chosen_pairs(traced, experiment)
    children = [pair.child for pair in pairs]
    if any(config.criterion == "bn-scale" for config in trials):
        for child in children:
            if traced.batch_norm_behind(child) is None:
                raise InputError(
                    f"--criterion bn-scale: {experiment.name} prunes {child}, which has no batch "
                    "norm of its own right behind it; take another criterion, or leave that layer "
                    "out of prune"
                )
    for name in experiment.limits:
        if name not in children:
            raise InputError(
                f"limits: {name} is no layer that {experiment.name} prunes; those are "
                f"{', '.join(children)}"
            )
    filters = {pair.parent: pair.parent_filters for pair in pairs}
    filters |= {pair.child: pair.child_filters for pair in pairs}
    for name, groups in experiment.groups.items():
        if name not in filters:
            raise InputError(
                f"groups: {name} is no layer of a pair that {experiment.name} prunes; those are "
                f"{', '.join(filters)}"
            )
        if groups > filters[name]:
            raise InputError(
                f"groups {groups} of {name} in {experiment.name}: allowed are 1 to {filters[name]}"
            )
    widest = max(pairs, key=lambda pair: min(pair.parent_filters, pair.child_filters))
    most = min(widest.parent_filters, widest.child_filters)
    weights = {layer.name: layer.weights for layer in traced.layers}
    prunable = sum(weights[child] for child in children)
    counted = counted_weights(traced, pairs, experiment)
    for config in trials:
        fraction = config.search.fraction
        limits = {child: config.limit_of(child) for child in children}
        # Of the decimal numbers that were meant: in floating point a limit does not allow itself.
        most_pruned = sum(
            Fraction(repr(1 if limit is None else limit)) * weights[child]
            for child, limit in limits.items()
        )
        if fraction is not None and Fraction(repr(fraction)) * counted > most_pruned:
            raise InputError(
                f"--fraction {fraction:g}: {experiment.name} allows at most "
                f"{float(most_pruned / counted):.4f}: of {counted} counted weights {prunable} are "
                f"prunable, and the limits leave {math.floor(most_pruned)}"
            )
        if config.groups > most:
            raise InputError(
                f"--groups {config.groups}: {widest.parent} -> {widest.child} of "
                f"{experiment.name} allows 1 to {most}"
            )


def load_initial(network: nn.Module, experiment: Experiment, path: Path) -> None:
    """Give an experiment's network the weights of a file, of published ones by their names."""
    load_weights(network, path, PUBLISHED_NAMES.get(experiment.network.name))


def counted_weights(traced: Traced, pairs: Sequence[LayerPair], experiment: Experiment) -> int:
    """Return the number of weights that fractions and percents of an experiment are of."""
    pruned = {pair.child for pair in pairs}
    everything = experiment.count == "all"
    return sum(layer.weights for layer in traced.layers if everything or layer.name in pruned)
