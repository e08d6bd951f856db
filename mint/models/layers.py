"""Weight layers of a traced network, and the layer pairs that are pruned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mint.config.schema import Experiment
from mint.errors import InputError, allowed

# A plan knows the layers of a network without it, and torch takes seconds to import.
if TYPE_CHECKING:
    import torch.fx

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

    The child's activation is taken after the batch norm and activation functions that follow it,
    before pooling and additions. The parent's activation is what the child reads: in a residual
    network that is the sum after its activation function.

    Attributes:
        parent: module name, or input, whose filters are its channels or the values of a flattened
            image.
        child: module name; the pair's mask prunes the weight of this layer.
        parent_node: graph node whose value the child reads, before a flatten.
        child_node: graph node whose value is the child's activation.
        parent_filters: number of the parent's filters.
        child_filters: number of the child's filters.
        groups: groups of a grouped convolution, else 1.
        span: columns of the child's weight that each parent filter owns: height times width for a
            linear layer after a flattened convolution, else 1.
        kernel: shape of the child's kernels, such as (3, 3); () for a linear layer.
    """

    parent: str
    child: str
    parent_node: str
    child_node: str
    parent_filters: int
    child_filters: int
    groups: int
    span: int
    kernel: tuple[int, ...]

    @property
    def weight(self) -> str:
        """Name of the parameter that the pair's mask prunes."""
        return f"{self.child}.weight"

    def columns(self) -> NDArray[np.int64]:
        """Return (1, c), if grouped (child_filters, c): the parent filter weight[o, c] reads."""
        channels = np.arange(self.parent_filters * self.span, dtype=np.int64) // self.span
        by_group = channels.reshape(self.groups, -1)
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
    """

    layers: tuple[Layer, ...]
    all_pairs: tuple[LayerPair, ...]
    batch_norms: Mapping[str, str]
    output: tuple[int, ...] | str
    parameters: int
    values: tuple[int, int]
    tied: Mapping[str, str]

    @property
    def pairs(self) -> list[LayerPair]:
        """Pairs of two layers: those that are pruned by default."""
        children = {layer.name for layer in self.layers if layer.parent}
        return [pair for pair in self.all_pairs if pair.child in children]


@dataclass(frozen=True, kw_only=True)
class Traced(LayerTable):
    """A network as a graph, with its table of layers.

    Attributes:
        graph: shares its modules with the network; valid in evaluation mode only.
    """

    graph: "torch.fx.GraphModule"


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
