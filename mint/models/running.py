"""Run a network and see each operation that it applies.

PyTorch's dispatcher hands over every ATen operation before it takes it apart, whatever the Python
code around it. So there is nothing in a network's code that could not be read.
"""

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from mint.errors import InputError

OTHERS = "applies other operations to other images, or to another number of them"


def refused(network: nn.Module, problem: str) -> InputError:
    """Return the error of a network whose code has a problem."""
    return InputError(f"{type(network).__name__} cannot be traced: its code {problem}")


def logits(output: Any) -> Any:
    """Return the logits where a network returns them among others, as those of Hugging Face do."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


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


def record(network: nn.Module, inputs: Tensor) -> tuple[torch.fx.Graph, Any]:
    """Return the operations of a network on inputs, in evaluation mode, and its output.

    The meta of each node has the shape of its value, or a list of shapes, as "shape"; and as
    "constant" the value itself, if it does not follow from the inputs.

    Args:
        network: unchanged.
        inputs: (n, ...) on the network's device.

    Raises:
        InputError: the network's code reads a number that follows from the inputs.
    """
    recorder = _Recorder(network, inputs)
    return recorder.graph, _run(network, inputs, recorder)


class _Operations(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would import torch._dynamo, for seconds


class Rerun(_Operations):
    """Runs the network of a graph on other inputs; subclasses see its operations."""

    def __init__(self, graph: torch.fx.Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = nn.Module()
        self._nodes = graph.nodes
        self._left: Iterator[torch.fx.Node] = iter(())

    def run(self, network: nn.Module, inputs: Tensor) -> Any:
        """Return the network's output for inputs (n, ...), in evaluation mode.

        Raises:
            InputError: it applies other operations to them.
        """
        self._network = network
        first, *others = self._nodes
        self._left = (node for node in others if hasattr(node.target, "_schema"))
        self.seen(first, inputs)
        output = _run(network, inputs, self)
        if next(self._left, None):
            raise refused(network, OTHERS)
        return output

    def apply(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the value of an operation."""
        value = node.target(*args, **kwargs)  # type: ignore[operator]
        self.seen(node, value)
        parts = [user for user in node.users if user.target is operator.getitem]
        if isinstance(value, list | tuple) and len(value) != len(parts):
            raise refused(self._network, OTHERS)
        for part in parts:
            self.seen(part, value[part.args[1]])
        return value

    def seen(self, node: torch.fx.Node, value: Any) -> None:
        """Take the value of a node, before a later operation in place changes it."""

    def detached(self, tensor: Tensor, value: Tensor) -> None:
        """Take a tensor that shares the entries of another: the graph does not tell them apart."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _DETACH:
            value = func(*args)
            self.detached(args[0], value)
            return value
        node = next(self._left, None)
        if node is None or node.target is not func:
            raise refused(self._network, OTHERS)
        return self.apply(node, args, dict(kwargs or {}))


# PyTorch itself calls them for new tensors, or does not: by the number of references to a tensor.
_DETACH = {torch.ops.aten.detach.default, torch.ops.aten.detach_.default}
# They read the shape of a tensor alone.
_NEW = {
    getattr(torch.ops.aten, name).default
    for name in (
        *("new_zeros", "new_ones", "new_full", "new_empty"),
        *("zeros_like", "ones_like", "full_like", "empty_like"),
    )
}


class _Recorder(_Operations):
    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = torch.fx.Graph()
        self._network = network
        self._nodes = WeakTensorKeyDictionary()
        images = self.graph.placeholder("images")
        self._following = {images}
        self._names = WeakTensorKeyDictionary()
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            self._names[tensor] = name
        self._keep(images, inputs)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        if func in _DETACH:
            self._nodes[value] = self._node(args[0])
            return value
        read, named = tree_map_only(
            Tensor, (lambda _: None) if func in _NEW else self._node, (args, dict(kwargs or {}))
        )
        name = func._schema.name.rpartition("::")[2]
        node = self.graph.create_node("call_function", func, read, named, name)
        self._keep(node, value)
        number = isinstance(value, int | float | complex) and not isinstance(value, bool)
        if node in self._following and number:  # a bool only chooses operations: see Rerun
            problem = f"reads a number that depends on the images, by {name}"
            raise refused(self._network, problem)
        if isinstance(value, list | tuple):
            for index, each in enumerate(value):
                self._keep(self.graph.call_function(operator.getitem, (node, index)), each)
        return value

    def _node(self, tensor: Tensor) -> torch.fx.Node:
        if tensor not in self._nodes:
            name = self._names.get(tensor, "constant")
            self._keep(self.graph.create_node("get_attr", name), tensor)
        return self._nodes[tensor]  # type: ignore[no-any-return]

    def _keep(self, node: torch.fx.Node, value: Any) -> None:
        if self._following.isdisjoint([node, *node.all_input_nodes]):
            node.meta["constant"] = value
        else:
            self._following.add(node)
        if isinstance(value, Tensor):
            self._nodes[value] = node
            node.meta["shape"] = tuple(value.shape)
        elif isinstance(value, list | tuple):
            node.meta["shape"] = [tuple(getattr(each, "shape", ())) for each in value]


def _run(network: nn.Module, inputs: Tensor, mode: TorchDispatchMode) -> Any:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a layer of a transformer
    try:
        # Autograd would take operations apart first; inference_mode does not, but training cannot
        # use tensors that the network keeps from inside it.
        with evaluating(network), torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), mode:
            return logits(network(inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
