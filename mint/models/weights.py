"""Where a graph applies the weights of a network: which, in which orientation, and how often."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import nn

from mint.models.operations import SAME

_TRANSPOSES = {"t", "transpose", "permute", "numpy_T", "swapaxes", "swapdims", "movedim"}
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"mm": "mat2", "addmm": "mat2", "matmul": "other"}
_OTHER_INPUTS = {"embedding": "indices", "mm": "self", "addmm": "mat1", "matmul": "self"}
EMBEDDING = "is an embedding"
_WITH_WEIGHTS = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag),
    *(nn.RNNBase, nn.MultiheadAttention),
)
_COMPUTED = re.compile(
    r"(\.parametrizations\.weight\.original\d*|\.weight(_[gv])?)$|^weight(_[gv])?$"
)


@dataclass(frozen=True)
class Use:
    """One application of a weight.

    Attributes:
        layer: name of the layer.
        parameter: name of the parameter, (filters, columns, *kernel), if transposed
            (columns, filters, *kernel).
        weights: number of weights.
        unusable: why the weight cannot be pruned; None if it can.
    """

    layer: str
    parameter: str
    weights: int
    unusable: str | None
    transposed: bool


def operation(node: torch.fx.Node) -> str:
    """Return the name of an ATen operation, without the underscore of one in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return getattr(node.target, "__name__", str(node.target))
    name: str = schema.name.rpartition("::")[2]
    return name if name.startswith("_") and name.endswith("__") else name.rstrip("_")


def arguments(node: torch.fx.Node, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return arguments by the names that the operation's schema gives them."""
    schema = node.target._schema  # type: ignore[union-attr]
    names = [argument.name for argument in schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def weight_argument(node: torch.fx.Node) -> torch.fx.Node | None:
    """Return the argument that is the weight of a layer; None for any other operation."""
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return None
    name, given = operation(node), arguments(node, node.args, node.kwargs)
    if name in _CONVOLUTIONS | _TRANSPOSED | {"linear", "embedding"}:
        return given["weight"]  # type: ignore[no-any-return]
    if name in _PRODUCTS and len(_shape_of(given[_PRODUCTS[name]])) == 2:
        return given[_PRODUCTS[name]]  # type: ignore[no-any-return]
    return None


def read_argument(node: torch.fx.Node) -> str:
    """Return the name of the argument that a layer reads."""
    return _OTHER_INPUTS.get(operation(node), "input")


def is_transposed_convolution(node: torch.fx.Node) -> bool:
    name = operation(node)
    given = arguments(node, node.args, node.kwargs)
    return name in _TRANSPOSED or (name == "convolution" and bool(given["transposed"]))


class Weights:
    """The uses of a network's parameters in its graph."""

    def __init__(self, graph: torch.fx.Graph, network: nn.Module) -> None:
        names = {parameter: name for name, parameter in network.named_parameters()}
        self._network = network
        self._parameters = dict(network.named_parameters())
        self._origin: dict[torch.fx.Node, frozenset[str]] = {}  # of nodes without the input
        self._turned: dict[torch.fx.Node, tuple[str, bool]] = {}  # a parameter, transposed or not
        uses: Counter[str] = Counter()
        for node in graph.nodes:
            if node.op == "get_attr":
                tensor = node.meta["constant"]
                own = names.get(tensor) if isinstance(tensor, nn.Parameter) else None
                self._origin[node] = frozenset([own] if own else [])
                if own:
                    self._turned[node] = (own, False)
            elif (
                node.op == "call_function"
                and all(each in self._origin for each in node.all_input_nodes)
                and weight_argument(node) is None
            ):
                read = node.all_input_nodes
                self._origin[node] = frozenset[str]().union(*(self._origin[each] for each in read))
                self._turn(node)
            elif node.op != "placeholder":
                read_weights = (self._origin.get(each, ()) for each in node.all_input_nodes)
                uses.update(frozenset[str]().union(*read_weights))
        self._uses = uses

    def has_any(self, node: torch.fx.Node) -> bool:
        """Return whether an operation reads parameters of two dimensions or more."""
        names = (self._origin.get(each, ()) for each in node.all_input_nodes)
        return any(self._parameters[name].dim() > 1 for own in names for name in own)

    def of(self, node: torch.fx.Node, weight: torch.fx.Node) -> Use | None:
        """Return the use of a weight by a node; None if no parameter is in it."""
        origin = {name for name in self._origin.get(weight, ()) if self._parameters[name].dim() > 1}
        if not origin:
            return None
        parameter, turned = self._turned.get(weight, ("", False))
        parameter = parameter or sorted(origin)[0]
        unusable = None
        if weight not in self._turned:
            unusable = "has a weight that is computed"
        elif self._uses[parameter] > 1:
            unusable = "is used twice"
        elif operation(node) == "embedding":
            unusable = EMBEDDING
        flips = is_transposed_convolution(node) or operation(node) in _PRODUCTS
        size = int(torch.Size(_shape_of(weight)).numel())
        if weight in self._turned:
            size = self._parameters[parameter].numel()
        return Use(layer_name(parameter), parameter, size, unusable, turned != flips)

    def others(self, known: set[str]) -> list[tuple[str, int, str]]:
        """Return name, size and reason of each weight of a module that no layer has."""
        found = []
        for path, module in self._graph_modules():
            for key, parameter in module.named_parameters(path, recurse=False):
                name = layer_name(key)
                if parameter.dim() < 2 or name in known or key not in self._parameters:
                    continue
                known.add(name)
                if not self._uses[key]:
                    reason = "is not used in evaluation"
                elif isinstance(module, nn.RNNBase):
                    reason = "is recurrent"
                else:
                    reason = "is used in another way than by a layer"
                found.append((name, parameter.numel(), reason))
        return found

    def _graph_modules(self) -> list[tuple[str, nn.Module]]:
        return [
            (path, module)
            for path, module in self._network.named_modules()
            if isinstance(module, _WITH_WEIGHTS)
        ]

    def _turn(self, node: torch.fx.Node) -> None:
        name, read = operation(node), node.all_input_nodes
        if len(read) != 1 or read[0] not in self._turned:
            return
        parameter, turned = self._turned[read[0]]
        if name in SAME:
            self._turned[node] = parameter, turned
        elif name in _TRANSPOSES and len(_shape_of(node)) == 2:
            flipped = name in ("t", "numpy_T") or _swaps(node)
            self._turned[node] = parameter, turned != flipped


def layer_name(parameter: str) -> str:
    """Return the name of the layer that has a parameter."""
    return _COMPUTED.sub("", parameter)


def _swaps(node: torch.fx.Node) -> bool:
    dims = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:3]
    first, second = (dim % 2 for dim in dims)  # type: ignore[operator]
    return (first, second) == ((1, 0) if operation(node) == "permute" else (first, 1 - first))


def _shape_of(node: object) -> tuple[int, ...]:
    shape = node.meta.get("shape") if isinstance(node, torch.fx.Node) else None
    return shape if isinstance(shape, tuple) else ()
