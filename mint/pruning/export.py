"""Export: a pruned network as a smaller plain PyTorch module, in files that need mint no more."""

import ast
import copy
import importlib.util
import io
import json
import re
import statistics
import tempfile
import textwrap
import warnings
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
import torch_pruning
from torch import Tensor, fx, nn
from torch.utils import benchmark
from torch_pruning.ops import OPTYPE

from mint.errors import InputError, first_line
from mint.pruning.flops import WEIGHT_LAYERS, multiply_adds
from mint.pruning.masks import Masks

# Of the largest output, how far an output may be off.
_TOLERANCE = 1e-5

# What passes every channel on by itself, or side by side with others. A layer norm, say, does not.
_PASS_CHANNELS = (
    OPTYPE.CONV,
    OPTYPE.LINEAR,
    OPTYPE.BN,
    OPTYPE.PRELU,
    OPTYPE.DEPTHWISE_CONV,
    OPTYPE.ELEMENTWISE,
    OPTYPE.RESHAPE,
    OPTYPE.CONCAT,
)

_PASSES = 21  # of which the latency is the median


@dataclass(frozen=True)
class Exported:
    """What an export came to; dense is the network without its masks.

    Attributes:
        input_shape: of the example, its batch first.
        dense_weights: of convolutions and linear layers.
        kept_weights: those of them that the masks keep.
        exported_weights: of the exported network's convolutions and linear layers.
        dense_multiply_adds: of one image.
        exported_multiply_adds: likewise.
        max_difference: the largest between an output of the exported network and of the masked
            one.
        dense_ms: latency, the median time for the example (milliseconds).
        exported_ms: likewise; the passes of the two took turns.
    """

    input_shape: tuple[int, ...]
    dense_weights: int
    kept_weights: int
    exported_weights: int
    dense_multiply_adds: int
    exported_multiply_adds: int
    max_difference: float
    dense_ms: float
    exported_ms: float


@dataclass(frozen=True)
class _End:
    """Where channels of a group start or end: rows or columns of a layer's weight.

    Attributes:
        layer: a convolution or linear layer.
        index: (entries,) rows of what puts the channels out, columns of what reads them.
        channel: (entries,) the channel of the group that each belongs to.
    """

    layer: nn.modules.conv._ConvNd | nn.Linear
    index: Tensor
    channel: Tensor

    @property
    def weight(self) -> Tensor:
        return self.layer.weight


@dataclass(frozen=True)
class _Group:
    """Channels that can only go together in all the layers that share them.

    Attributes:
        root: a layer that puts out all of them.
        name: of the root.
        channels: how many there are.
        sources: what puts them out.
        readers: what reads them.
    """

    root: nn.Module
    name: str
    channels: int
    sources: tuple[_End, ...]
    readers: tuple[_End, ...]


@dataclass(frozen=True)
class _Range:
    """Of every column that a layer reads, the least and greatest value that came in."""

    least: Tensor
    greatest: Tensor

    @property
    def value(self) -> Tensor:
        return (self.least + self.greatest) / 2

    @property
    def constant(self) -> Tensor:
        # Vectorized code may round the last elements of a map in another way than the others.
        return self.greatest - self.least <= 1e-6 * self.value.abs()


