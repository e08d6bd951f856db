"""Layer pairs of the reference networks, of torchvision's, and of every kind of connection."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from mint.errors import InputError
from mint.models.layers import Traced
from mint.models.mlp import mlp
from mint.models.resnet import resnet50, resnet56
from mint.models.tracing import trace
from mint.models.vgg import vgg16
from mint.rng import torch_seeded


def zeros(side: int, channels: int = 3) -> Tensor:
    return torch.zeros(1, channels, side, side)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch_seeded(0, "networks of the tests", torch.device("cpu")):
        yield


def traced_shapes(build: Callable[[], nn.Module], *shape: int) -> Traced:
    """Trace a network without weights: only shapes are computed."""
    with torch.device("meta"):
        return trace(build(), torch.zeros(shape))


def pairs_of(traced: Traced) -> list[tuple[str, str]]:
    return [(pair.parent, pair.child) for pair in traced.pairs]


def reasons(traced: Traced) -> dict[str, str]:
    return {layer.name: layer.reason for layer in traced.layers if layer.reason}


def chain(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


@pytest.mark.parametrize(
    ("build", "shape", "weights", "pairs"),
    [
        (lambda: vgg16(10), (1, 3, 32, 32), 14977728, 14),
        (lambda: resnet56(10), (1, 3, 32, 32), 848944, 55),
        (lambda: mlp((784, 500, 300, 10)), (1, 1, 28, 28), 545000, 2),
    ],
    ids=["vgg16", "resnet56", "mlp"],
)
def test_reference_networks_have_the_published_weights_and_one_chain_of_pairs(
    build: Callable[[], nn.Module], shape: tuple[int, ...], weights: int, pairs: int
) -> None:
    traced = traced_shapes(build, *shape)
    layers = [layer.name for layer in traced.layers]
    assert sum(layer.weights for layer in traced.layers) == weights
    assert pairs_of(traced) == list(pairwise(layers))
    assert len(traced.pairs) == pairs
    assert reasons(traced) == {layers[0]: "reads the input"}


def test_resnet56_has_the_published_layer_names() -> None:
    traced = traced_shapes(lambda: resnet56(10), 1, 3, 32, 32)
    names = [*(f"conv{index}" for index in range(1, 56)), "linear1"]
    assert [layer.name for layer in traced.layers] == names
    assert sum(parameter.numel() for parameter in resnet56(10).parameters()) == 853018
    left_out = {"conv1", "conv16", "conv20", "conv38", "conv54", "linear1"}
    assert sum(layer.weights for layer in traced.layers if layer.name not in left_out) == 785664


def test_vgg16_has_the_published_prunable_weights_from_conv5_on() -> None:
    traced = traced_shapes(lambda: vgg16(10), 1, 3, 32, 32)
    masked = {*(f"conv{index}" for index in range(5, 14)), "linear1"}
    assert sum(layer.weights for layer in traced.layers if layer.name in masked) == 14712832


@pytest.mark.parametrize(
    ("build", "pairs", "shortcuts"),
    [(models.resnet18, 17, (2, 3, 4)), (lambda: resnet50(1000), 49, (1, 2, 3, 4))],
    ids=["resnet18", "resnet50"],
)
def test_residual_networks_pair_consecutive_layers_of_the_main_path(
    build: Callable[[], nn.Module], pairs: int, shortcuts: tuple[int, ...]
) -> None:
    traced = traced_shapes(build, 1, 3, 64, 64)
    expected = {f"layer{stage}.0.downsample.0": "on a shortcut" for stage in shortcuts}
    assert reasons(traced) == {"conv1": "reads the input"} | expected
    main = [layer.name for layer in traced.layers if layer.name not in expected]
    assert pairs_of(traced) == list(pairwise(main))
    assert len(traced.pairs) == pairs


@pytest.mark.parametrize(
    ("build", "shape", "filters"),
    [
        (lambda: mlp((784, 500, 300, 10)), (1, 1, 28, 28), 784),
        (lambda: resnet56(10), (1, 3, 32, 32), 3),
        (lambda: chain(flat=nn.Flatten(), fc=nn.Linear(12, 4)), (1, 3, 2, 2), 12),
        (lambda: chain(norm=nn.BatchNorm2d(4), conv=nn.Conv2d(4, 8, 3, groups=2)), (1, 4, 8, 8), 4),
    ],
    ids=["flattened image", "image", "flattened colours", "grouped"],
)
def test_filters_of_the_input_are_channels_or_values_of_a_flattened_image(
    build: Callable[[], nn.Module], shape: tuple[int, ...], filters: int
) -> None:
    traced = traced_shapes(build, *shape)
    pair, *others = traced.all_pairs
    assert others == traced.pairs
    first = traced.layers[0]
    assert (pair.parent, pair.child) == ("input", first.name)
    assert (pair.parent_filters, first.parent) == (filters, None)
    assert pair.channels == tuple(range(filters))
    weight = traced.network.get_parameter(f"{first.name}.weight")
    assert pair.columns().shape[1] * pair.groups == filters
    assert pair.columns().shape[0] in (1, len(weight))


def test_a_depthwise_layer_has_no_pair_with_the_input() -> None:
    traced = traced_shapes(lambda: chain(conv=nn.Conv2d(4, 4, 3, groups=4)), 1, 4, 8, 8)
    assert traced.all_pairs == ()
    assert reasons(traced)["conv"].startswith("depthwise")


def test_a_linear_layer_behind_a_flattened_convolution_has_columns_in_spans() -> None:
    traced = traced_shapes(models.vgg16_bn, 1, 3, 32, 32)
    assert len(traced.pairs) == 15
    for pair in traced.pairs:
        own = 49 if pair.child == "classifier.0" else 1
        filters = range(pair.parent_filters)
        assert pair.channels == tuple(each for each in filters for _ in range(own))
    (pair,) = (pair for pair in traced.pairs if pair.child == "classifier.0")
    assert pair.parent_filters == 512


def test_depthwise_layers_are_parents_but_not_children() -> None:
    traced = traced_shapes(models.mobilenet_v2, 1, 3, 32, 32)
    assert len(traced.pairs) == 35
    depthwise = reasons(traced)
    assert depthwise.pop("features.0.0") == "reads the input"
    assert len(depthwise) == 17
    assert all(reason.startswith("depthwise") for reason in depthwise.values())
    assert ("features.2.conv.1.0", "features.2.conv.2") in pairs_of(traced)
    # The second block of 24 channels ends in an addition.
    assert ("features.3.conv.2", "features.4.conv.0.0") in pairs_of(traced)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_every_layer_of_other_networks_has_a_pair_or_a_reason(name: str) -> None:
    traced = traced_shapes(getattr(models, name), 1, 3, 32, 32)
    paired = {pair.child: pair.parent for pair in traced.pairs}
    assert paired
    for layer in traced.layers:
        assert (layer.parent is None) != (layer.reason is None)
        assert paired.get(layer.name) == layer.parent


class Functional(nn.Module):
    """Functions and methods in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 3, groups=2)
        self.linear = nn.Linear(6 * 4, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        values = functional.max_pool2d(functional.relu(self.conv1(images) * 2), 2)
        values = self.conv2(values).sigmoid()
        values = values.view(values.size(0), -1)
        values = functional.dropout(torch.relu_(self.linear(values)), training=self.training)
        logits: Tensor = self.last(values)
        return logits


def test_functions_and_methods_are_followed_like_modules() -> None:
    traced = trace(Functional(), zeros(10))
    assert pairs_of(traced) == [("conv1", "conv2"), ("conv2", "linear"), ("linear", "last")]
    grouped, flattened, last = traced.pairs
    assert (grouped.groups, grouped.channels) == (2, (0, 1, 2, 3))
    assert (grouped.parent_node, grouped.child_node) == ("max_pool2d", "sigmoid")
    assert (flattened.groups, flattened.channels[:5]) == (1, (0, 0, 0, 0, 1))
    assert (flattened.parent_node, flattened.child_node) == ("view", "relu_")
    assert (last.parent_node, last.child_node) == ("dropout", "linear_1")


@pytest.mark.parametrize("child", ["conv", "grouped", "linear", "conv3d"])
def test_columns_are_the_entries_that_read_a_parent_filter(child: str) -> None:
    generator = torch.Generator().manual_seed(0)
    side = {"conv3d": (5, 5, 5)}.get(child, (5, 5))
    kind = nn.Conv3d if child == "conv3d" else nn.Conv2d
    last: dict[str, nn.Module] = {"child": kind(6, 4, 3)}
    if child == "grouped":
        last = {"child": nn.Conv2d(6, 4, 3, groups=2)}
    if child == "linear":
        last = {"flatten": nn.Flatten(), "child": nn.Linear(6 * 9, 4)}
    network = chain(parent=kind(2, 6, 3), relu=nn.ReLU(), **last)
    inputs = torch.randn(2, 2, *side, generator=generator)
    (pair,) = trace(network, inputs).pairs
    parent, weight = network.get_submodule("parent"), network.get_submodule("child").weight
    assert isinstance(parent, nn.Conv2d | nn.Conv3d)
    assert isinstance(weight, nn.Parameter)
    columns = torch.from_numpy(pair.columns())
    assert columns.shape == (4 if child == "grouped" else 1, weight.shape[1])
    whole = weight.detach().clone()
    with torch.no_grad():
        for filter_ in range(6):
            reads = (columns == filter_).expand(weight.shape[:2])
            weight.copy_(whole)
            weight[reads] = 0
            before = network(inputs)
            parent.weight[filter_] += 1  # no remaining entry reads the filter
            assert torch.equal(network(inputs), before)
            weight.copy_(whole)
            parent.weight[filter_] += 1  # only the entries zeroed above remain
            weight[~reads] = 0
            changed = network(inputs)
            parent.weight[filter_] -= 2
            assert not torch.equal(network(inputs), changed)


def test_a_layer_with_a_forward_of_its_own_is_pruned_if_it_applies_its_own_weight() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return functional.conv2d(input, self.weight - self.weight.mean(), self.bias)

    class Same(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return functional.conv2d(functional.pad(input, (1, 1, 1, 1)), weight=self.weight)

    same = trace(chain(first=Same(3, 4, 3), second=Same(4, 5, 3)), zeros(8))
    assert pairs_of(same) == [("first", "second")]
    computed = trace(chain(first=Same(3, 4, 3), second=Standardised(4, 5, 3)), zeros(8))
    assert reasons(computed)["second"] == "has a weight that is computed"
    assert not computed.pairs


class Branches(nn.Module):
    """Two branches of given depths, joined and read by a layer."""

    def __init__(self, left: int, right: int, joined: str, scaled: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.left = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(left)))
        self.right = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(right)))
        self.joined = joined
        self.last = nn.Conv2d(4 * scaled, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        left, right = self.left(values), self.right(values)
        if self.joined == "add":
            left = left + right
        elif self.joined == "cat":
            left = torch.cat([left, right], 1)
        elif self.joined == "gate":
            left = left * right.mean((2, 3), keepdim=True).sigmoid()
        elif self.joined == "slice":
            left = left[:, :2].repeat(1, 2, 1, 1)
        logits: Tensor = self.last(functional.relu(left))
        return logits


@pytest.mark.parametrize(
    ("network", "parent", "expected"),
    [
        (Branches(2, 1, "add"), "left.1", {"right.0": "on a shortcut"}),
        (Branches(1, 2, "add"), "right.1", {"left.0": "on a shortcut"}),
        (Branches(2, 0, "add"), "left.1", {}),
        (Branches(0, 0, "add"), "first", {}),
        (
            Branches(1, 1, "add"),
            "left.0",
            {},
        ),
        (Branches(1, 1, "cat", scaled=2), "left.0+right.0", {}),
        (Branches(1, 2, "gate"), "left.0", {}),
        (Branches(1, 0, "slice"), "left.0", {}),
    ],
)
def test_joined_branches_have_a_main_path_or_a_reason(
    network: nn.Module, parent: str | None, expected: dict[str, str]
) -> None:
    traced = trace(network, zeros(4))
    assert reasons(traced) == {"first": "reads the input"} | expected
    assert {layer.name: layer.parent for layer in traced.layers}["last"] == parent


def test_constants_and_default_arguments_are_not_branches() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.scale = nn.Parameter(torch.ones(4, 1, 1))
            self.constant = nn.Linear(2, 4)
            self.last = nn.Linear(4, 2)

        def forward(self, images: Tensor, shift: Tensor | None = None) -> Tensor:
            values = self.first(images) * self.scale + 1
            if shift is not None:
                values = values + shift
            offset = self.constant(torch.ones(1, 2))
            logits: Tensor = self.last(values.mean(-1).mean(-1) + offset * 0)
            return logits

    traced = trace(Scaled(), zeros(4))
    assert reasons(traced)["constant"] == "reads a constant"
    assert pairs_of(traced) == [("first", "last")]
    scaled = chain(first=Scaled().first, second=Scaled())
    scaled.get_submodule("second").first = nn.Conv2d(4, 4, 1)
    assert ("first", "second.first") in pairs_of(trace(scaled, zeros(4)))


def test_the_operation_that_loses_the_filters_is_named() -> None:
    mixed = chain(conv=nn.Conv2d(3, 4, 1), norm=nn.GroupNorm(2, 4), last=nn.Conv2d(4, 2, 1))
    assert reasons(trace(mixed, zeros(4)))["last"] == "reads the output of group_norm on conv"


def test_transposed_convolutions_and_linear_layers_over_tokens_have_pairs() -> None:
    up = chain(conv=nn.Conv2d(3, 4, 1), up=nn.ConvTranspose2d(4, 5, 2), last=nn.Conv2d(5, 2, 1))
    traced = trace(up, zeros(4))
    assert pairs_of(traced) == [("conv", "up"), ("up", "last")]
    assert [pair.transposed for pair in traced.pairs] == [True, False]
    assert [pair.child_filters for pair in traced.pairs] == [5, 2]
    tokens = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
    assert pairs_of(trace(tokens, torch.zeros(1, 3, 4))) == [("0", "2")]


def test_a_layer_used_twice_is_neither_child_nor_parent() -> None:
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    other = nn.Linear(4, 4)
    other.weight = tied.weight
    layers = (nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 4), tied, other)
    traced = trace(nn.Sequential(*layers), torch.zeros(1, 4))
    assert reasons(traced) == {
        "0": "reads the input",
        "1": "is used twice",
        "4": "reads 1, which is used twice",
        "5": "is used twice",  # by 6, too
    }
    assert not traced.pairs


