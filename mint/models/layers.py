"""Weight layers of a traced network, and the layer pairs that are pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mint.config.schema import Experiment
from mint.errors import InputError, allowed

# A plan knows the layers of a network without it, and torch takes seconds to import.
if TYPE_CHECKING:
    import torch.fx
    from torch import nn

    from mint.models.recorded import Recorded
    from mint.models.supports import Supports

INPUT = "input"  # parent of a pair whose child reads the network's input
READS_INPUT = "reads the input"


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, by its module name.

    Attributes:
        weights: number of weights, without biases.
        parent: layer whose filters this layer's weight reads; None if it reads no single layer.
        reason: why parent is None; None otherwise.
    """

    name: str
    weights: int
    parent: str | None
    reason: str | None

    @property
    def reads_input(self) -> bool:
        return self.reason == READS_INPUT


@dataclass(frozen=True)
class LayerPair:
    """A child layer whose weight reads the filters of its parent layer, or the network's input.

    Where the child reads a sum or product of layers, each of its terms counts as one filter, named
    after the deepest layer; where it reads a concatenation, the parent is all of its layers.
    The child's activation is taken after the batch norm and activation functions that follow it,
    before pooling and additions. The parent's activation is what the child reads: in a residual
    network that is the sum after its activation function.

    Attributes:
        parent: module name, or input, whose filters are its channels or the values of a flattened
            image; the names of several layers are joined by +.
        child: module name; the pair's mask prunes the weight of this layer.
        weight: name of the parameter that the mask prunes.
        parent_node: key in Traced.recorded of the value that the child reads.
        child_node: key in Traced.recorded of the child's activation.
        parent_filters: number of filters that the child reads.
        child_filters: number of the child's filters.
        groups: groups of a grouped convolution, else 1.
        channels: for each channel or feature that the child reads, the parent filter it belongs to.
        kernel: shape of the child's kernels, such as (3, 3); () for a linear layer.
        transposed: whether the parameter is (columns, filters, *kernel), as transposed convolutions
            have it, and not (filters, columns, *kernel).
        heads: for each parent filter its attention head, which stands for a group; else None.
    """

    parent: str
    child: str
    weight: str
    parent_node: str
    child_node: str
    parent_filters: int
    child_filters: int
    groups: int
    channels: tuple[int, ...]
    kernel: tuple[int, ...]
    transposed: bool = False
    heads: tuple[int, ...] | None = None

    def columns(self) -> NDArray[np.int64]:
        """Return (1, c), if grouped (child_filters, c): the parent filter weight[o, c] reads."""
        return self._by_filter(np.array(self.channels, dtype=np.int64))

    def positions(self) -> NDArray[np.int64]:
        """Return for each of columns() how many channels before it have the same parent filter."""
        channels = np.array(self.channels, dtype=np.int64)
        order = channels.argsort(kind="stable")
        in_order, sizes = np.arange(len(channels)), np.bincount(channels)
        positions = np.empty_like(channels)
        positions[order] = in_order - (sizes.cumsum() - sizes).repeat(sizes)
        return self._by_filter(positions)

    def _by_filter(self, by_channel: NDArray[np.int64]) -> NDArray[np.int64]:
        by_group = by_channel.reshape(self.groups, -1)
        return by_group.repeat(self.child_filters // self.groups if self.groups > 1 else 1, axis=0)


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The weight layers and layer pairs of a network in forward order, and its sizes.

    Attributes:
        all_pairs: pairs of two layers, and of the input and a layer that reads it.
        tied: for a layer whose filters are added to those of earlier layers, the first of these:
            filter k of both is channel k of the sum.
        batch_norms: for a layer's name that of the affine batch norm that alone reads its output.
        output: shape of the output for an image, or the name of its type if it is no tensor.
        parameters: their number.
        values: number of values of one image in the forward pass: of all operations together, and
            of the largest.
        not_exported: why mint export cannot write the network, as far as its code tells; None if
            it can.
    """

    layers: tuple[Layer, ...]
    all_pairs: tuple[LayerPair, ...]
    batch_norms: Mapping[str, str]
    output: tuple[int, ...] | str
    parameters: int
    values: tuple[int, int]
    tied: Mapping[str, str]
    not_exported: str | None = None

    @property
    def pairs(self) -> list[LayerPair]:
        """Pairs of two layers: those that are pruned by default."""
        children = {layer.name for layer in self.layers if layer.parent}
        return [pair for pair in self.all_pairs if pair.child in children]


@dataclass(frozen=True, kw_only=True)
class Traced(LayerTable):
    """A network as a graph, with its table of layers.

    Attributes:
        network: itself.
        graph: its ATen operations, in evaluation mode only: see mint.models.running.
        recorded: values of the graph that scores are estimated from, by the pairs' keys.
        nodes: for each layer that the graph applies, the name of its node.
        dims: for the same layers the dimension of the filters, in what they read and return.
        supports: the filters that entries depend on, by number.
        columns: for each pair's child the support of each channel that it reads.
    """

    network: "nn.Module"
    graph: "torch.fx.Graph"
    recorded: "Mapping[str, Recorded]"
    nodes: Mapping[str, str]
    dims: Mapping[str, int]
    supports: "Supports"
    columns: Mapping[str, Sequence[int]]

    def filters_read(self, child: str) -> list[frozenset[tuple[str, int]]]:
        """Return for each channel that a pair's child reads all filters that can change it.

        They are (layer, index) of the layers from which no other layer separates the child.
        """
        reached = (self.supports.reach(number) for number in self.columns[child])
        return [frozenset(map(self.supports.filter, each)) for each in reached]


def chosen_pairs(traced: LayerTable, experiment: Experiment) -> list[LayerPair]:
    """Return the pairs that an experiment prunes, in forward order.

    Raises:
        InputError: the experiment names a pair that the network does not have, or leaves none.
    """
    network = experiment.network.name
    known = {(pair.parent, pair.child): pair for pair in traced.all_pairs}
    found = {(pair.parent, pair.child) for pair in traced.pairs}
    named = () if experiment.prune == "all" else experiment.prune
    for parent, child in (*named, *experiment.leave_out):
        if (parent, child) not in known:
            key = "prune" if named else "leave_out"
            why = _why_no_pair(traced, parent, child)
            raise InputError(f"{key} [{parent}, {child}]: {network} has no such pair; {why}")
    wanted = set(named or found) - set(experiment.leave_out)
    if not wanted:
        reasons = [f"{layer.name} {layer.reason}" for layer in traced.layers if layer.reason]
        why = f": {'; '.join(reasons[:3])}{'; ...' if reasons[3:] else ''}" if reasons else ""
        raise InputError(f"prune and leave_out: no pair of {network} is left to prune{why}")
    return [pair for names, pair in known.items() if names in wanted]


def _why_no_pair(traced: LayerTable, parent: str, child: str) -> str:
    layers = {layer.name: layer for layer in traced.layers}
    for name in (child,) if parent == INPUT else (child, parent):
        if name not in layers:
            return f"{name} is not one of its layers; {allowed(name, layers)}"
    layer = layers[child]
    return f"{child} {layer.reason or f'reads {layer.parent}'}"