def export(
    network: nn.Module, masks: Masks, example: Tensor, folder: Path, *, onnx: bool
) -> Exported:
    """Write the pruned network as a smaller one, in a folder that is there whole or not at all.

    The folder gets network.py, plain PyTorch code whose build() returns the network;
    weights.safetensors, which it loads; export.json, an Exported; and, if asked for, network.onnx
    for any batch size.

    Args:
        network: stays as it is.
        masks: of its weights.
        example: (1, ...) an input, on the network's device.
        folder: to be made; it may be there if it is empty.
        onnx: whether to write ONNX too.

    Raises:
        InputError: the folder is not empty or cannot be written, the masks are of another
            network, the network cannot be written as code, or the packages for ONNX are not
            installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder}: is there already; name one that is new or empty")
    if onnx and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise InputError('ONNX needs packages: pip install "mint-pruning[onnx]"')
    small = shrink(network, masks, example)
    code = _code(small)
    # Of tensors that share memory each is written.
    tensors = {name: tensor.contiguous().clone() for name, tensor in _tensors(small).items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as partial:
            whole = Path(partial) / "export"
            whole.mkdir()
            (whole / "network.py").write_text(code, encoding="utf-8")
            safetensors.torch.save_file(tensors, whole / "weights.safetensors")
            built = _build(whole / "network.py")
            if onnx:
                _write_onnx(built, example.cpu(), whole / "network.onnx")
            exported = _describe(network, masks, example, built)
            (whole / "export.json").write_text(
                json.dumps(asdict(exported), indent=2) + "\n", encoding="utf-8"
            )
            whole.rename(folder)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be written: {error}") from error
    return exported


def shrink(network: nn.Module, masks: Masks, example: Tensor) -> fx.GraphModule:
    """Return the masked network without the filters that it does not need.

    It is in evaluation mode and on the CPU, whose arithmetic is exact enough to tell whether the
    outputs are the same.

    A filter goes if no kept weight reads it. So does one that no kept weight feeds, and whose
    output is therefore constant, where its readers' biases can take its part: it is zero, or they
    are linear layers or convolutions that do not pad. Which layers' filters go together is
    torch-pruning's dependency graph (Fang et al., DepGraph, CVPR 2023). Where it does not
    understand a network, as channels that are padded, and removal would change the outputs, the
    filters stay. Inputs, outputs and the last filter of a layer always do.

    Args:
        network: stays as it is.
        masks: of its weights.
        example: (1, ...) an input, on the network's device.

    Raises:
        InputError: the masks are of another network, or the network cannot be traced by torch.fx
            to code that computes the same.
    """
    masked = masked_copy(network, masks).cpu()
    inputs = _inputs_like(example)
    expected = _outputs(masked, inputs)
    traced = _traced(masked)
    if not _agrees(_outputs(traced, inputs), expected):
        raise InputError(
            f"{type(network).__name__}: what torch.fx traces of it does not compute the same"
        )

    smaller = traced

    def trusted(names: list[str], before: list[str]) -> list[str]:
        """Return the groups that can go with those before them; halves tell which cannot."""
        nonlocal smaller
        attempt = _attempt(traced, inputs, {*before, *names}, expected)
        if attempt is not None:
            smaller = attempt
            return names
        if len(names) <= 1:
            return []
        half = len(names) // 2
        first = trusted(names[:half], before)
        return first + trusted(names[half:], before + first)

    trusted(_group_names(traced, inputs[0]), [])
    return smaller


def masked_copy(network: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy of the network in evaluation mode whose weights are zero where masked.

    Raises:
        InputError: the masks are of another network.
    """
    masks.check_fit(network)
    masked = copy.deepcopy(network).eval()
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for name, kept in masks.tensors().items():
            parameters[name].mul_(kept.to(parameters[name].device))
    return masked


def _traced(network: nn.Module) -> fx.GraphModule:
    try:
        traced = fx.symbolic_trace(network)
    except Exception as error:  # the user's own code runs in it
        reason = first_line(error)
        raise InputError(
            f"{type(network).__name__}: cannot be traced by torch.fx: {reason}"
        ) from error
    traced.delete_all_unused_submodules()
    return traced.requires_grad_(True)  # torch-pruning follows the gradients


def _attempt(
    traced: fx.GraphModule, inputs: Sequence[Tensor], names: Collection[str], expected: Tensor
) -> fx.GraphModule | None:
    """Return a copy without the unneeded channels of these groups; None if it is not the same."""
    try:
        with redirect_stderr(io.StringIO()):  # where torch.fx would print a traceback
            smaller = _without_unneeded(traced, inputs, names)
            return smaller if _agrees(_outputs(smaller, inputs), expected) else None
    except Exception:  # what a wrong graph brings about can be anything
        return None


def _group_names(traced: fx.GraphModule, example: Tensor) -> list[str]:
    try:
        return [group.name for group in _groups(_dependencies(copy.deepcopy(traced), example))]
    except Exception:  # torch-pruning does not get through every network
        return []


