"""Find the layer pairs of a network by following each layer's filters through its graph.

Every value of the graph is traced back to the layer whose filters are its channels (dimension 1).
Batch norm, activation functions, pooling and flattening act on each filter separately, so the
channels remain those of the layer. Where two branches are added, the branch with the longer chain
of layers is the main path, and the sum has its last layer's filters. Any other operation that mixes
or moves channels loses the filters, and a layer that reads such a value has no parent.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from mint.errors import InputError, first_line
from mint.models.applied_weights import AppliedWeights
from mint.models.layers import INPUT, READS_INPUT, Layer, LayerPair, Traced

_WeightLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear

# Names of operations, the same for modules, functions and methods: see _Flow._operation.
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
_ADDS = {"add", "iadd"}
_PER_CHANNEL = {
    *_NORMS_AND_ACTIVATIONS,
    *("maxpool", "avgpool", "lppool", "adaptivemaxpool", "adaptiveavgpool"),
    *("to", "float", "half", "double"),
    *(*_ADDS, "sub", "isub", "mul", "imul", "div", "truediv", "itruediv", "neg"),
}
_REDUCTIONS = {"mean", "sum", "amax", "amin"}
_RESHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze"}
_CONCATENATIONS = {"cat", "concat", "concatenate"}


def trace(network: nn.Module, example: Tensor) -> Traced:
    """Return the graph, layers and layer pairs of a network.

    Args:
        network: unchanged by tracing.
        example: (1 or 2, ...) inputs on the network's device.

    Raises:
        InputError: the network does not run on the example, or torch.fx cannot trace it.
    """
    name = type(network).__name__
    failed = f"does not run on an input of shape {tuple(example.shape)}"
    with evaluating(network), torch.no_grad(), redirect_stderr(io.StringIO()):
        try:
            with AppliedWeights() as applied:
                output = network(example)
            failed = "cannot be traced"
            graph = torch.fx.GraphModule(network, _Tracer().trace(network), name)
            ShapeProp(graph).propagate(example)  # prints a traceback of an error
        except Exception as error:  # the network may be any code
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {first_line(cause)}"
            raise InputError(f"{name} {failed}: {reason}") from error
    is_tensor = isinstance(output, Tensor)
    shape = tuple(output.shape)[1:] if is_tensor else type(output).__name__
    return _Flow(graph, len(example), applied).traced(shape)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode inside the block; restore every module's mode after it."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A subclass of a convolution is a layer too, not the operations inside it.
        return isinstance(m, _WeightLayer) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        # Only the first argument of forward is an input; the others keep their defaults.
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, arguments[:2] if function is root_fn else arguments


@dataclass(frozen=True)
class _Value:
    """A value of the graph, and the layers that it is computed from."""

    layers: tuple[str, ...]  # the last ones; one layer, if reason is None
    reason: str | None  # why the channels are not the filters of one layer; None if they are
    span: int  # consecutive channels of each filter
    node: torch.fx.Node  # whose value a reader sees, before a flatten
    sources: frozenset[str] = frozenset()  # all layers
    depth: int = 0  # length of the longest chain of layers


class _Flow:
    """Follows the values through a graph whose nodes carry their shapes."""

    def __init__(self, graph: torch.fx.GraphModule, batch: int, applied: AppliedWeights) -> None:
        self._graph = graph
        self._batch = batch
        self._applied = applied
        calls = [node for node in graph.graph.nodes if node.op == "call_module"]
        modules = {node: graph.get_submodule(node.target) for node in calls}
        self._modules = {
            n: module for n, module in modules.items() if isinstance(module, _WeightLayer)
        }
        # Counts weights, not modules: two layers that share a weight cannot have separate masks.
        self._uses = Counter(module._parameters.get("weight") for module in self._modules.values())
        self._layers: dict[str, Layer] = {}
        self._pairs: dict[str, LayerPair] = {}
        self._shortcuts: set[str] = set()
        self._tied: dict[str, str] = {}  # to an earlier layer

    def traced(self, output: tuple[int, ...] | str) -> Traced:
        values: dict[torch.fx.Node, _Value] = {}  # of nodes that depend on the input
        for node in self._graph.graph.nodes:
            read = {node: values[node] for node in node.all_input_nodes if node in values}
            if node.op == "placeholder":
                values[node] = _Value((), READS_INPUT, 1, node)
            elif node in self._modules:
                constant = _Value((), "reads a constant", 1, node)
                first = next(iter(read.values()), constant)
                values[node] = self._through_layer(node, self._modules[node], first)
            elif read and "tensor_meta" in node.meta:
                values[node] = self._through(node, read)
        for name in self._shortcuts & self._pairs.keys():
            if (layer := self._layers[name]).parent:
                self._layers[name] = replace(layer, parent=None, reason="on a shortcut")
                del self._pairs[name]
        shapes = filter(None, map(_shape, self._graph.graph.nodes))
        sizes = [math.prod(shape) // self._batch for shape in shapes]
        norms = {name: self._batch_norm_after(name) for name in self._layers}
        return Traced(
            graph=self._graph,
            layers=tuple(self._layers.values()),
            all_pairs=tuple(self._pairs.values()),
            batch_norms={name: norm for name, norm in norms.items() if norm},
            output=output,
            parameters=sum(parameter.numel() for parameter in self._graph.parameters()),
            values=(sum(sizes), max(sizes, default=0)),
            tied={name: self._first_tied(name) for name in self._tied},
        )

    def _batch_norm_after(self, layer: str) -> str | None:
        """Return the name of the affine batch norm that alone reads a layer's output, or None."""
        (node, *_) = self._graph.graph.find_nodes(op="call_module", target=layer)
        module: nn.Module | None = nn.Identity()
        while isinstance(module, nn.Identity) and len(node.users) == 1:
            (node,) = node.users
            module = self._graph.get_submodule(node.target) if node.op == "call_module" else None
        normed = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
        return str(node.target) if normed else None

    def _through_layer(self, node: torch.fx.Node, module: _WeightLayer, read: _Value) -> _Value:
        name = str(node.target)
        groups = getattr(module, "groups", 1)
        shape = _shape(node)
        weight = module._parameters.get("weight")
        unusable = None
        if weight is None or weight not in self._applied:
            unusable = "has a weight that is computed"
        elif self._uses[weight] > 1:
            unusable = "is used twice"
        elif shape[0] != self._batch or (isinstance(module, nn.Linear) and len(shape) != 2):
            unusable = f"has outputs of shape {'x'.join(map(str, shape))}, without filters as dim 1"
        reason = unusable or read.reason
        if not unusable and groups > 1 and module.weight.shape[1] == 1:
            reason = "depthwise: each of its filters reads one channel"
        parent = None if reason else read.layers[0]
        layer = self._layers[name] = Layer(name, module.weight.numel(), parent, reason)
        if parent or layer.reads_input:
            # The input has no filters before a flatten: its pair takes the values after it.
            parent_node = read.node if parent else node.all_input_nodes[0]
            self._pairs[name] = LayerPair(
                parent=parent or INPUT,
                child=name,
                parent_node=parent_node.name,
                child_node=self._activation(node).name,
                parent_filters=module.weight.shape[1] * groups // read.span,
                child_filters=module.weight.shape[0],
                groups=groups,
                span=read.span,
                kernel=tuple(module.weight.shape[2:]),
            )
        lost = unusable and f"reads {name}, which {unusable}"
        return _Value((name,), lost, 1, node, read.sources | {name}, read.depth + 1)

    def _activation(self, node: torch.fx.Node) -> torch.fx.Node:
        """Return the last of the norms and activation functions that follow a layer."""
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
        operation, followed = self._operation(node), None
        if len(read) == 1:
            followed = self._through_one(node, *next(iter(read.items())))
        elif len(read) == 2 and operation in _ADDS:
            followed = self._through_add(node, read)
        sources = frozenset[str]().union(*(value.sources for value in read.values()))
        depths = {value.depth for value in read.values()}
        if followed:
            return replace(followed, sources=sources, depth=max(depths))
        layers = tuple(dict.fromkeys(name for value in read.values() for name in value.layers))
        if not layers:
            reason = READS_INPUT
        elif operation in _CONCATENATIONS:
            reason = "reads a concatenation"
        elif operation in _ADDS and len(read) > len(depths):
            reason = f"reads the sum of {_listed(layers)}, which are equally deep"
        else:
            reason = f"reads the output of {self._called(node)} on {_listed(layers)}"
        return _Value(layers, reason, 1, node, sources, max(depths))

    def _through_one(
        self, node: torch.fx.Node, operand: torch.fx.Node, value: _Value
    ) -> _Value | None:
        """Return the value of an operation on one value; None if it loses the filters."""
        if value.reason:
            return value
        operation = self._operation(node)
        before, after = _shape(operand), _shape(node)
        same_channels = after[:2] == before[:2]
        if operation in _IDENTITIES | _RESHAPES and same_channels:
            return value
        if operation in _RESHAPES and after == (before[0], math.prod(before[1:])):
            return replace(value, span=value.span * math.prod(before[2:]))
        over_space = operation in _REDUCTIONS and _is_over_space(node, len(before))
        if same_channels and (operation in _PER_CHANNEL or over_space):
            return replace(value, node=node)
        return None

    def _through_add(
        self, node: torch.fx.Node, read: Mapping[torch.fx.Node, _Value]
    ) -> _Value | None:
        """Return the value of a sum: that of its main path; None if no path is the main one."""
        shallow, deep = sorted(read.values(), key=lambda value: value.depth)
        same_channels = len({_shape(term)[:2] for term in (node, *read)}) == 1
        if same_channels and shallow.span == deep.span and not (shallow.reason or deep.reason):
            self._tie(shallow.layers[0], deep.layers[0])
        if shallow.depth < deep.depth:
            self._shortcuts |= shallow.sources - deep.sources
        else:
            same = (shallow.layers, shallow.span) == (deep.layers, deep.span)
            if shallow.reason or deep.reason or not same:
                return None
        return replace(deep, node=node) if same_channels else None

    def _tie(self, *names: str) -> None:
        """Note that the filters of two layers are added."""
        order = list(self._layers).index
        first, later = sorted(map(self._first_tied, names), key=order)
        if first != later:
            self._tied[later] = first

    def _first_tied(self, name: str) -> str:
        while name in self._tied:
            name = self._tied[name]
        return name

    def _called(self, node: torch.fx.Node) -> str:
        if node.op == "call_module":
            return type(self._graph.get_submodule(str(node.target))).__name__
        return getattr(node.target, "__name__", str(node.target))

    def _operation(self, node: torch.fx.Node) -> str:
        """Return one name for the module MaxPool2d, the function max_pool2d, and so on."""
        return re.sub(r"_|[123]d$", "", self._called(node).lower())


def _is_over_space(node: torch.fx.Node, dimensions: int) -> bool:
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    over = over if isinstance(over, list | tuple) else [over]
    return all(isinstance(dim, int) and dim % dimensions >= 2 for dim in over)


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's value; () if it is not a tensor."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if isinstance(meta, TensorMetadata) else ()


def _listed(names: tuple[str, ...]) -> str:
    if len(names) > 3:
        names = (*names[:2], f"{len(names) - 2} others")
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
