"""Pairs of weight layers, found by following the filters of every layer through the network.

Every value that the network computes is traced back to the layer whose filters are its channels
(dimension 1). Batch norm, activations, pooling and flattening act on every filter by itself, so
the channels stay those of the layer. Where two branches are added, the main path is the branch
with the longer chain of layers behind it, and the sum counts as its last layer's. Whatever else
mixes or moves channels loses them, and the layer that reads such a value has no parent.

A layer that reads the input has a pair too, whose parent is called input and whose filters are the
channels that it reads, or the values of a flattened image. It is pruned only where it is named.
"""

import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from mint.config.schema import Experiment
from mint.errors import InputError
from mint.pruning.layer_table import READS_INPUT

_INPUT = "input"

_WeightLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear

# Operations by name, the same for modules, functions and methods: see _operation.
_IDENTITIES = {
    *("identity", "dropout", "alphadropout", "featuredropout", "featurealphadropout"),
    *("stochasticdepth", "contiguous", "clone", "detach"),
}
_NORMS_AND_ACTIVATIONS = {
    *("batchnorm", "syncbatchnorm", "instancenorm"),
    *("relu", "relu6", "leakyrelu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu"),
    *("mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "clamp"),
    *("softplus", "softsign", "threshold", "hardshrink", "softshrink", "tanhshrink"),
}
_POOLS = {"maxpool", "avgpool", "lppool", "adaptivemaxpool", "adaptiveavgpool"}
_CASTS = {"to", "float", "half", "double"}
_ADDS = {"add", "iadd"}
_ARITHMETIC = {*_ADDS, "sub", "isub", "mul", "imul", "div", "truediv", "itruediv", "neg"}
_REDUCTIONS = {"mean", "sum", "amax", "amin"}
_RESHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze"}
_CONCATENATIONS = {"cat", "concat", "concatenate"}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer.

    Attributes:
        name: of the module.
        weights: how many it has, biases left out.
        parent: the layer whose filters the columns of its weight read; None where it has no pair.
        reason: why it has none, in words for a table.
    """

    name: str
    weights: int
    parent: str | None
    reason: str | None


@dataclass(frozen=True)
class LayerPair:
    """A child layer whose weight reads the filters of its parent layer, or the input.

    The child's activation is taken behind the batch norm and activations that alone read it, ahead
    of pooling and adds. The parent's is what the child reads: in a residual network the sum behind
    its activation, which may be that of the child before or not.

    Attributes:
        parent: name of the parent's module; input where the child reads that.
        child: name of the child's module; its weights are what the pair's mask prunes.
        parent_node: name of the graph's node whose value the child reads, ahead of a flatten.
        child_node: name of the graph's node whose value is the child's activation.
        parent_filters: how many.
        child_filters: how many.
        groups: of a grouped convolution, else 1.
        span: columns of the child's weight that each parent filter owns: height times width for a
            linear layer behind a flattened convolution, else 1.
    """

    parent: str
    child: str
    parent_node: str
    child_node: str
    parent_filters: int
    child_filters: int
    groups: int
    span: int

    def columns(self) -> NDArray[np.int64]:
        """Return the parent filter that the entry weight[o, c] reads, for every o and c.

        Returns:
            (1, c) where it is the same for all child filters o; (child_filters, c) if grouped.
        """
        channels = np.arange(self.parent_filters * self.span, dtype=np.int64) // self.span
        by_group = channels.reshape(self.groups, -1)
        return by_group.repeat(self.child_filters // self.groups if self.groups > 1 else 1, axis=0)


@dataclass(frozen=True)
class Traced:
    """A network as a graph, its weight layers, and the pairs among them.

    Attributes:
        graph: shares its modules with the network; recorded in evaluation mode, and only for it.
        layers: convolutions and linear layers, in the order of the forward pass.
        pairs: of two layers, in the order of their children.
        input_pairs: of the input and a layer that reads it; pruned only where they are named.
    """

    graph: torch.fx.GraphModule
    layers: tuple[Layer, ...]
    pairs: tuple[LayerPair, ...]
    input_pairs: tuple[LayerPair, ...]

    @property
    def all_pairs(self) -> list[LayerPair]:
        """Pairs of both kinds, in the order of the forward pass."""
        by_child = {pair.child: pair for pair in (*self.input_pairs, *self.pairs)}
        return [by_child[layer.name] for layer in self.layers if layer.name in by_child]

    def batch_norm_behind(self, layer: str) -> str | None:
        """Return the name of the batch norm that alone reads a layer and scales its filters."""
        calls = (node for node in self.graph.graph.nodes if node.op == "call_module")
        (node,) = (node for node in calls if node.target == layer)
        while len(node.users) == 1:
            (node,) = node.users
            module = self.graph.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                return str(node.target)
            if not isinstance(module, nn.Identity):
                break
        return None


def trace(network: nn.Module, example: Tensor) -> Traced:
    """Find the layers and pairs of a network.

    Args:
        network: left as it was.
        example: (1 or 2, ...) inputs, on the network's device.

    Raises:
        InputError: the network does not run on the example, or torch.fx cannot trace it.
    """
    name = type(network).__name__
    with evaluating(network), torch.no_grad():
        try:
            network(example)
        except Exception as error:  # the network may be anyone's
            raise InputError(
                f"{name} does not run on an input of shape {tuple(example.shape)}: "
                f"{_described(error)}"
            ) from error
        try:
            graph = torch.fx.GraphModule(network, _Tracer().trace(network), name)
            with redirect_stderr(io.StringIO()):  # where it would print the error's traceback
                ShapeProp(graph).propagate(example)
        except Exception as error:
            reason = _described(error.__cause__ or error)
            raise InputError(f"{name} cannot be traced: {reason}") from error
    flow = _Flow(graph, batch=len(example))
    return Traced(graph, flow.layers(), flow.pairs(), flow.input_pairs())


def chosen_pairs(traced: Traced, experiment: Experiment) -> list[LayerPair]:
    """Return the pairs that an experiment prunes, in the order of the forward pass.

    Raises:
        InputError: it names a pair that the network does not have, or leaves none.
    """
    network = experiment.network.name
    known = {(pair.parent, pair.child): pair for pair in traced.all_pairs}
    found = {(pair.parent, pair.child) for pair in traced.pairs}
    named = () if experiment.prune == "all" else experiment.prune
    for key, names in (("prune", named), ("leave_out", experiment.leave_out)):
        for parent, child in names:
            if (parent, child) not in known:
                why = _why_no_pair(traced.layers, parent, child)
                raise InputError(f"{key} [{parent}, {child}]: {network} has no such pair; {why}")
    wanted = set(named or found) - set(experiment.leave_out)
    if not wanted:
        raise InputError(f"prune and leave_out: no pair of {network} is left to prune")
    return [pair for names, pair in known.items() if names in wanted]


def _why_no_pair(layers: Iterable[Layer], parent: str, child: str) -> str:
    by_name = {layer.name: layer for layer in layers}
    for name in (child,) if parent == _INPUT else (child, parent):
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, 3)
            return f"{name} is none of its layers; " + (
                f"near are {', '.join(near)}" if near else f"they are {_listed(list(by_name))}"
            )
    layer = by_name[child]
    return f"{child} {layer.reason}" if layer.reason else f"{child} reads {layer.parent}"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode inside the block, and every module back as it was."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A user's own kind of convolution is a layer too, not the operations in it.
        return isinstance(m, _WeightLayer) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        # Arguments of forward behind the first stay at their defaults, as with network(example).
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, arguments[:2] if function is root_fn else arguments


@dataclass(frozen=True)
class _Value:
    """What is known of a value in the graph.

    Attributes:
        layers: the last layers that it is computed from; without a reason the one whose filters
            are its channels.
        reason: why the channels are not those of one layer; None where they are.
        span: consecutive channels that belong to each filter.
        node: whose value the reader sees, but for a flatten.
        behind: all layers that it is computed from.
        depth: the longest chain of them.
    """

    layers: tuple[str, ...]
    reason: str | None
    span: int
    node: torch.fx.Node
    behind: frozenset[str]
    depth: int


class _Flow:
    """Follows the values of a graph whose nodes know their shapes."""

    def __init__(self, graph: torch.fx.GraphModule, *, batch: int) -> None:
        self._graph = graph
        self._batch = batch
        self._modules = {
            node: module
            for node in graph.graph.nodes
            if node.op == "call_module"
            and isinstance(module := graph.get_submodule(node.target), _WeightLayer)
        }
        # Two layers may share a weight, and then have no mask of their own either.
        self._uses = Counter(
            id(next(module.parameters(), module)) for module in self._modules.values()
        )
        self._layers: dict[str, Layer] = {}
        self._pairs: dict[str, LayerPair] = {}
        self._shortcuts: set[str] = set()
        values: dict[torch.fx.Node, _Value] = {}
        for node in graph.graph.nodes:
            # Without parameters and sizes: what does not depend on the input has no value here.
            read = {
                operand: values[operand] for operand in node.all_input_nodes if operand in values
            }
            if node.op == "placeholder":
                values[node] = _Value((), READS_INPUT, 1, node, frozenset(), 0)
            elif node in self._modules:
                constant = _Value((), "reads a constant", 1, node, frozenset(), 0)
                first = next(iter(read.values()), constant)
                values[node] = self._through_layer(node, self._modules[node], first)
            elif read and "tensor_meta" in node.meta:
                values[node] = self._through(node, read)

    def layers(self) -> tuple[Layer, ...]:
        return tuple(
            replace(layer, parent=None, reason="on a shortcut")
            if layer.parent and layer.name in self._shortcuts
            else layer
            for layer in self._layers.values()
        )

    def pairs(self) -> tuple[LayerPair, ...]:
        return tuple(self._pairs[layer.name] for layer in self.layers() if layer.parent)

    def input_pairs(self) -> tuple[LayerPair, ...]:
        reading = (name for name, layer in self._layers.items() if layer.reason == READS_INPUT)
        return tuple(self._pairs[name] for name in reading)

    def _through_layer(self, node: torch.fx.Node, module: nn.Module, read: _Value) -> _Value:
        assert isinstance(module, _WeightLayer)
        name = str(node.target)
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        shape = _shape(node)
        unclear = None
        if "weight" not in dict(module.named_parameters(recurse=False)):
            unclear = "has a weight that is computed"
        elif self._uses[id(next(module.parameters()))] > 1:
            unclear = "is used twice"
        elif shape[0] != self._batch or (isinstance(module, nn.Linear) and len(shape) != 2):
            unclear = f"puts out {'x'.join(map(str, shape))}, not filters by dimension 1"
        reason = unclear or read.reason
        if not unclear and groups > 1 and module.weight.shape[1] == 1:
            reason = "depthwise: each of its filters reads one channel"
        parent = None if reason else read.layers[0]
        self._layers[name] = Layer(name, module.weight.numel(), parent, reason)
        if parent or reason == READS_INPUT:
            self._pairs[name] = LayerPair(
                parent=parent or _INPUT,
                child=name,
                # Of the input, what the layer reads itself: a flatten makes filters of its values.
                parent_node=(read.node if parent else node.all_input_nodes[0]).name,
                child_node=self._activation(node).name,
                parent_filters=module.weight.shape[1] * groups // read.span,
                child_filters=module.weight.shape[0],
                groups=groups,
                span=read.span,
            )
        return _Value(
            layers=(name,),
            reason=unclear and f"reads {name}, which {unclear}",
            span=1,
            node=node,
            behind=read.behind | {name},
            depth=read.depth + 1,
        )

    def _activation(self, node: torch.fx.Node) -> torch.fx.Node:
        activation = node
        while len(node.users) == 1:
            (node,) = node.users
            operation = self._operation(node)
            if operation in _NORMS_AND_ACTIVATIONS:
                activation = node
            elif operation not in _IDENTITIES:
                break
        return activation

    def _through(self, node: torch.fx.Node, read: Mapping[torch.fx.Node, _Value]) -> _Value:
        if len(read) == 1:
            followed = self._through_alone(node, *next(iter(read.items())))
        elif len(read) == 2 and self._operation(node) in _ADDS:
            followed = self._through_add(node, read)
        else:
            followed = None
        behind = frozenset[str]().union(*(value.behind for value in read.values()))
        depths = {value.depth for value in read.values()}
        if followed:
            return replace(followed, behind=behind, depth=max(depths))
        layers = tuple(dict.fromkeys(name for value in read.values() for name in value.layers))
        if not layers:
            reason = READS_INPUT
        elif self._operation(node) in _CONCATENATIONS:
            reason = "reads a concatenation"
        elif self._operation(node) in _ADDS and len(read) > len(depths):
            reason = f"reads the sum of {_listed(layers)}, which are equally deep"
        else:
            reason = f"reads what {self._called(node)} makes of {_listed(layers)}"
        return _Value(layers, reason, 1, node, behind, max(depths))

    def _through_alone(
        self, node: torch.fx.Node, operand: torch.fx.Node, value: _Value
    ) -> _Value | None:
        """Return the value of an operation on one value and constants; None if filters are lost."""
        if value.reason:
            return value
        operation = self._operation(node)
        before, after = _shape(operand), _shape(node)
        same_channels = after[:2] == before[:2]
        if operation in _IDENTITIES | _RESHAPES and same_channels:
            return value
        if operation in _RESHAPES and after == (before[0], math.prod(before[1:])):
            return replace(value, span=value.span * math.prod(before[2:]))
        acts_on_channels = operation in _NORMS_AND_ACTIVATIONS | _POOLS | _CASTS | _ARITHMETIC
        if same_channels and (
            acts_on_channels or (operation in _REDUCTIONS and _is_over_space(node, len(before)))
        ):
            return replace(value, node=node)
        return None

    def _through_add(
        self, node: torch.fx.Node, read: Mapping[torch.fx.Node, _Value]
    ) -> _Value | None:
        """Return the value of a sum: that of its main path; None where there is no telling."""
        shallow, deep = sorted(read.values(), key=lambda value: value.depth)
        if shallow.depth < deep.depth:
            self._shortcuts |= shallow.behind - deep.behind
        elif (
            shallow.reason
            or deep.reason
            or (shallow.layers, shallow.span) != (deep.layers, deep.span)
        ):
            return None
        same_channels = len({_shape(term)[:2] for term in (node, *read)}) == 1
        return replace(deep, node=node) if same_channels else None

    def _called(self, node: torch.fx.Node) -> str:
        if node.op == "call_module":
            return type(self._graph.get_submodule(str(node.target))).__name__
        return getattr(node.target, "__name__", str(node.target))

    def _operation(self, node: torch.fx.Node) -> str:
        """Return one name for the module MaxPool2d, the function max_pool2d, and their like."""
        return re.sub(r"_|[123]d$", "", self._called(node).lower())


def _is_over_space(node: torch.fx.Node, dimensions: int) -> bool:
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    over = over if isinstance(over, list | tuple) else [over]
    return all(isinstance(dim, int) and dim % dimensions >= 2 for dim in over)


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's value; empty for one that is no tensor."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if isinstance(meta, TensorMetadata) else ()


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:3])
    if len(names) > len(shown):
        shown = [*shown[:2], f"{len(names) - 2} others"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
