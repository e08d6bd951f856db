"""Changing a filter changes exactly the channels of its children that tracing names."""

from collections.abc import Callable, Iterator

import pytest
import torch
from intervention import check_pairs
from torch import Tensor, nn
from torch.nn import functional

from mint.models.layers import Traced
from mint.models.tracing import trace
from mint.rng import torch_seeded

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch_seeded(0, "networks of the tests", torch.device("cpu")):
        yield


class Network(nn.Module):
    """Convolutions or linear layers by letters, and what a test does with them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def conv(inputs: int, outputs: int, side: int = 1, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, **settings)  # type: ignore[arg-type]


def attention(net: nn.Module, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).reshape(len(x), 5, 3, 2, 4).permute(2, 0, 3, 1, 4)  # type: ignore[operator]
    scores = (q @ k.transpose(-2, -1) / 2).softmax(-1)
    out: Tensor = net.proj((scores @ v).transpose(1, 2).reshape(len(x), 5, 8))  # type: ignore[operator]
    return out


def grouped_queries(net: nn.Module, x: Tensor) -> Tensor:
    def heads(name: str, number: int) -> Tensor:
        out: Tensor = net.get_submodule(name)(x)
        return out.view(len(x), 5, number, 2).transpose(1, 2)

    out = functional.scaled_dot_product_attention(
        heads("q", 4), heads("k", 2), heads("v", 2), enable_gqa=True
    )
    return net.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return, operator]


def excited(net: nn.Module, x: Tensor) -> Tensor:
    y = functional.silu(net.a(x))  # type: ignore[operator]
    gate = net.up(functional.relu(net.down(y.mean((2, 3), keepdim=True))))  # type: ignore[operator]
    return net.last(y * gate.sigmoid())  # type: ignore[no-any-return, operator]


def two_halves(net: nn.Module, x: Tensor) -> Tensor:
    left, right = net.a(x).chunk(2, 1)  # type: ignore[operator]
    shuffled = torch.stack([left, net.b(right)], 2).flatten(1, 2)  # type: ignore[operator]
    return net.last(shuffled)  # type: ignore[no-any-return, operator]


def unet(net: nn.Module, x: Tensor) -> Tensor:
    y = functional.relu(net.a(x))  # type: ignore[operator]
    z = net.b(functional.max_pool2d(y, 2))  # type: ignore[operator]
    up = net.up(functional.interpolate(z, scale_factor=2.0)[:, :, ::2, ::2])  # type: ignore[operator]
    return net.last(torch.cat([y, up], 1))  # type: ignore[no-any-return, operator]


def coordinates(net: nn.Module, x: Tensor) -> Tensor:
    y = net.a(x)  # type: ignore[operator]
    places = torch.linspace(0, 1, 12).expand(len(x), 1, 12, 12)
    return net.last(torch.cat([y, places], 1))  # type: ignore[no-any-return, operator]


def tied(net: nn.Module, x: Tensor) -> Tensor:
    y = net.b(functional.relu(net.a(x)))  # type: ignore[operator]
    return functional.linear(y, net.b.weight.t())  # type: ignore[union-attr, operator]


def gated(net: nn.Module, x: Tensor) -> Tensor:
    y = net.a(x)  # type: ignore[operator]
    y = net.b(y * functional.relu6(y + 3) / 6)  # type: ignore[operator]
    y = net.c(y.view(len(x), 4, -1).view(len(x), 4, 12, 12) * torch.sigmoid(y))  # type: ignore[operator]
    return net.last(y.mean(axis=(2, 3)))  # type: ignore[no-any-return, operator]


def swiglu(net: nn.Module, x: Tensor) -> Tensor:
    return net.last(functional.silu(net.a(x)) * net.b(x))  # type: ignore[no-any-return, operator]


def split_gate(net: nn.Module, x: Tensor) -> Tensor:
    value, gate = net.a(x).split(4, -1)  # type: ignore[operator]
    return net.last(value * torch.sigmoid(gate))  # type: ignore[no-any-return, operator]


CASES: dict[str, tuple[nn.Module, Tensor, dict[str, str]]] = {
    "attention": (
        Network(attention, qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8)),
        TOKENS,
        {"proj": "qkv"},
    ),
    "grouped queries": (
        Network(
            grouped_queries,
            **{"q": nn.Linear(8, 8), "k": nn.Linear(8, 4)},
            **{"v": nn.Linear(8, 4), "proj": nn.Linear(8, 8)},
        ),
        TOKENS,
        {"proj": "v"},
    ),
    "post-norm block": (
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        TOKENS,
        {"self_attn.out_proj": "self_attn.in_proj_weight", "linear2": "linear1"},
    ),
    "squeeze and excitation": (
        Network(excited, a=conv(3, 6), down=conv(6, 2), up=conv(2, 6), last=conv(6, 4)),
        IMAGES,
        {"down": "a", "up": "down", "last": "a"},
    ),
    "shuffle": (
        Network(two_halves, a=conv(3, 8), b=conv(4, 4), last=conv(8, 4)),
        IMAGES,
        {"b": "a", "last": "a+b"},
    ),
    "unet": (
        Network(
            unet,
            **{"a": conv(3, 6, 3), "b": conv(6, 4, 3)},
            **{"up": nn.ConvTranspose2d(4, 5, 2, stride=2), "last": conv(11, 4)},
        ),
        IMAGES,
        {"b": "a", "up": "b", "last": "a+up"},
    ),
    "coordinates": (Network(coordinates, a=conv(3, 16), last=conv(17, 4)), IMAGES, {}),
    "a tied weight": (
        Network(tied, a=nn.Linear(8, 6), b=nn.Linear(6, 4)),
        TOKENS,
        {},
    ),
    "gates": (
        Network(gated, a=conv(3, 4), b=conv(4, 4), c=conv(4, 6), last=nn.Linear(6, 4)),
        IMAGES,
        {"b": "a", "c": "b", "last": "c"},
    ),
    "swiglu": (
        Network(swiglu, a=nn.Linear(8, 6), b=nn.Linear(8, 6), last=nn.Linear(6, 4)),
        TOKENS,
        {"last": "a"},
    ),
    "a gate in the same layer": (
        Network(split_gate, a=nn.Linear(8, 8), last=nn.Linear(4, 4)),
        TOKENS,
        {"last": "a"},
    ),
    "norm of each row": (
        nn.Sequential(nn.Linear(8, 6), nn.InstanceNorm1d(2), nn.Linear(6, 4)),
        TOKENS[:, 0],
        {},
    ),
    "norm of one filter a group": (
        nn.Sequential(conv(3, 6), nn.GroupNorm(6, 6), conv(6, 4)),
        IMAGES,
        {"2": "0"},
    ),
    "depthwise": (
        nn.Sequential(conv(3, 6), nn.ReLU6(), conv(6, 6, 3, groups=6), conv(6, 4)),
        IMAGES,
        {"3": "2"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_channels_that_are_named_change(case: str) -> None:
    network, inputs, parents = CASES[case]
    traced = trace(network, inputs)
    assert {pair.child: pair.parent for pair in traced.pairs} == parents
    assert check_pairs(traced, inputs) >= len(parents)


def pair_of(traced: Traced, child: str) -> tuple[int, tuple[int, ...] | None]:
    (pair,) = (pair for pair in traced.pairs if pair.child == child)
    return pair.parent_filters, pair.heads


def test_heads_are_groups() -> None:
    traced = trace(*CASES["attention"][:2])
    assert pair_of(traced, "proj") == (8, (0,) * 4 + (1,) * 4)
    # Two queries share a key and a value.
    traced = trace(*CASES["grouped queries"][:2])
    assert pair_of(traced, "proj") == (8, (0,) * 4 + (1,) * 4)


def test_reasons_name_what_mixes_the_filters() -> None:
    reasons = {layer.name: layer.reason for layer in trace(*CASES["norm of each row"][:2]).layers}
    assert reasons["2"] == "reads the output of instance_norm on 0"
    reasons = {layer.name: layer.reason for layer in trace(*CASES["coordinates"][:2]).layers}
    assert reasons["last"] == "reads constants beside a"
    reasons = {layer.name: layer.reason for layer in trace(*CASES["a tied weight"][:2]).layers}
    assert reasons["b"] == "is used twice"


def test_filters_that_meet_are_tied() -> None:
    assert trace(*CASES["swiglu"][:2]).tied == {"b": "a"}
    assert trace(*CASES["squeeze and excitation"][:2]).tied == {"up": "a"}
    assert trace(*CASES["a gate in the same layer"][:2]).tied == {}
