"""Groups of channels that layers share, and the channels of them that are unneeded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

from mint.pruning.flops import WEIGHT_LAYERS

# Operations that act on every channel separately, or concatenate channels.
_PER_CHANNEL = {
    *(OPTYPE.CONV, OPTYPE.LINEAR, OPTYPE.BN, OPTYPE.PRELU, OPTYPE.DEPTHWISE_CONV),
    *(OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.CONCAT),
}


@dataclass(frozen=True)
class _Side:
    """The rows or columns of a layer's weight that belong to the channels of a group."""

    layer: nn.modules.conv._ConvNd | nn.Linear  # produces the channels (rows) or reads (columns)
    index: Tensor  # (entries,) rows or columns
    channel: Tensor  # (entries,) channel of the group that each of them belongs to


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed from all the layers that share them."""

    root: nn.Module  # a layer that produces all of the channels
    name: str  # module name of the root
    channels: int  # number of channels
    producers: tuple[_Side, ...]
    readers: tuple[_Side, ...]


def dependency_graph(network: nn.Module, example: Tensor) -> torch_pruning.DependencyGraph:
    # Without the addition, torch-pruning would not see that a layer's output is the network's.
    return torch_pruning.DependencyGraph().build_dependency(
        network, example, output_transform=lambda output: output + 0, verbose=False
    )


def channel_groups(dependencies: torch_pruning.DependencyGraph) -> list[ChannelGroup]:
    """Return the groups whose channels can be removed if they are unneeded."""
    names = {module: name for name, module in dependencies.model.named_modules()}
    groups = []
    for members in dependencies.get_all_groups():
        producers: list[_Side] = []
        readers: list[_Side] = []
        for member in members:
            target = member.dep.target
            if not isinstance(target.module, WEIGHT_LAYERS) or target.type == OPTYPE.DEPTHWISE_CONV:
                continue
            index, channel = torch.tensor(member.idxs), torch.tensor(member.root_idxs)
            produces = dependencies.is_out_channel_pruning_fn(member.dep.handler)
            (producers if produces else readers).append(_Side(target.module, index, channel))
        supported = (
            {member.dep.target.type for member in members} <= _PER_CHANNEL
            and not any(_regroups(side.layer) for side in (*producers, *readers))
            and all(
                sorted(side.index.tolist()) == list(range(len(side.layer.weight)))
                for side in producers
            )
        )
        if supported:
            root = members[0].dep.target.module
            channels = dependencies.get_out_channels(root)
            groups.append(
                ChannelGroup(root, names[root], channels, tuple(producers), tuple(readers))
            )
    return groups


def _regroups(layer: nn.Module) -> bool:
    """Return whether rows and columns of the weight are not output and input channels."""
    return getattr(layer, "groups", 1) != 1 or getattr(layer, "transposed", False)


@torch.no_grad()
def absorb_unneeded(
    network: nn.Module, groups: Sequence[ChannelGroup], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Set the weights of unneeded channels to zero, and move their output to readers' biases.

    This can make other channels unneeded, so it repeats. It never changes what the remaining
    weights read, so constants are measured once.

    Returns:
        For every group (channels,) booleans, True for unneeded channels.
    """
    constants = _constant_inputs(network, groups, inputs)
    removed = [torch.zeros(group.channels, dtype=torch.bool) for group in groups]
    changed = True
    while changed:
        changed = False
        for group, before in zip(groups, removed, strict=True):
            now = ~_needed(group, constants) & ~before
            if (before | now).all():
                now[now.nonzero()[:1]] = False
            if now.any():
                _absorb(group, now, constants)
                before |= now
                changed = True
    return removed


def _needed(group: ChannelGroup, constants: Mapping[nn.Module, Tensor]) -> Tensor:
    """Return (channels,) booleans: weights read the channel, and biases cannot replace it."""
    fed = torch.zeros(group.channels, dtype=torch.bool)
    for side in group.producers:
        fed[side.channel[_any_weight(side.layer, 0)[side.index]]] = True
    needed = torch.zeros(group.channels, dtype=torch.bool)
    for side in group.readers:
        read = _any_weight(side.layer, 1)[side.index]
        constant = constants[side.layer]
        absorbable = constant == 0 if _pads(side.layer) else ~constant.isnan()
        needed[side.channel[read & (fed[side.channel] | ~absorbable[side.index])]] = True
    return needed


def _absorb(group: ChannelGroup, removed: Tensor, constants: Mapping[nn.Module, Tensor]) -> None:
    for side in group.readers:
        weight, bias = side.layer.weight, side.layer.bias
        columns = side.index[removed[side.channel]]
        kernels = weight[:, columns].reshape(len(weight), len(columns), -1).double()
        constant = kernels.sum(2) @ constants[side.layer][columns].nan_to_num().double()
        if constant.any():
            before = bias if bias is not None else torch.zeros_like(constant)
            side.layer.bias = nn.Parameter((before + constant).to(weight.dtype))
        weight[:, columns] = 0
    for side in group.producers:
        side.layer.weight[side.index[removed[side.channel]]] = 0


def _any_weight(layer: nn.modules.conv._ConvNd | nn.Linear, dim: int) -> Tensor:
    return (layer.weight != 0).movedim(dim, 0).flatten(1).any(1)


def _pads(layer: nn.modules.conv._ConvNd | nn.Linear) -> bool:
    """Return whether padding makes a constant input vary at the edges."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    padding: str | tuple[int, ...] = layer.padding
    return padding != "valid" and any(side != 0 for side in padding)


def _constant_inputs(
    network: nn.Module, groups: Sequence[ChannelGroup], inputs: Sequence[Tensor]
) -> dict[nn.Module, Tensor]:
    """Return for every reader (columns,) the constant that each column reads; NaN if it varies."""
    least: dict[nn.Module, Tensor] = {}
    greatest: dict[nn.Module, Tensor] = {}

    def observe(layer: nn.Module, read: tuple[Tensor]) -> None:
        columns = read[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        low, high = columns.amin(1), columns.amax(1)
        least[layer] = low.minimum(least.get(layer, low))
        greatest[layer] = high.maximum(greatest.get(layer, high))

    readers = {side.layer for group in groups for side in group.readers}
    hooks = [layer.register_forward_pre_hook(observe) for layer in readers]
    for each in inputs:
        network(each)
    for hook in hooks:
        hook.remove()
    constants = {}
    for layer, low in least.items():
        value = (low + greatest[layer]) / 2
        # Vectorized code may round the last elements of a map differently.
        constant = greatest[layer] - low <= 1e-6 * value.abs()
        constants[layer] = torch.where(constant, value, torch.nan)
    return constants
