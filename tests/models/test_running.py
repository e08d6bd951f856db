"""What a network's code may do while mint runs it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mint.errors import InputError
from mint.models.activations import collect_activations
from mint.models.running import logits
from mint.models.tracing import trace

INPUTS = torch.rand(5, 4)


class Network(nn.Module):
    """Three layers, applied as the test says."""

    def __init__(self, forward: Callable[["Network", Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        self.apply_layers = forward
        self.kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Any:
        return self.apply_layers(self, inputs)


def pairs(network: nn.Module) -> list[tuple[str, str]]:
    return [(pair.parent, pair.child) for pair in trace(network, INPUTS).pairs]


def test_code_may_choose_by_values_what_it_does_not_compute_from() -> None:
    def warned(net: Network, x: Tensor) -> Tensor:
        if 9 in x:
            raise ValueError
        sizes = torch.zeros(len(x), x[0].numel()).shape
        return net.last(net.a(x.view(sizes)))  # type: ignore[no-any-return]

    assert pairs(Network(warned)) == [("a", "last")]


@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        (lambda net, x: net.last(net.a(x) / x.max().item()), "reads a number .* by item"),
        (
            lambda net, x: net.last(net.a(x) if x.sum() > 7 else net.b(x)),
            "applies other operations",
        ),
        (lambda net, x: torch.stack([net.last(net.a(row)) for row in x]), "applies other"),
        (lambda net, x: net.last(net.a(x).relu() if len(x) < 5 else net.a(x)), None),
    ],
)
def test_operations_that_depend_on_the_images_are_refused(
    forward: Callable[[Network, Tensor], Any], problem: str | None
) -> None:
    network = Network(forward)
    if problem:
        with pytest.raises(InputError, match=rf"^Network cannot be traced: its code {problem}"):
            trace(network, torch.ones(2, 4) * 2)
    else:  # the number of images shows only later
        traced = trace(network, INPUTS)
        with pytest.raises(InputError, match=r"^Network cannot be traced: its code applies other"):
            collect_activations(traced, [INPUTS], traced.pairs)


def test_a_network_can_be_trained_after_it_was_traced() -> None:
    def keeps(net: Network, x: Tensor) -> Tensor:
        net.kept = x.new_ones(6) * 2
        return net.last(net.a(x) * net.kept)  # type: ignore[no-any-return]

    network = Network(keeps).train()
    fast = torch.backends.mha.get_fastpath_enabled()
    trace(network, INPUTS)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert network.training
    kept = network.kept
    assert kept is not None
    (network.last(network.a(INPUTS) * kept)).sum().backward()
    assert network.a.weight.grad is not None


def test_what_is_written_into_a_part_changes_the_whole() -> None:
    def into_view(net: Network, x: Tensor) -> Tensor:
        values = net.a(x)
        values[:, :3] += net.b(x)[:, 3:]
        return net.last(values)  # type: ignore[no-any-return]

    def into_constant(net: Network, x: Tensor) -> Tensor:
        values = x.new_zeros(len(x), 6)
        values[:, :5] = net.b(x)[:, 1:]
        return net.last(values)  # type: ignore[no-any-return]

    for forward in (into_view, into_constant):
        reasons = {layer.name: layer.reason for layer in trace(Network(forward), INPUTS).layers}
        assert reasons["last"], forward


def test_logits_are_taken_from_what_is_returned_with_them() -> None:
    class Output(NamedTuple):
        logits: Tensor
        others: Tensor

    assert logits(Output(INPUTS, INPUTS + 1)) is INPUTS
    assert logits(INPUTS) is INPUTS
    network = Network(lambda net, x: Output(net.last(net.a(x)), x))
    assert trace(network, INPUTS).output == (3,)
