"""Groups of channels that layers share, and the removal of their unneeded channels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

WEIGHT_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
# Operations that act on every channel separately, or concatenate channels.
_PER_CHANNEL = {
    *(OPTYPE.CONV, OPTYPE.LINEAR, OPTYPE.BN, OPTYPE.PRELU, OPTYPE.DEPTHWISE_CONV),
    *(OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.CONCAT),
}


_WeightLayer = nn.modules.conv._ConvNd | nn.Linear


class _Side(NamedTuple):
    """The rows or columns of a layer's weight that belong to the channels of a group."""

    layer: _WeightLayer
    entries: Tensor  # (n,) rows or columns
    channels: Tensor  # (n,) channel of the group that each of them belongs to


class ChannelGroup(NamedTuple):
    """Channels that can only be removed from all the layers that share them."""

    name: str  # module name of a layer that produces all of the channels
    members: torch_pruning.dependency.Group
    producers: list[_Side]  # rows
    readers: list[_Side]  # columns


def channel_groups(network: nn.Module, example: Tensor) -> list[ChannelGroup]:
    """Return the groups whose channels can be removed if they are unneeded."""
    # Without the addition, torch-pruning would not see that a layer's output is the network's.
    dependencies = torch_pruning.DependencyGraph().build_dependency(
        network, example, output_transform=lambda output: output + 0, verbose=False
    )
    names = {module: name for name, module in network.named_modules()}
    groups = []
    for members in dependencies.get_all_groups():
        group = ChannelGroup(names[members[0].dep.target.module], members, [], [])
        for dependency, index, channel in ((m.dep, m.idxs, m.root_idxs) for m in members):
            target = dependency.target
            if isinstance(target.module, WEIGHT_LAYERS) and target.type != OPTYPE.DEPTHWISE_CONV:
                produces = dependencies.is_out_channel_pruning_fn(dependency.handler)
                sides = group.producers if produces else group.readers
                sides.append(_Side(target.module, torch.tensor(index), torch.tensor(channel)))
        layers = [side.layer for side in (*group.producers, *group.readers)]
        if (
            {member.dep.target.type for member in members} <= _PER_CHANNEL
            # Otherwise rows and columns of the weight are not output and input channels.
            and not any(getattr(layer, "transposed", False) for layer in layers)
            and all(getattr(layer, "groups", 1) == 1 for layer in layers)
            and all(
                len(side.entries.unique()) == len(side.layer.weight) for side in group.producers
            )
        ):
            groups.append(group)
    return groups


@torch.no_grad()
def remove_unneeded(network: nn.Module, groups: Sequence[ChannelGroup], inputs: Tensor) -> None:
    """Move the output of unneeded channels to their readers' biases, and remove the channels.

    This can make other channels unneeded, so it repeats. It never changes what the remaining
    weights read, so constants are measured once.
    """
    constants = _constant_inputs(network, groups, inputs)
    removed = [torch.zeros(len(group.members[0].idxs), dtype=torch.bool) for group in groups]
    changed = True
    while changed:
        changed = False
        for group, before in zip(groups, removed, strict=True):
            now = ~_needed(group, constants, len(before)) & ~before
            if (before | now).all():
                now[now.nonzero()[:1]] = False
            if now.any():
                _absorb(group, now, constants)
                before |= now
                changed = True
    for group, unneeded in zip(groups, removed, strict=True):
        if unneeded.any():
            group.members.prune(unneeded.nonzero().flatten().tolist())


def _needed(group: ChannelGroup, constants: Mapping[nn.Module, Tensor], channels: int) -> Tensor:
    """Return (channels,) booleans: weights read the channel, and biases cannot replace it."""
    fed, needed = torch.zeros(2, channels, dtype=torch.bool).unbind()
    for side in group.producers:
        fed[side.channels[side.layer.weight.flatten(1).any(1)[side.entries]]] = True
    for layer, index, channel in group.readers:
        read = layer.weight.movedim(1, 0).flatten(1).any(1)[index]
        constant = constants[layer][index]
        absorbable = constant == 0 if _pads(layer) else ~constant.isnan()
        needed[channel[read & (fed[channel] | ~absorbable)]] = True
    return needed


def _absorb(group: ChannelGroup, removed: Tensor, constants: Mapping[nn.Module, Tensor]) -> None:
    for layer, index, channel in group.readers:
        weight, bias = layer.weight, layer.bias
        columns = index[removed[channel]]
        kernels = weight[:, columns].reshape(len(weight), len(columns), -1).double()
        constant = kernels.sum(2) @ constants[layer][columns].nan_to_num().double()
        if constant.any():
            layer.bias = nn.Parameter((constant if bias is None else bias + constant).to(weight))
        weight[:, columns] = 0
    for layer, index, channel in group.producers:
        layer.weight[index[removed[channel]]] = 0


def _pads(layer: _WeightLayer) -> bool:
    """Return whether padding makes a constant input vary at the edges."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding == "same" or (layer.padding != "valid" and any(layer.padding))


def _constant_inputs(
    network: nn.Module, groups: Sequence[ChannelGroup], inputs: Tensor
) -> dict[nn.Module, Tensor]:
    """Return for every reader (columns,) the constant that each column reads; NaN if it varies."""
    constants: dict[nn.Module, Tensor] = {}

    def observe(layer: nn.Module, read: tuple[Tensor]) -> None:
        columns = read[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        low, high = columns.aminmax(dim=1)
        value = (low + high) / 2
        # Vectorized code may round the last elements of a map differently.
        constants[layer] = torch.where(high - low <= 1e-6 * value.abs(), value, torch.nan)

    readers = {side.layer for group in groups for side in group.readers}
    hooks = [layer.register_forward_pre_hook(observe) for layer in readers]
    network(inputs)
    for hook in hooks:
        hook.remove()
    return constants
