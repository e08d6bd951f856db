"""Checks of trials against the machine, the network and the data, before any work."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mint.config.schema import DataConfig, Experiment, TrialConfig
from mint.data.facts import KNOWN_SHAPES, DataFacts
from mint.errors import InputError
from mint.gmi.memory import least_memory
from mint.machine import memory_bytes
from mint.models.layers import LayerPair, LayerTable, chosen_pairs

if TYPE_CHECKING:  # torch takes seconds to import: checks do with what is remembered of networks
    from torch import nn

    from mint.models.layers import Traced


def image_shape(data: DataConfig, facts: DataFacts | None) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of the network's input; None if only the data can tell.

    Raises:
        InputError: the crop is larger than the images.
    """
    known = facts.image_shape if facts else KNOWN_SHAPES.get(data.name)
    if known is None and (data.channels is None or not (data.crop or data.size)):
        return None
    channels, height, width = known or (data.channels or 0, 0, 0)
    height, width = data.size or height, data.size or width
    if data.crop and known and data.crop > min(height, width):
        raise InputError(
            f"allowed are 1 to {min(height, width)}, the side of the images",
            parameter="data.crop",
            value=data.crop,
        )
    return (data.channels or channels, data.crop or height, data.crop or width)


def trace_network(
    experiment: Experiment, shape: tuple[int, int, int], init: Path | None = None
) -> "Traced":
    """Return the untrained network of an experiment, traced.

    Args:
        experiment: names the network.
        shape: (channels, height, width) of the network's input.
        init: file of weights to start from.

    Raises:
        InputError: arguments, images or initial weights that do not fit the network.
    """
    import torch

    from mint.models.registry import build_network
    from mint.models.tracing import trace

    network = build_network(experiment.network)
    if init:
        load_initial(network, experiment, init)
    example = torch.zeros(1, *shape)
    traced = trace(network, example)
    if not experiment.network.is_users:
        return traced
    from mint.pruning.export import why_not_exported

    return replace(traced, not_exported=why_not_exported(network, example))


def check_threads(experiment: Experiment) -> None:
    """Raise InputError if a trial needs more threads than this machine has cores."""
    cores = os.cpu_count() or 1
    if experiment.threads > cores:
        raise InputError(
            f"{experiment.name} needs them for a trial; this machine allows 1 to {cores}",
            parameter="threads",
            value=experiment.threads,
        )


def check_network(trials: Sequence[TrialConfig], layers: LayerTable) -> None:
    """Check trials of one experiment, at least one, against its network.

    Raises:
        InputError: pairs, limits, groups or a criterion that do not fit the network.
    """
    experiment = trials[0].experiment
    pairs = chosen_pairs(layers, experiment)
    _check_criteria(trials, layers, pairs)
    _check_compensation(trials, pairs)
    _check_layer_names(experiment, pairs)
    _check_groups(trials, pairs)
    _check_fractions(trials, layers, pairs)


def check_data(
    trials: Sequence[TrialConfig], facts: DataFacts, layers: LayerTable, at_once: int = 1
) -> None:
    """Check trials of one experiment, so many side by side, against their data.

    Raises:
        InputError: a validation split, an output or a number of samples that the data do not allow,
            or scores that need more memory than there is.
    """
    experiment = trials[0].experiment
    data = experiment.data
    images, classes = facts.images, facts.classes
    if not classes <= data.validation_size <= images - classes:
        raise InputError(
            f"{experiment.name} allows {classes} to {images - classes} of the {images} training "
            "images",
            parameter="data.validation_size",
            value=data.validation_size,
        )
    if layers.output != (classes,):
        raise InputError(
            f"network {experiment.network.name} of {experiment.name}: its output for an image is "
            f"{layers.output}; the {classes} classes of {data.name} need ({classes},)"
        )
    available = facts.smallest_class(data.validation_size)
    for config in trials:
        if config.samples_per_class > available:
            raise InputError(
                f"{data.name} allows 1 to {available}, the training images of its rarest class",
                parameter="samples_per_class",
                value=config.samples_per_class,
            )
        if config.uses("bootstraps"):
            _check_memory(config, classes, chosen_pairs(layers, experiment), at_once)


def estimator_bytes(config: TrialConfig, at_once: int) -> int:
    """Return the memory that a trial's estimator may use, on the device where it runs.

    It is what the experiment sets, or half of the share of each trial side by side.
    """
    given = config.estimate.memory_gb
    return int(1e9 * given) if given else memory_bytes(config.estimator) // (2 * at_once)


