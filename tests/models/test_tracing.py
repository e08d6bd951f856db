"""Networks are those of the record; pairs, weights and a user's own networks are checked."""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from mint.config.schema import (
    DataConfig,
    EstimateConfig,
    Experiment,
    NetworkConfig,
    SearchConfig,
    TrainingConfig,
)
from mint.errors import InputError
from mint.models import (
    PUBLISHED_NAMES,
    Traced,
    build_network,
    chosen_pairs,
    load_weights,
    mlp,
    resnet50,
    resnet56,
    source_digest,
    trace,
    vgg16,
)
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


# The record's networks, and torchvision's.


@pytest.mark.parametrize(
    ("build", "shape", "weights", "pairs"),
    [
        (lambda: vgg16(10), (1, 3, 32, 32), 14977728, 14),
        (lambda: resnet56(10), (1, 3, 32, 32), 848944, 55),
        (lambda: mlp((784, 500, 300, 10)), (1, 1, 28, 28), 545000, 2),
    ],
    ids=["vgg16", "resnet56", "mlp"],
)
def test_weights_are_those_of_the_record_and_all_but_the_first_layer_form_a_chain(
    build: Callable[[], nn.Module], shape: tuple[int, ...], weights: int, pairs: int
) -> None:
    traced = traced_shapes(build, *shape)
    layers = [layer.name for layer in traced.layers]
    assert sum(layer.weights for layer in traced.layers) == weights
    assert pairs_of(traced) == list(pairwise(layers))
    assert len(traced.pairs) == pairs
    assert reasons(traced) == {layers[0]: "reads the input"}


def test_resnet56_is_named_and_numbered_as_in_the_record() -> None:
    traced = traced_shapes(lambda: resnet56(10), 1, 3, 32, 32)
    names = [*(f"conv{index}" for index in range(1, 56)), "linear1"]
    assert [layer.name for layer in traced.layers] == names
    assert sum(parameter.numel() for parameter in resnet56(10).parameters()) == 853018
    left_out = {"conv1", "conv16", "conv20", "conv38", "conv54", "linear1"}
    assert sum(layer.weights for layer in traced.layers if layer.name not in left_out) == 785664


def test_vgg16_prunes_14712832_weights_from_conv5_on() -> None:
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
def test_the_input_has_channels_or_the_values_of_a_flattened_image(
    build: Callable[[], nn.Module], shape: tuple[int, ...], filters: int
) -> None:
    traced = traced_shapes(build, *shape)
    (pair,) = traced.input_pairs
    first = traced.layers[0]
    assert (pair.parent, pair.child) == ("input", first.name)
    assert (pair.parent_filters, pair.span, first.parent) == (filters, 1, None)
    weight = traced.graph.get_parameter(f"{first.name}.weight")
    assert pair.columns().shape[1] * pair.groups == filters
    assert pair.columns().shape[0] in (1, len(weight))
    assert [pair.child for pair in traced.all_pairs] == [layer.name for layer in traced.layers]


def test_a_depthwise_layer_has_no_pair_with_the_input() -> None:
    traced = traced_shapes(lambda: chain(conv=nn.Conv2d(4, 4, 3, groups=4)), 1, 4, 8, 8)
    assert traced.all_pairs == []
    assert reasons(traced)["conv"].startswith("depthwise")


def test_a_linear_layer_behind_a_flattened_convolution_has_columns_in_spans() -> None:
    traced = traced_shapes(models.vgg16_bn, 1, 3, 32, 32)
    spans = {pair.child: pair.span for pair in traced.pairs}
    assert spans.pop("classifier.0") == 49
    assert set(spans.values()) == {1}
    assert len(traced.pairs) == 15
    (pair,) = (pair for pair in traced.pairs if pair.child == "classifier.0")
    assert (pair.parent_node, pair.parent_filters) == ("avgpool", 512)


def test_depthwise_layers_are_left_alone_but_are_parents() -> None:
    traced = traced_shapes(models.mobilenet_v2, 1, 3, 32, 32)
    assert len(traced.pairs) == 35
    depthwise = reasons(traced)
    assert depthwise.pop("features.0.0") == "reads the input"
    assert len(depthwise) == 17
    assert all(reason.startswith("depthwise") for reason in depthwise.values())
    assert ("features.2.conv.1.0", "features.2.conv.2") in pairs_of(traced)
    # Behind an add: the second block of 24 channels ends in one.
    assert ("features.3.conv.2", "features.4.conv.0.0") in pairs_of(traced)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_every_layer_of_other_networks_has_a_pair_or_a_reason(name: str) -> None:
    traced = traced_shapes(getattr(models, name), 1, 3, 32, 32)
    paired = {pair.child: pair.parent for pair in traced.pairs}
    assert paired
    for layer in traced.layers:
        assert (layer.parent is None) != (layer.reason is None)
        assert paired.get(layer.name) == layer.parent


