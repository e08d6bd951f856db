"""Follow the filters of each layer through the graph of a network, entry by entry.

Each entry of each value is followed to the filters that it depends on without another layer
between: see mint.models.supports. A layer has a parent if each of its columns reads one filter, or
one sum or product of filters, and no column depends on all of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.fx
from torch import nn

from mint.models.layers import INPUT, READS_INPUT, Layer, LayerPair, Traced
from mint.models.operations import (
    NORMS_AND_ACTIVATIONS,
    SAME,
    LostError,
    is_move,
    is_sum,
    moved,
    result,
)
from mint.models.recorded import Recorded, places, record
from mint.models.supports import (
    CONSTANT,
    FROM_INPUT,
    Supports,
    Value,
    distinct,
    input_value,
    merged_images,
    mixed,
    values_in,
)
from mint.models.weights import (
    EMBEDDING,
    Use,
    Weights,
    arguments,
    is_transposed_convolution,
    operation,
    read_argument,
    weight_argument,
)

_NOT_BY_IMAGE = "reads a value whose images are not along one dimension"


class Flow:
    """Follows the values through a graph whose nodes carry their shapes."""

    def __init__(self, graph: torch.fx.Graph, network: nn.Module) -> None:
        self._graph = graph
        self._network = network
        self._supports = Supports()
        self._weights = Weights(graph, network)
        self._values: dict[torch.fx.Node, Any] = {}  # after operations in place
        self._made: dict[torch.fx.Node, Any] = {}  # before them
        self._layers: dict[str, Layer] = {}
        self._pairs: dict[str, tuple[torch.fx.Node, LayerPair]] = {}
        self._nodes: dict[str, torch.fx.Node] = {}
        self._dims: dict[str, int] = {}
        self._recorded: dict[str, Recorded] = {}
        self._filters: dict[str, list[int]] = {}
        self._columns: dict[str, list[int]] = {}
        self._shortcuts: set[str] = set()

    def traced(self, output: tuple[int, ...] | str) -> Traced:
        """Return the network's table of layers; output is the shape of its output, or its type."""
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._values[node] = input_value(_shape(node))
            elif node.op == "get_attr":
                self._values[node] = node.meta["constant"]
            elif node.op == "call_function":
                self._values[node] = self._made[node] = self._called(node)
        for name in self._shortcuts & self._pairs.keys():
            if (layer := self._layers[name]).parent:
                self._layers[name] = replace(layer, parent=None, reason="on a shortcut")
                del self._pairs[name]
        for name, weights, reason in self._weights.others(set(self._layers)):
            self._layers[name] = Layer(name, weights, None, reason)
        pairs = [self._with_child(node, pair) for node, pair in self._pairs.values()]
        sizes = self._sizes()
        norms = {name: self._batch_norm_after(node) for name, node in self._nodes.items()}
        return Traced(
            network=self._network,
            graph=self._graph,
            layers=tuple(self._layers.values()),
            all_pairs=tuple(pairs),
            batch_norms={name: norm for name, norm in norms.items() if norm},
            output=output,
            parameters=sum(parameter.numel() for parameter in self._network.parameters()),
            values=(sum(sizes), max(sizes, default=0)),
            tied=self._supports.tied(),
            recorded=self._recorded,
            nodes={name: node.name for name, node in self._nodes.items()},
            dims=self._dims,
            supports=self._supports,
            columns=self._columns,
        )

    def _sizes(self) -> list[int]:
        """Return the numbers of entries of all values of the graph, for one image."""
        nodes = [node for node in self._graph.nodes if node.op != "get_attr"]
        return [prod(_shape(n)) // 2 for n in nodes if isinstance(_shape(n), tuple)]

    def _batch_norm_after(self, node: torch.fx.Node) -> str | None:
        """Return the name of the affine batch norm that alone reads a layer's output, or None."""
        users = list(node.users)
        if len(users) != 1 or operation(users[0]) != "batch_norm":
            return None
        scale = users[0].args[1]
        named = isinstance(scale, torch.fx.Node) and str(scale.target).endswith(".weight")
        return str(scale.target).removesuffix(".weight") if named else None  # type: ignore[union-attr]

    def _called(self, node: torch.fx.Node) -> Any:
        def given(each: Any) -> Any:
            return torch.fx.node.map_arg(each, self._values.__getitem__)

        args, kwargs = given(node.args), given(node.kwargs)
        values = [each for each in map(self._values.get, node.all_input_nodes) if values_in(each)]
        weight = weight_argument(node)
        if weight is not None and not values_in(self._values[weight]):
            use = self._weights.of(node, weight)
            if use:
                return self._through_layer(node, use, args, kwargs)
        if not values:
            return node.meta["constant"]
        if operation(node) == "getitem":
            return args[0][args[1]]
        if not hasattr(node.target, "_schema") or _shape(node) is None:
            return self._lost(node, values)
        found = self._through(node, args, kwargs, values)
        if node.target._schema.is_mutable:
            self._change(node, found)
        return found

    def _through(self, node: torch.fx.Node, args: Any, kwargs: Any, values: list[Any]) -> Any:
        name, shapes = operation(node), _shape(node)
        try:
            if is_move(name):
                return moved(name, node.target, args, kwargs)  # type: ignore[arg-type]
            named = arguments(node, args, kwargs)
            if (
                is_sum(name)
                and isinstance(named["self"], Value)
                and isinstance(named["other"], Value)
            ):
                self._note_shortcut(named["self"], named["other"])
            return result(self._supports, name, named, shapes, lambda: self._reason(node, values))
        # An operation that refuses numbers for its values has no rule either: whoever reads it gets
        # no pair, and this operation as the reason.
        except (LostError, RuntimeError, TypeError, NotImplementedError):
            return self._lost(node, values)

    def _reason(self, node: torch.fx.Node, values: Sequence[Any]) -> str:
        numbers = {n for value in values_in(values) for n in distinct(value.numbers)}
        named = self._supports.layers(numbers)
        return f"reads the output of {operation(node)} on {_listed(named) or 'the input'}"

    def _lost(self, node: torch.fx.Node, values: Sequence[Any]) -> Any:
        """Return the value of an operation that is not followed."""
        read = values_in(values)
        numbers = {n for value in read for n in distinct(value.numbers)}
        number = FROM_INPUT
        if max(numbers) > FROM_INPUT or self._weights.has_any(node):
            filters = frozenset[int]().union(*map(self._supports.reach, numbers))
            layers = self._supports.layers(numbers)
            last = max(layers, key=self._supports.depth_of, default="")
            number = self._supports.lost(self._reason(node, values), filters, last)
        shapes = _shape(node)
        sources = frozenset[str]().union(*(value.sources for value in read))
        if shapes is None:
            return None
        lost = []
        found = shapes if isinstance(shapes, list) else [shapes]
        for shape, by_image in zip(found, node.meta.get("by image", [False]), strict=True):
            numbers_of = torch.full((), number, dtype=torch.int32).expand(shape)
            images = (
                input_value(shape).images if by_image else numbers_of.new_full((), 3).expand(shape)
            )
            lost.append(Value(numbers_of, images, sources))
        return lost if isinstance(shapes, list) else lost[0]

    def _change(self, node: torch.fx.Node, found: Any) -> None:
        """Note what an operation in place does to other views of the value that it changes."""
        changed: Any = node.args[0]
        if _same(self._values[changed], found):
            return
        self._values[changed] = found
        root = changed
        while _may_be_view(root):
            root = root.args[0]
        waiting = [root]
        while waiting:
            base = waiting.pop()
            if base not in (changed, node):
                self._values[base] = self._lost(base, [self._values[base], found])
            views = (user for user in base.users if user in self._values and _may_be_view(user))
            waiting += [user for user in views if user.args[0] is base]

    def _through_layer(self, node: torch.fx.Node, use: Use, args: Any, kwargs: Any) -> Any:
        named, name, shape = arguments(node, args, kwargs), use.layer, _shape(node)
        read = named[read_argument(node)]
        if not isinstance(read, Value):
            self._layers[name] = Layer(name, use.weights, None, use.unusable or "reads a constant")
            return node.meta["constant"]
        sizes = tuple(self._values[weight_argument(node)].shape)  # type: ignore[index]
        # Convolutions read and return (..., channels, *space), other layers (..., features).
        channel = 1 - len(sizes) if "conv" in operation(node) else -1
        own = self._supports.new_filters(
            name, shape[channel], self._supports.depth(read.numbers) + 1
        )
        self._nodes[name], self._dims[name] = node, channel
        looked_up = operation(node) == "embedding"
        if use.unusable and use.unusable != EMBEDDING:
            lost = self._supports.lost(f"reads {name}, which {use.unusable}", layer=name)
            own = torch.tensor([lost], dtype=torch.int32)
        images = read.images.unsqueeze(-1)
        if not looked_up:
            images = merged_images(read.images, range(channel, 0))
        numbers = own.view(-1, *(1 for _ in range(-1 - channel)))
        value = Value(numbers.expand(shape), images.expand(shape), read.sources | {name})
        if name in self._layers:  # used before
            return value
        columns = [] if looked_up else self._columns_of(read, channel)
        groups = int(named.get("groups", 1))
        reason = use.unusable
        if not reason and 1 < groups == len(columns):
            reason = "depthwise: each of its filters reads one channel"
        elif not reason and groups > 1 and is_transposed_convolution(node):
            reason = "is a transposed convolution in groups"
        reason = reason or self._why_none(columns)
        self._layers[name] = Layer(name, use.weights, None, reason)
        if reason in (None, READS_INPUT):
            self._filters[name] = own.tolist()
            self._add_pair(node, use, read, columns, groups, sizes[2:])
        return value

    def _columns_of(self, read: Value, channel: int) -> list[int]:
        """Return the support of each channel that a layer reads."""
        dims = len(read.shape)
        others = [dim for dim in range(dims) if dim != dims + channel]

        def reason() -> str:
            return f"mixes the filters of {_listed(self._supports.layers(distinct(read.numbers)))}"

        by_channel = mixed(self._supports, read, others, reason)
        found: list[int] = by_channel.numbers.flatten().tolist()
        return found

    def _why_none(self, columns: Sequence[int]) -> str | None:
        """Return why columns of these numbers read no single filters; None if they do."""
        different = sorted(set(columns))
        if different == [CONSTANT]:
            return "reads a constant"
        if different[-1] == FROM_INPUT:
            return READS_INPUT
        lost = [each for each in different if self._supports[each].lost]
        if lost:
            return self._supports[lost[0]].lost
        if different[0] <= FROM_INPUT:
            beside = "the input" if FROM_INPUT in different else "constants"
            return f"reads {beside} beside {_listed(self._supports.layers(different))}"
        return None

    def _add_pair(
        self,
        node: torch.fx.Node,
        use: Use,
        read: Value,
        columns: list[int],
        groups: int,
        kernel: tuple[int, ...],
    ) -> None:
        name = use.layer
        parent_node = next(each for each in node.all_input_nodes if values_in(self._values[each]))
        reads_input = max(columns) == FROM_INPUT
        if reads_input:
            classes, parent, channels = list(range(len(columns))), INPUT, tuple(range(len(columns)))
            shape = [1] * len(read.shape)
            shape[self._dims[name]] = len(columns)
            labels = torch.arange(len(columns)).view(shape).expand(read.shape)
            recorded = record(parent_node.name, read, labels, len(columns))
        else:
            classes = list(dict.fromkeys(columns))  # in the order of the channels
            place = {number: at for at, number in enumerate(classes)}
            channels = tuple(place[number] for number in columns)
            names = dict.fromkeys(self._supports[number].layer for number in classes)
            parent = _joined_names(list(names))
            recorded = record(parent_node.name, read, places(read.numbers, classes), len(classes))
        if recorded is None:
            self._layers[name] = replace(self._layers[name], reason=_NOT_BY_IMAGE)
            return
        if not reads_input:
            self._layers[name] = replace(self._layers[name], parent=parent)
        key = self._keep(recorded, name)
        self._columns[name] = columns
        self._pairs[name] = (
            node,
            LayerPair(
                parent=parent,
                child=name,
                weight=use.parameter,
                parent_node=key,
                child_node=node.name,
                parent_filters=len(classes),
                child_filters=len(self._filters[name]),
                groups=groups,
                channels=channels,
                kernel=kernel,
                transposed=use.transposed,
                heads=None if reads_input else self._supports.heads(classes),
            ),
        )

    def _with_child(self, node: torch.fx.Node, pair: LayerPair) -> LayerPair:
        """Add the node of the child's activation, which is known after the whole graph is."""
        own = self._filters[pair.child]
        activation = node
        while True:
            users = list(node.users)
            if len(users) != 1 or not isinstance(self._made.get(users[0]), Value):
                break
            node = users[0]
            if operation(node) in NORMS_AND_ACTIVATIONS and _follows(self._made[node], own):
                activation = node
            elif operation(node) not in SAME:
                break
        value = self._made[activation]
        recorded = record(activation.name, value, places(value.numbers, own), len(own))
        assert recorded
        return replace(pair, child_node=self._keep(recorded, pair.child))

    def _keep(self, recorded: Recorded, child: str) -> str:
        """Return the key of a value that the scores of a child are estimated from."""
        key = recorded.node
        if key in self._recorded and not self._recorded[key].equals(recorded):
            key = f"{key}.{child}"
        self._recorded[key] = recorded
        return key

    def _note_shortcut(self, one: Value, other: Value) -> None:
        shallow, deep = sorted((one, other), key=lambda v: self._supports.depth(v.numbers))
        if self._supports.depth(shallow.numbers) < self._supports.depth(deep.numbers):
            self._shortcuts |= shallow.sources - deep.sources


def _follows(value: Value, own: Sequence[int]) -> bool:
    return distinct(value.numbers) == sorted(own)


def _may_be_view(node: torch.fx.Node) -> bool:
    name = operation(node)
    in_place = hasattr(node.target, "_schema") and node.target._schema.is_mutable
    return in_place or is_move(name) or name in SAME or name == "getitem"


def _same(one: Any, other: Any) -> bool:
    return (
        isinstance(one, Value)
        and isinstance(other, Value)
        and one.shape == other.shape
        and torch.equal(one.numbers, other.numbers)
    )


def _shape(node: torch.fx.Node) -> Any:
    """Return the shape of a node's value, for two images; a list for several tensors."""
    return node.meta.get("shape")


def _joined_names(names: Sequence[str]) -> str:
    return "+".join(_first_names(names, "_others"))


def _listed(names: Sequence[str]) -> str:
    names = _first_names(names, " others")
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _first_names(names: Sequence[str], rest: str) -> Sequence[str]:
    return [*names[:2], f"{len(names) - 2}{rest}"] if len(names) > 3 else names