def _check_memory(
    config: TrialConfig, classes: int, pairs: Sequence[LayerPair], at_once: int
) -> None:
    limit, there = estimator_bytes(config, at_once), memory_bytes(config.estimator)
    if limit > there:
        raise InputError(
            f"allowed are at most {there / 1e9:.1f}, the memory of this device",
            parameter="estimate.memory_gb",
            value=config.estimate.memory_gb,
        )
    rows = classes * config.samples_per_class
    for pair in pairs:
        filters = pair.child_filters, pair.parent_filters
        groups = config.groups_of(pair.child, filters[0]), config.groups_of(pair.parent, filters[1])
        needed = least_memory(rows, filters, groups, config.estimator)
        if needed > limit:
            raise InputError(
                f"the scores of {pair.parent} -> {pair.child} in {config.experiment.name} need "
                f"{needed / 1e9:.2f} GB for {rows} rows, and a trial may use {limit / 1e9:.2f} GB "
                "for them: take fewer samples or trials at a time, or raise estimate.memory_gb",
                parameter="samples_per_class",
                value=config.samples_per_class,
            )


def load_initial(network: "nn.Module", experiment: Experiment, path: Path) -> None:
    """Load initial weights from a file; published weights are renamed to the network's names."""
    from mint.models.registry import PUBLISHED_NAMES
    from mint.models.weight_files import load_weights

    load_weights(network, path, PUBLISHED_NAMES.get(experiment.network.name))


def counted_weights(layers: LayerTable, pairs: Sequence[LayerPair], experiment: Experiment) -> int:
    """Return the number of weights that fractions and percentages of an experiment refer to."""
    pruned = {pair.child for pair in pairs}
    everything = experiment.count == "all"
    return sum(layer.weights for layer in layers.layers if everything or layer.name in pruned)


def _check_criteria(
    trials: Sequence[TrialConfig], layers: LayerTable, pairs: Sequence[LayerPair]
) -> None:
    if all(config.criterion != "bn-scale" for config in trials):
        return
    for pair in pairs:
        if pair.child not in layers.batch_norms:
            raise InputError(
                f"{trials[0].experiment.name} prunes {pair.child}, which has no batch norm of its "
                "own right after it; take another criterion, or leave that layer out of prune",
                parameter="criterion",
                value="bn-scale",
            )


def _check_compensation(trials: Sequence[TrialConfig], pairs: Sequence[LayerPair]) -> None:
    for pair in pairs:
        if pair.transposed and pair.kernel and any(config.compensate == "yes" for config in trials):
            raise InputError(
                f"{trials[0].experiment.name} prunes {pair.child}, a transposed convolution, which "
                "cannot be refitted; leave that layer out of prune",
                parameter="compensate",
                value="yes",
            )


def _check_layer_names(experiment: Experiment, pairs: Sequence[LayerPair]) -> None:
    children = [pair.child for pair in pairs]
    filters = {pair.parent: pair.parent_filters for pair in pairs}
    filters |= {pair.child: pair.child_filters for pair in pairs}
    for name in experiment.limits:
        if name not in children:
            raise InputError(
                f"limits: {name} is no layer that {experiment.name} prunes; those are "
                f"{', '.join(children)}"
            )
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


def _check_groups(trials: Sequence[TrialConfig], pairs: Sequence[LayerPair]) -> None:
    widest = max(pairs, key=lambda pair: min(pair.parent_filters, pair.child_filters))
    most = min(widest.parent_filters, widest.child_filters)
    for config in trials:
        if config.groups > most:
            raise InputError(
                f"{widest.parent} -> {widest.child} of {config.experiment.name} allows 1 to {most}",
                parameter="groups",
                value=config.groups,
            )


def _check_fractions(
    trials: Sequence[TrialConfig], layers: LayerTable, pairs: Sequence[LayerPair]
) -> None:
    experiment = trials[0].experiment
    weights = {layer.name: layer.weights for layer in layers.layers}
    prunable = [(pair.child, weights[pair.child]) for pair in pairs]
    counted = counted_weights(layers, pairs, experiment)
    for config in trials:
        if (fraction := config.search.fraction) is None:
            continue
        # Exact arithmetic on the decimals: in floating point 0.1 + 0.2 exceeds a limit of 0.3.
        most_pruned = sum(
            number if (limit := config.limit_of(child)) is None else Fraction(repr(limit)) * number
            for child, number in prunable
        )
        if Fraction(repr(fraction)) * counted > most_pruned:
            raise InputError(
                f"{experiment.name} allows at most {float(most_pruned / counted):.4f}: of "
                f"{counted} counted weights {sum(number for _, number in prunable)} are prunable, "
                f"and the limits leave {math.floor(most_pruned)}",
                parameter="search.fraction" if config.fraction is None else "fraction",
                value=f"{fraction:g}",
            )