# Tracing: what is followed.


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


def test_functions_and_methods_are_followed_as_modules_are() -> None:
    traced = trace(Functional(), zeros(10))
    assert pairs_of(traced) == [("conv1", "conv2"), ("conv2", "linear"), ("linear", "last")]
    grouped, flattened, last = traced.pairs
    assert (grouped.groups, grouped.span) == (2, 1)
    assert (grouped.parent_node, grouped.child_node) == ("max_pool2d", "sigmoid")
    assert (flattened.groups, flattened.span) == (1, 4)
    assert (flattened.parent_node, flattened.child_node) == ("sigmoid", "relu_")
    assert (last.parent_node, last.child_node) == ("relu_", "last")


@pytest.mark.parametrize("child", ["conv", "grouped", "linear", "conv3d"])
def test_columns_are_what_connects_a_parent_filter_to_the_child(child: str) -> None:
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
            parent.weight[filter_] += 1  # whatever the filter does, the child does not see it
            assert torch.equal(network(inputs), before)
            weight.copy_(whole)
            parent.weight[filter_] += 1  # and every entry left out above does see it
            weight[~reads] = 0
            changed = network(inputs)
            parent.weight[filter_] -= 2
            assert not torch.equal(network(inputs), changed)


def test_an_own_kind_of_convolution_is_a_layer() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return functional.conv2d(input, self.weight - self.weight.mean(), self.bias)

    traced = trace(chain(first=Standardised(3, 4, 3), second=Standardised(4, 5, 3)), zeros(8))
    assert pairs_of(traced) == [("first", "second")]


class Branches(nn.Module):
    """Two branches of some depth that are joined, and a layer that reads them."""

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
            None,
            {"last": "reads the sum of left.0 and right.0, which are equally deep"},
        ),
        (Branches(1, 1, "cat", scaled=2), None, {"last": "reads a concatenation"}),
        (Branches(1, 1, "gate"), None, {"last": "reads what mul makes of left.0 and right.0"}),
        (Branches(1, 0, "slice"), None, {"last": "reads what getitem makes of left.0"}),
    ],
)
def test_what_joins_branches(
    network: nn.Module, parent: str | None, expected: dict[str, str]
) -> None:
    traced = trace(network, zeros(4))
    assert reasons(traced) == {"first": "reads the input"} | expected
    assert {layer.name: layer.parent for layer in traced.layers}["last"] == parent


def test_constants_and_defaults_are_no_branches() -> None:
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
    assert reasons(traced)["last"] == (
        "reads the sum of first and constant, which are equally deep"
    )
    scaled = chain(first=Scaled().first, second=Scaled())
    scaled.get_submodule("second").first = nn.Conv2d(4, 4, 1)
    assert ("first", "second.first") in pairs_of(trace(scaled, zeros(4)))


def test_what_loses_the_filters_is_named() -> None:
    mixed = chain(conv=nn.Conv2d(3, 4, 1), norm=nn.GroupNorm(2, 4), last=nn.Conv2d(4, 2, 1))
    assert reasons(trace(mixed, zeros(4)))["last"] == "reads what GroupNorm makes of conv"
    up = chain(conv=nn.Conv2d(3, 4, 1), up=nn.ConvTranspose2d(4, 4, 2), last=nn.Conv2d(4, 2, 1))
    traced = trace(up, zeros(4))
    assert reasons(traced)["last"] == "reads what ConvTranspose2d makes of conv"
    assert [layer.name for layer in traced.layers] == ["conv", "last"]
    columns = trace(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.zeros(1, 3, 4))
    assert "1x3x4" in reasons(columns)["0"]
    assert not columns.pairs


def test_a_layer_used_twice_neither_has_a_pair_nor_is_a_parent() -> None:
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
        "5": "is used twice",
        "6": "is used twice",
    }
    assert not traced.pairs