def _without_unneeded(
    traced: fx.GraphModule, inputs: Sequence[Tensor], names: Collection[str]
) -> fx.GraphModule:
    smaller = copy.deepcopy(traced)
    dependencies = _dependencies(smaller, inputs[0])
    groups = [group for group in _groups(dependencies) if group.name in names]
    for group, gone in zip(groups, _unneeded(smaller, groups, inputs), strict=True):
        channels = gone.nonzero().flatten().tolist()
        if channels:
            remove = dependencies.get_pruner_of_module(group.root).prune_out_channels
            dependencies.get_pruning_group(group.root, remove, channels).prune()
    return smaller


def _dependencies(network: nn.Module, example: Tensor) -> torch_pruning.DependencyGraph:
    # An output that is a layer's own would not be seen to be one.
    return torch_pruning.DependencyGraph().build_dependency(
        network, example, output_transform=lambda output: output + 0, verbose=False
    )


def _groups(dependencies: torch_pruning.DependencyGraph) -> list[_Group]:
    """Return the groups of channels that may go, if they are not needed."""
    names = {module: name for name, module in dependencies.model.named_modules()}
    groups = []
    for members in dependencies.get_all_groups():
        sources: list[_End] = []
        readers: list[_End] = []
        for member in members:
            layer = member.dep.target.module
            depthwise = member.dep.target.type == OPTYPE.DEPTHWISE_CONV
            if not isinstance(layer, WEIGHT_LAYERS) or depthwise:
                continue
            end = _End(layer, torch.tensor(member.idxs), torch.tensor(member.root_idxs))
            out = dependencies.is_out_channel_pruning_fn(member.dep.handler)
            (sources if out else readers).append(end)
        root = members[0].dep.target.module
        group = _Group(
            root,
            names[root],
            dependencies.get_out_channels(root),
            tuple(sources),
            tuple(readers),
        )
        kinds = {member.dep.target.type for member in members}
        if kinds <= set(_PASS_CHANNELS) and _is_whole(group):
            groups.append(group)
    return groups


def _is_whole(group: _Group) -> bool:
    """Tell whether channels correspond one to one, in layers whose rows and columns they are."""
    plain = all(
        getattr(end.layer, "groups", 1) == 1 and not getattr(end.layer, "transposed", False)
        for end in (*group.sources, *group.readers)
    )
    return plain and all(
        sorted(end.index.tolist()) == list(range(len(end.weight))) for end in group.sources
    )


