"""Remove the channels of a masked network that its outputs do not depend on."""

import copy
import io
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr

import torch
from torch import Tensor, fx, nn

from mint.errors import InputError, first_line
from mint.pruning.export.channels import absorb_unneeded, channel_groups, dependency_graph
from mint.pruning.masks import Masks

_TOLERANCE = 1e-5  # relative to the largest output


def shrink(network: nn.Module, masks: Masks, example: Tensor) -> fx.GraphModule:
    """Return the masked network without its unneeded filters, in evaluation mode on the CPU.

    A filter is unneeded if no kept weight reads it, or if no kept weight feeds it, so that its
    output is constant, and the biases of its readers can absorb the constant: they are linear
    layers, convolutions without padding, or the constant is zero. The dependency graph of
    torch-pruning (Fang et al., DepGraph, CVPR 2023) tells which layers must lose a filter together.
    A filter stays if that graph does not cover the network, as with padded channels, or if its
    removal would change the outputs. Inputs, outputs and one filter of each layer always stay.

    Args:
        network: unchanged.
        masks: of its weights.
        example: (1, ...) an input, on the network's device.

    Raises:
        InputError: the masks do not fit the network, or torch.fx cannot trace it to a graph that
            computes the same.
    """
    masked = masked_copy(network, masks).cpu()  # the CPU is precise enough to compare outputs
    inputs = sample_inputs(example)
    expected = outputs_of(masked, inputs)
    try:
        graph = fx.symbolic_trace(masked)
    except Exception as error:  # the network may be any code
        name = type(network).__name__
        raise InputError(f"{name}: cannot be traced by torch.fx: {first_line(error)}") from error
    graph.delete_all_unused_submodules()
    graph.requires_grad_(True)  # torch-pruning follows the gradients
    if not _agree(outputs_of(graph, inputs), expected):
        raise InputError(
            f"{type(network).__name__}: its graph by torch.fx does not compute the same"
        )

    smaller, removable = graph, set[str]()
    pending = [_group_names(graph, inputs[0])]
    while pending:  # bisects: a set of groups that cannot be removed is tried in halves
        names = pending.pop()
        attempt = _attempt(graph, inputs, removable | set(names), expected)
        if attempt is not None:
            smaller, removable = attempt, removable | set(names)
        elif len(names) > 1:
            half = len(names) // 2
            pending += [names[half:], names[:half]]
    return smaller


def masked_copy(network: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy in evaluation mode whose pruned weights are zero.

    Raises:
        InputError: the masks do not fit the network.
    """
    masks.check_fit(network)
    masked = copy.deepcopy(network).eval()
    with torch.no_grad():
        for name, kept in masks.tensors().items():
            parameter = masked.get_parameter(name)
            parameter.mul_(kept.to(parameter.device))
    return masked


def sample_inputs(example: Tensor) -> list[Tensor]:
    """Return the example and three random inputs like it, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(example.shape, generator=generator) for _ in range(3)]
    return [example.cpu(), *(noise.to(example.dtype) for noise in drawn)]


def outputs_of(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Return the concatenated outputs; raise InputError if they are not tensors."""
    with torch.no_grad():
        outputs = [network(each) for each in inputs]
    if not all(isinstance(output, Tensor) for output in outputs):
        raise InputError(
            f"{type(network).__name__}: returns {type(outputs[0]).__name__}; only a network that "
            "returns one tensor can be exported"
        )
    return torch.cat(outputs)


def _agree(outputs: Tensor, expected: Tensor) -> bool:
    # False if the difference is NaN.
    return outputs.shape == expected.shape and bool(
        (outputs - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _attempt(
    graph: fx.GraphModule, inputs: Sequence[Tensor], names: Collection[str], expected: Tensor
) -> fx.GraphModule | None:
    """Return a copy without the unneeded channels of these groups; None if its outputs differ."""
    try:
        with redirect_stderr(io.StringIO()):  # torch.fx prints a traceback there
            smaller = _without_unneeded(graph, inputs, names)
            return smaller if _agree(outputs_of(smaller, inputs), expected) else None
    except Exception:  # a wrong dependency graph can cause any error
        return None


def _without_unneeded(
    graph: fx.GraphModule, inputs: Sequence[Tensor], names: Collection[str]
) -> fx.GraphModule:
    smaller = copy.deepcopy(graph)
    dependencies = dependency_graph(smaller, inputs[0])
    groups = [group for group in channel_groups(dependencies) if group.name in names]
    for group, removed in zip(groups, absorb_unneeded(smaller, groups, inputs), strict=True):
        if channels := removed.nonzero().flatten().tolist():
            remove = dependencies.get_pruner_of_module(group.root).prune_out_channels
            dependencies.get_pruning_group(group.root, remove, channels).prune()
    return smaller


def _group_names(graph: fx.GraphModule, example: Tensor) -> list[str]:
    try:
        return [
            group.name for group in channel_groups(dependency_graph(copy.deepcopy(graph), example))
        ]
    except Exception:  # torch-pruning does not support every network
        return []