def test_weights_that_are_computed_are_left_alone() -> None:
    network = chain(one=nn.Linear(4, 4), two=nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    traced = trace(network, torch.randn(2, 4))
    assert [layer.reason for layer in traced.layers] == [
        "reads the input",
        "has a weight that is computed",
    ]
    assert not traced.pairs


def test_tracing_leaves_the_network_as_it_was() -> None:
    network = chain(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), drop=nn.Dropout())
    network.get_submodule("bn1").eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    traced = trace(network, torch.randn(2, 3, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert traced.graph.get_submodule("conv1") is network.get_submodule("conv1")


def test_what_cannot_be_traced_is_an_error_of_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class Branching(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs if inputs.sum() > 0 else -inputs

    class OtherwiseTraced(nn.Module):
        def forward(self, inputs: Any) -> Any:
            return inputs if isinstance(inputs, Tensor) else inputs.no_such_method()

    with pytest.raises(
        InputError, match=r"^OtherwiseTraced cannot be traced: .*no_such_method.*\Z"
    ):
        trace(OtherwiseTraced(), zeros(4))
    with pytest.raises(InputError, match=r"^Branching cannot be traced: TraceError: .*\Z"):
        trace(Branching(), zeros(4))
    with pytest.raises(InputError, match=r"^Sequential does not run .* \(1, 3, 28, 28\): .*\Z"):
        trace(vgg16(10), zeros(28))
    with pytest.raises(InputError, match=r"^Sequential does not run .* \(1, 1, 32, 32\): .*\Z"):
        trace(vgg16(10), zeros(32, channels=1))
    assert capfd.readouterr() == ("", "")


# The pairs that an experiment chooses.


def experiment(**fields: Any) -> Experiment:
    return Experiment(
        name="chosen",
        title="Chosen",
        data=DataConfig(name="digits", validation_size=10),
        network=NetworkConfig(name="mlp"),
        training=TrainingConfig(
            epochs=0, batch_size=1, lr=0.1, momentum=0, nesterov=False, weight_decay=0
        ),
        estimate=EstimateConfig(bootstraps=1),
        search=SearchConfig(fraction=0.5),
        **fields,
    )


@pytest.fixture(scope="module")
def traced_mlp() -> Traced:
    return trace(mlp((4, 3, 3, 3, 2)), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("fields", "children"),
    [
        ({"prune": "all"}, ["fc2", "fc3", "fc4"]),
        ({"prune": [("fc3", "fc4"), ("fc1", "fc2")]}, ["fc2", "fc4"]),
        ({"prune": "all", "leave_out": [("fc2", "fc3")]}, ["fc2", "fc4"]),
        ({"prune": [("fc3", "fc4"), ("input", "fc1")]}, ["fc1", "fc4"]),
    ],
)
def test_chosen_pairs_are_in_the_order_of_the_network(
    traced_mlp: Traced, fields: dict[str, Any], children: list[str]
) -> None:
    assert [pair.child for pair in chosen_pairs(traced_mlp, experiment(**fields))] == children


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune": [("fc1", "fc3")]}, r"prune \[fc1, fc3\]: mlp has no such pair; fc3 reads fc2"),
        ({"prune": [("fc1", "fc")]}, r"fc is none of its layers; near are fc4, fc3, fc2"),
        ({"prune": [("x", "fc2")]}, r"x is none of its layers; they are fc1, fc2 and 2 others"),
        ({"prune": [("fc2", "fc1")]}, r"fc1 reads the input"),
        ({"prune": [("input", "fc2")]}, r"prune \[input, fc2\]: .*; fc2 reads fc1"),
        ({"prune": [("fc1", "input")]}, r"input is none of its layers"),
        ({"prune": "all", "leave_out": [("fc3", "fc2")]}, r"leave_out \[fc3, fc2\]: .* reads fc1"),
        (
            {"prune": "all", "leave_out": [("fc1", "fc2"), ("fc2", "fc3"), ("fc3", "fc4")]},
            r"no pair of mlp is left",
        ),
    ],
)
def test_pairs_that_there_are_not(traced_mlp: Traced, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen_pairs(traced_mlp, experiment(**fields))


# Building by name.


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where the user stands, with a module own_networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n"
        "def build(width):\n"
        "    if width < 1:\n"
        "        raise ValueError('width must be\\nat least 1')\n"
        "    return nn.Linear(4, width)\n\n"
        "def number():\n    return 3\n"
    )
    yield tmp_path
    sys.modules.pop("own_networks", None)


def test_own_functions_build(own_folder: Path) -> None:
    network = build_network(NetworkConfig(name="own_networks:build", arguments={"width": 7}))
    assert isinstance(network, nn.Linear)
    assert network.out_features == 7


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("own_network:build", {}, "own_network cannot be imported: ModuleNotFoundError"),
        ("own_networks:built", {}, "own_networks has no function built; did you mean build?"),
        ("own_networks:build", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("own_networks:build", {"width": 0}, "width must be at least 1"),
        ("own_networks:number", {}, "must return an nn.Module, not int"),
        ("broken:build", {}, "broken cannot be imported: SyntaxError"),
        ("mlp", {"widths": [4, 2]}, "widths [4, 2]: "),
        ("mlp", {"widths": [4, 0, 2]}, "widths.1 0: "),
        ("mlp", {"widths": [4, 3, 2], "dropout": 1}, "dropout 1: "),
        ("mlp", {}, "widths: "),
        ("vgg16", {"classes": "ten"}, "classes 'ten': "),
        ("resnet56", {"classes": 0}, "classes 0: "),
        ("resnet50", {"class": 10}, "class 10: "),
    ],
)
def test_what_cannot_be_built_is_an_error_of_one_line(
    own_folder: Path, name: str, arguments: dict[str, JsonValue], message: str
) -> None:
    (own_folder / "broken.py").write_text("def build(:\n")
    with pytest.raises(InputError) as raised:
        build_network(NetworkConfig(name=name, arguments=arguments))
    assert str(raised.value).startswith(f"network {name}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_digest_is_of_the_source_of_own_networks(own_folder: Path) -> None:
    config = NetworkConfig(name="own_networks:build", arguments={"width": 7})
    before = source_digest(config)
    assert before is not None
    assert len(bytes.fromhex(before)) == 8
    assert source_digest(NetworkConfig(name="own_networks:number")) == before
    file = own_folder / "own_networks.py"
    file.write_text(file.read_text() + "# edited\n")
    assert source_digest(config) != before
    assert source_digest(NetworkConfig(name="vgg16", arguments={"classes": 10})) is None


# Weights from a file.


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["plain", "state_dict", "model and module", "no counters"],
)
def test_weights_are_taken_over(tmp_path: Path, wrapped: Any) -> None:
    saved, loaded = resnet56(10), resnet56(10)
    torch.save(wrapped(saved.state_dict()), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in saved.state_dict().items())