@torch.no_grad()
def _unneeded(
    network: nn.Module, groups: Sequence[_Group], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Find the channels of every group that may go, and take them out of the function computed.

    The weights that feed or read such a channel become zero and its part goes to the readers'
    biases, so other channels may follow until no more do. None of this changes what is read by
    the weights that are left, so the ranges are measured once.

    Returns:
        (channels,) booleans for every group, true for those that may go.
    """
    ranges = _ranges(network, groups, inputs)
    gone = [torch.zeros(group.channels, dtype=torch.bool) for group in groups]
    settled = False
    while not settled:
        settled = True
        for group, out in zip(groups, gone, strict=True):
            now = _not_needed(group, ranges) & ~out
            if (out | now).all():
                now[now.nonzero()[:1]] = False
            if now.any():
                _take_out(group, now, ranges)
                out |= now
                settled = False
    return gone


def _not_needed(group: _Group, ranges: dict[nn.Module, _Range]) -> Tensor:
    """Return (channels,) booleans: no weight reads the channel, or biases can take its part."""
    fed = torch.zeros(group.channels, dtype=torch.bool)
    for end in group.sources:
        fed[end.channel[_any_weight(end.weight, 0)[end.index]]] = True
    needed = torch.zeros(group.channels, dtype=torch.bool)
    for end in group.readers:
        read = _any_weight(end.weight, 1)[end.index]
        seen = ranges[end.layer]
        part = seen.constant & (seen.value == 0 if _pads(end.layer) else True)
        needed[end.channel[read & (fed[end.channel] | ~part[end.index])]] = True
    return ~needed


def _take_out(group: _Group, gone: Tensor, ranges: dict[nn.Module, _Range]) -> None:
    for end in group.readers:
        columns = end.index[gone[end.channel]]
        kernels = end.weight[:, columns].reshape(len(end.weight), len(columns), -1).double()
        part = kernels.sum(2) @ ranges[end.layer].value[columns].double()
        if part.any():
            bias = end.layer.bias if end.layer.bias is not None else torch.zeros_like(part)
            end.layer.bias = nn.Parameter((bias + part).to(end.weight.dtype))
        end.weight[:, columns] = 0
    for end in group.sources:
        end.weight[end.index[gone[end.channel]]] = 0


def _any_weight(weight: Tensor, dim: int) -> Tensor:
    return (weight != 0).movedim(dim, 0).flatten(1).any(1)


def _pads(layer: nn.modules.conv._ConvNd | nn.Linear) -> bool:
    """Tell whether a constant input is none at the edges of what the layer computes."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    padding: str | tuple[int, ...] = layer.padding
    return padding != "valid" and any(side != 0 for side in padding)


def _ranges(
    network: nn.Module, groups: Sequence[_Group], inputs: Sequence[Tensor]
) -> dict[nn.Module, _Range]:
    ranges: dict[nn.Module, _Range] = {}

    def look(layer: nn.Module, read: tuple[Tensor]) -> None:
        columns = read[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        least, greatest = columns.amin(1), columns.amax(1)
        if layer in ranges:
            least = least.minimum(ranges[layer].least)
            greatest = greatest.maximum(ranges[layer].greatest)
        ranges[layer] = _Range(least, greatest)

    readers = {end.layer for group in groups for end in group.readers}
    hooks = [layer.register_forward_pre_hook(look) for layer in readers]
    _outputs(network, inputs)
    for hook in hooks:
        hook.remove()
    return ranges


def _inputs_like(example: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(example.shape, generator=generator) for _ in range(3)]
    return [example.cpu(), *(noise.to(example.dtype) for noise in drawn)]


def _outputs(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        outputs = [network(each) for each in inputs]
    if not all(isinstance(output, Tensor) for output in outputs):
        raise InputError(
            f"{type(network).__name__}: returns {type(outputs[0]).__name__}; only a network that "
            "returns one tensor can be exported"
        )
    return torch.cat(outputs)


def _agrees(outputs: Tensor, expected: Tensor) -> bool:
    # A comparison with NaN is false.
    return outputs.shape == expected.shape and bool(
        (outputs - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _describe(network: nn.Module, masks: Masks, example: Tensor, small: nn.Module) -> Exported:
    dense = masked_copy(network, Masks({}))
    inputs = _inputs_like(example)
    masked = masked_copy(network, masks).cpu()
    difference = _outputs(small, inputs) - _outputs(masked, inputs)
    weights = _weights(dense)
    dense_ms, exported_ms = _latencies((dense, small.to(example.device)), example)
    return Exported(
        input_shape=tuple(example.shape),
        dense_weights=weights,
        kept_weights=weights - masks.pruned,
        exported_weights=_weights(small),
        dense_multiply_adds=multiply_adds(dense, example),
        exported_multiply_adds=multiply_adds(small, example),
        max_difference=float(difference.abs().max()),
        dense_ms=dense_ms,
        exported_ms=exported_ms,
    )


def _weights(network: nn.Module) -> int:
    layers = [module for module in network.modules() if isinstance(module, WEIGHT_LAYERS)]
    return sum(layer.weight.numel() for layer in layers)


@torch.inference_mode()
def _latencies(networks: Sequence[nn.Module], example: Tensor) -> list[float]:
    """Return the networks' median times for the example in milliseconds."""
    times: list[list[float]] = [[] for _ in networks]
    for _ in range(_PASSES):
        for network, seconds in zip(networks, times, strict=True):
            start = benchmark.timer()  # waits for the card, where there is one
            network(example)
            seconds.append(benchmark.timer() - start)
    return [1000 * statistics.median(seconds) for seconds in times]


def _tensors(network: fx.GraphModule) -> dict[str, Tensor]:
    return network.state_dict() | dict(_constants(network))


def _constants(network: fx.GraphModule) -> list[tuple[str, Tensor]]:
    """Return what the forward pass takes from the network beside its modules, by name."""
    names = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    return [(name, _attribute(network, name)) for name in sorted(names)]


def _attribute(network: nn.Module, path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(network.get_submodule(module), name)


_HEADER = '''\
"""A pruned network as plain PyTorch, written by mint export.

    from network import build
    network = build()  # with the weights of weights.safetensors; build(load=False) without
"""

from pathlib import Path

'''

_FOOTER = '''\


def build(*, load: bool = True) -> nn.Module:
    """Return the network in evaluation mode, with its weights unless load is False."""
    network = Network().eval()
    if load:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
    return network
'''


def _code(network: fx.GraphModule) -> str:
    """Return a Python module that builds the network."""
    forward = network.graph.python_code("self")
    lines = ["super().__init__()"]
    for name, child in network.named_children():
        lines += [f"self.add_module({name!r}, {_constructor(child, name)})"]
    for path, tensor in _constants(network):
        module, _, name = path.rpartition(".")
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: a {type(tensor).__name__} cannot be written as code")
        zeros = f"torch.zeros({tuple(tensor.shape)}, dtype={tensor.dtype})"
        if isinstance(tensor, nn.Parameter):
            add, zeros = "register_parameter", f"nn.Parameter({zeros})"
        else:
            add = "register_buffer"
        lines += [f"self.get_submodule({module!r}).{add}({name!r}, {zeros})"]
    init = textwrap.indent("\n".join(lines), " " * 8)
    return (
        _HEADER
        + "\n".join(sorted({"import torch", "from torch import nn", *_imports(forward)}))
        + f"\n\n\nclass Network(nn.Module):\n    def __init__(self) -> None:\n{init}\n\n"
        + textwrap.indent(forward.src.strip(), " " * 4)
        + "\n"
        + _FOOTER
    )


def _imports(forward: Any) -> list[str]:
    """Return import lines for the names that the code of a forward pass uses."""
    lines = []
    for name, value in forward.globals.items():
        if not re.search(rf"\b{name}\b", forward.src):
            continue
        home = value.__name__ if isinstance(value, ModuleType) else value.__module__
        if home.partition(".")[0] not in ("torch", "math", "builtins", "operator"):
            raise InputError(f"{home}.{name}: is no function of torch and cannot be written")
        if isinstance(value, ModuleType):
            lines.append(f"import {home}" if home == name else f"import {home} as {name}")
        else:
            lines.append(f"from {home} import {value.__name__} as {name}")
    return lines


def _constructor(module: nn.Module, name: str) -> str:
    """Return the expression that builds a module anew; containers become a ModuleDict."""
    kind = type(module)
    if kind is nn.Module or next(module.children(), None) is not None:
        children = [
            f"{key!r}: {_constructor(child, f'{name}.{key}')},"
            for key, child in module.named_children()
        ]
        return "nn.ModuleDict({\n" + textwrap.indent("\n".join(children), "    ") + "\n})"
    code = f"nn.{module!r}"
    if getattr(nn, kind.__name__, None) is not kind or not _builds(code, module):
        raise InputError(
            f"{name}: {module!r} cannot be written as code; only modules of torch.nn can, whose "
            "repr tells all their settings"
        )
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    for keyword in list(call.keywords):  # those that are the defaults say nothing
        call.keywords.remove(keyword)
        if not _builds(ast.unparse(call), module):
            call.keywords.append(keyword)
    return ast.unparse(call)


def _builds(code: str, module: nn.Module) -> bool:
    """Tell whether the code builds a module that differs in the values of its tensors only."""
    try:
        with torch.device("meta"):
            built = eval(code, {"nn": nn})  # the repr of a class of torch.nn
    except (TypeError, ValueError, NameError, SyntaxError):
        return False
    return _settings(built) == _settings(module)


def _settings(module: nn.Module) -> tuple[dict[str, object], dict[str, torch.Size]]:
    values = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    del values["training"]
    return values, {key: tensor.shape for key, tensor in module.state_dict().items()}


def _build(path: Path) -> nn.Module:
    """Return the network of a network.py that was just written, as whoever gets it would."""
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(path.read_text(encoding="utf-8"), names)  # no import, which would leave bytecode there
    network: nn.Module = names["build"]()
    return network


def _write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    batch = torch.cat([example, example])  # one image would be taken for the only batch size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its own code
        torch.onnx.export(
            network,
            (batch,),
            path,
            dynamo=True,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
