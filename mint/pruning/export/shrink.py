"""Remove the channels of a masked network that its outputs do not depend on."""

import copy
import io
from collections.abc import Collection
from contextlib import redirect_stderr

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from mint.errors import InputError, error_line, first_line
from mint.models.applied_weights import AppliedWeights
from mint.pruning.export.channels import channel_groups, remove_unneeded
from mint.pruning.masks import Masks, apply_masks

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
        example: (1, ...) an input.

    Raises:
        InputError: the masks do not fit the network or prune entries of a weight that it does not
            apply, or torch.fx cannot trace it.
    """
    masked = masked_copy(network, masks).cpu()  # the CPU is precise enough to compare outputs
    inputs = sample_inputs(example)
    with AppliedWeights() as applied:
        expected = outputs_of(masked, inputs)
    for name, mask in masks.items():
        if not mask.all() and masked.get_parameter(name) not in applied:
            problem = "its layer has a weight that is computed, whose pruned entries are not zero"
            raise InputError(f"{name}: {problem}")
    graph = traced_modules(masked)
    graph.requires_grad_(True)  # torch-pruning follows the gradients
    with redirect_stderr(io.StringIO()):  # torch.fx prints a traceback there
        return _without_unneeded(graph, inputs, expected)


def traced_modules(network: nn.Module) -> fx.GraphModule:
    """Return the network as torch.fx traces it; its computed weights become parameters.

    Raises:
        InputError: torch.fx cannot trace it.
    """
    _store_computed_weights(network)
    try:
        graph = fx.symbolic_trace(network)
    except Exception as error:  # the network may be any code
        name = type(network).__name__
        raise InputError(f"{name}: cannot be traced by torch.fx: {first_line(error)}") from error
    graph.delete_all_unused_submodules()
    return graph


def masked_copy(network: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy in evaluation mode whose pruned weights are zero.

    Raises:
        InputError: the masks do not fit the network, or it cannot be copied.
    """
    try:
        masked = copy.deepcopy(network).eval()
    except RuntimeError as error:  # torch copies no tensor that an operation computed
        raise InputError(
            f"{type(network).__name__}: cannot be copied: {error_line(error)}"
        ) from error
    with apply_masks(masked, masks):
        return masked


def _store_computed_weights(network: nn.Module) -> None:
    """Turn each parametrized tensor, such as a normalized weight, into a plain parameter."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            values = {name: getattr(module, name).detach() for name in module.parametrizations}
            # The function of torch that removes them changes a class that the original shares.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))


def sample_inputs(example: Tensor) -> Tensor:
    """Return the example (1, ...) and three random inputs like it, (4, ...) on the CPU."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *example.shape[1:], generator=generator)
    return torch.cat([example.cpu(), noise.to(example.dtype)])


@torch.no_grad()
def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs; raise InputError if they are not one tensor."""
    outputs = network(inputs)
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"{type(network).__name__}: returns {type(outputs).__name__}; only a network that "
            "returns one tensor can be exported"
        )
    return outputs


def agree(outputs: Tensor, expected: Tensor) -> bool:
    """Return whether outputs are equal up to rounding; False if a difference is NaN."""
    return outputs.shape == expected.shape and bool(
        (outputs - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _without_unneeded(graph: fx.GraphModule, inputs: Tensor, expected: Tensor) -> fx.GraphModule:
    """Return a copy without the unneeded channels of all groups that can lose theirs."""
    try:
        groups = channel_groups(copy.deepcopy(graph), inputs[:1])
    except Exception:  # torch-pruning does not support every network
        return graph
    smaller, removable = graph, set[str]()
    pending = [[group.name for group in groups]]
    while pending:  # bisects: a set of groups that cannot be removed is tried in halves
        names = pending.pop()
        attempt = _attempt(graph, inputs, removable | set(names), expected)
        if attempt is not None:
            smaller, removable = attempt, removable | set(names)
        elif len(names) > 1:
            half = len(names) // 2
            pending += [names[half:], names[:half]]
    return smaller


def _attempt(
    graph: fx.GraphModule, inputs: Tensor, names: Collection[str], expected: Tensor
) -> fx.GraphModule | None:
    """Return a copy without the unneeded channels of these groups; None if its outputs differ."""
    smaller = copy.deepcopy(graph)
    try:
        groups = [group for group in channel_groups(smaller, inputs[:1]) if group.name in names]
        remove_unneeded(smaller, groups, inputs)
        return smaller if agree(outputs_of(smaller, inputs), expected) else None
    except Exception:  # a wrong dependency graph can cause any error
        return None