def test_published_names_are_mapped_one_to_one(tmp_path: Path) -> None:
    saved, loaded = resnet56(10), resnet56(10)
    published = {ours: theirs for theirs, ours in PUBLISHED_NAMES["resnet56"].items()}
    assert len(published) == 2 * 54 + 1
    content = {}
    for key, value in saved.state_dict().items():
        module, _, parameter = key.rpartition(".")
        content[f"{published.get(module, module)}.{parameter}"] = value
    safetensors.torch.save_file(content, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"missing conv2.weight, .* unexpected layer1\.0\.bn1"):
        load_weights(loaded, tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors", PUBLISHED_NAMES["resnet56"])
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in saved.state_dict().items())


def test_weights_of_another_network_change_nothing(tmp_path: Path) -> None:
    network = mlp((4, 3, 3, 2))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save(mlp((4, 3, 5, 2)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(
        InputError, match=r"misshapen fc2.weight \(5, 3\) for \(3, 3\), .* fc3.weight"
    ):
        load_weights(network, tmp_path / "other.pt", {"fc9": "fc1"})
    torch.save(mlp((4, 3, 2)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"missing fc3.weight, fc3.bias; misshapen fc2.weight"):
        load_weights(network, tmp_path / "other.pt")
    torch.save({**state, "head.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r": unexpected head.weight$"):
        load_weights(network, tmp_path / "other.pt")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


class Code:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by unpickling",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_files_that_are_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    network = mlp((4, 3, 2))
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        load_weights(network, path)
    for content in (b"", b"no weights at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is no file of weights"):
            load_weights(network, path)
    torch.save({"state_dict": network.state_dict(), "code": Code()}, path)
    with pytest.raises(InputError, match=r"is no file of weights"):
        load_weights(network, path)
    assert not (tmp_path / "made by unpickling").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(2)])
def test_files_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"holds no state_dict"):
        load_weights(mlp((4, 3, 2)), tmp_path / "weights.pt")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    network = mlp((4, 3, 2), 0.0)
    state = network.state_dict()
    state["fc2.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"not finite fc2\.weight"):
        load_weights(mlp((4, 3, 2), 0.0), tmp_path / "weights.pt")
    torch.save({"fc1.weight": torch.zeros(3, 4, dtype=torch.complex64)}, tmp_path / "complex.pt")
    with pytest.raises(InputError, match="dense real tensors"):
        load_weights(network, tmp_path / "complex.pt")