def test_computed_weights_are_not_pruned() -> None:
    network = chain(one=nn.Linear(4, 4), two=nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    traced = trace(network, torch.randn(2, 4))
    assert [layer.reason for layer in traced.layers] == [
        "reads the input",
        "has a weight that is computed",
    ]
    assert not traced.pairs


def test_tracing_does_not_change_the_network() -> None:
    network = chain(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), drop=nn.Dropout())
    network.get_submodule("bn1").eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    traced = trace(network, torch.randn(2, 3, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    weight = network.get_parameter("conv1.weight")
    assert traced.network.get_parameter("conv1.weight") is weight


def test_a_network_that_cannot_be_traced_is_a_one_line_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Branching(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if inputs.sum() > 0 else -inputs

    with pytest.raises(InputError, match=r"^Branching cannot be traced: .*\Z"):
        trace(Branching(), zeros(4))
    with pytest.raises(InputError, match=r"^Sequential does not run .* \(1, 3, 28, 28\): .*\Z"):
        trace(vgg16(10), zeros(28))
    with pytest.raises(InputError, match=r"^Sequential does not run .* \(1, 1, 32, 32\): .*\Z"):
        trace(vgg16(10), zeros(32, channels=1))
    assert capfd.readouterr() == ("", "")


def test_the_batch_norm_of_a_layer_reads_it_alone_and_scales_it() -> None:
    network = chain(
        plain=nn.Linear(4, 4),
        identity=nn.Identity(),
        norm=nn.BatchNorm1d(4),
        activated=nn.Linear(4, 4),
        relu=nn.ReLU(),
        late_norm=nn.BatchNorm1d(4),
        unscaled=nn.Linear(4, 4),
        fixed_norm=nn.BatchNorm1d(4, affine=False),
    )
    traced = trace(network, torch.zeros(2, 4))
    norms = {layer.name: traced.batch_norms.get(layer.name) for layer in traced.layers}
    assert norms == {"plain": "norm", "activated": None, "unscaled": None}


def test_a_layer_may_have_the_name_of_a_graph_node() -> None:
    network = chain(input=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), output=nn.Linear(4, 4))
    traced = trace(network, torch.zeros(2, 4))
    assert [traced.batch_norms.get(layer.name) for layer in traced.layers] == ["norm", None]
    assert pairs_of(traced) == [("input", "output")]
