"""An exported network has the outputs of the masked network, without unneeded filters."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.errors import InputError
from mint.pruning.export import Exported, export, why_not_exported
from mint.pruning.export.shrink import masked_copy, shrink
from mint.pruning.masks import Masks

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class OptionA(nn.Module):
    """A residual block whose shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.added = (outputs - inputs) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, self.added, self.added))
        return torch.relu(out + x)


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5)
    )


def _vgg() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(8, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU()),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(160, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def _option_a() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        OptionA(8, 8, 1),
        OptionA(8, 16, 2),
        OptionA(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(12, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def _small_resnet() -> nn.Module:
    block = torchvision.models.resnet.BasicBlock
    network: nn.Module = torchvision.models.ResNet(block, [1, 1, 1, 1])
    return network


def _small_mobilenet() -> nn.Module:
    network: nn.Module = torchvision.models.MobileNetV2(
        num_classes=10, width_mult=0.5, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]
    )
    return network


class Concatenated(nn.Module):
    """Concatenates two branches, adds one of them to the output, and has a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 1)
        self.right = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(10)
        self.join = nn.Conv2d(10, 7, 3, padding=1)
        self.hidden = nn.Linear(7, 8)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(torch.relu(self.bn(torch.cat([self.left(x), self.right(x)], 1))))
        last = self.last(self.norm(self.hidden(joined.mean((2, 3)))))
        out: Tensor = last * self.scale + self.right(x).mean((2, 3))
        return out


def _ready(network: nn.Module, example: Tensor) -> nn.Module:
    """Set random affine parameters and running statistics of batch norms."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, *example.shape[1:]))
    return network.eval()


def _blocks(network: nn.Module, *, share: float, seed: int) -> Masks:
    """Prune blocks of weights at random, and all of some filters' rows and columns."""
    generator = np.random.default_rng(seed)
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kept = np.ones(tuple(module.weight.shape), bool)
            kept[generator.random(kept.shape[0]) < share] = False
            if kept.shape[1] > 3:
                kept[:, generator.random(kept.shape[1]) < share] = False
            kept[generator.random(kept.shape[:2]) < share] = False
            masks[f"{name}.weight"] = kept
    return Masks(masks)


def _check_same(small: nn.Module, network: nn.Module, masks: Masks, example: Tensor) -> None:
    inputs = torch.randn(4, *example.shape[1:], generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected, found = masked_copy(network, masks)(inputs), small(inputs)
    assert expected.std() > 0
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def _weights(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


NETWORKS = {
    "mlp": (_mlp, torch.randn(1, 20)),
    "vgg": (_vgg, IMAGE),
    "option_a": (_option_a, IMAGE),
    "grouped": (_grouped, IMAGE),
    "concatenated": (Concatenated, IMAGE),
    "resnet": (_small_resnet, IMAGE),
    "mobilenet": (_small_mobilenet, IMAGE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_computes_the_same(name: str) -> None:
    make, example = NETWORKS[name]
    torch.manual_seed(0)
    network = _ready(make(), example)
    before = copy.deepcopy(network.state_dict())
    masks = _blocks(network, share=0.3, seed=5)
    small = shrink(network, masks, example)
    _check_same(small, network, masks, example)
    widths = _weights(small)
    assert sum(map(np.prod, widths.values())) < sum(map(np.prod, _weights(network).values()))
    assert all(min(shape) > 0 for shape in widths.values())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["mlp", "vgg", "option_a", "grouped", "concatenated"])
def test_no_filter_is_removed_if_all_weights_are_kept(name: str) -> None:
    make, example = NETWORKS[name]
    network = _ready(make(), example)
    masks = Masks({key: np.ones(s, bool) for key, s in _mask_shapes(network).items()})
    for given in (masks, Masks({})):
        small = shrink(network, given, example)
        assert _weights(small) == _weights(network)
        _check_same(small, network, given, example)


def test_neurons_without_inputs_or_readers_are_removed_and_those_that_become_so() -> None:
    network = _mlp()
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["5.weight"][:, :2] = False  # not read: 3's filters 0 and 1
    kept["3.weight"][2] = False  # not fed: 3's filter 2, a constant
    kept["3.weight"][2:, 4] = False  # read only by removed filters: 0's filter 4
    kept["0.weight"][5:7] = False  # not fed
    masks = Masks(kept)
    small = shrink(network, masks, torch.randn(1, 20))
    assert _weights(small) == {"0": (9, 20), "3": (6, 9), "5": (5, 6)}
    _check_same(small, network, masks, torch.randn(1, 20))


def test_constant_filters_are_removed_if_biases_can_absorb_them() -> None:
    network = _ready(_vgg(), IMAGE)
    batch_norm = network.get_submodule("0.1")
    assert isinstance(batch_norm, nn.BatchNorm2d)
    first = network.get_submodule("0.0")
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        # Without weights, filter 2 is 1 after the ReLU, which padding makes uneven; filter 3 is 0.
        assert first.bias is not None
        assert batch_norm.running_mean is not None
        first.bias[2:4] = batch_norm.running_mean[2:4]
        batch_norm.bias[2], batch_norm.bias[3] = 1, -1
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["0.0.weight"][2:4] = False
    kept["2.0.weight"][:, 5] = False  # not read: the first layer's filter 5
    kept["2.0.weight"][7] = False  # not fed: a constant for the linear layer's bias
    kept["5.weight"][:, 16 : 3 * 16] = False  # blocks of columns: filters 1 and 2 are not read
    kept["5.weight"][:, 3 * 16 : 4 * 16 - 1] = False  # all but one pixel of filter 3
    masks = Masks(kept)
    small = shrink(network, masks, IMAGE)
    assert _weights(small) == {
        "0.0": (6, 3, 3, 3),
        "2.0": (7, 6, 3, 3),
        "5": (16, 112),
        "7": (10, 16),
    }
    _check_same(small, network, masks, IMAGE)


def test_the_bias_of_a_convolution_without_padding_absorbs_a_constant() -> None:
    network = _ready(
        nn.Sequential(
            nn.Conv2d(3, 5, 3),
            nn.BatchNorm2d(5),
            nn.Conv2d(5, 4, 3, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 2, 3, padding=1),
        ),
        IMAGE,
    )
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    for name in ("0.weight", "2.weight", "4.weight"):
        kept[name][0] = False
    masks = Masks(kept)
    with torch.no_grad():
        network.get_parameter("4.bias")[0] = 1.0
    small = shrink(network, masks, IMAGE)
    assert _weights(small) == {
        "0": (4, 3, 3, 3),
        "2": (3, 4, 3, 3),
        "4": (6, 3, 1, 1),
        "6": (2, 6, 3, 3),
    }
    _check_same(small, network, masks, IMAGE)


def test_added_channels_are_removed_together_or_not_at_all() -> None:
    network = _ready(torchvision.models.resnet18(), IMAGE)
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["layer1.0.conv2.weight"][:, :10] = False
    for name in kept:
        # All layers that read the sum of layer2.
        if name in (
            "layer2.1.conv1.weight",
            "layer3.0.conv1.weight",
            "layer3.0.downsample.0.weight",
        ):
            kept[name][:, 20:50] = False
    kept["layer4.0.conv1.weight"][:, :9] = False  # the shortcut still reads them
    masks = Masks(kept)
    small = shrink(network, masks, IMAGE)
    widths = _weights(small)
    assert widths["layer1.0.conv1"][0] == 54
    for name in ("layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2"):
        assert widths[name][0] == 98
    assert widths["layer2.1.conv1"] == (128, 98, 3, 3)
    assert widths["layer3.1.conv2"][0] == 256
    _check_same(small, network, masks, IMAGE)


def test_padded_channels_stay_and_those_inside_a_block_are_removed() -> None:
    network = _ready(_option_a(), IMAGE)
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    for name in ("3.conv1.weight", "4.conv1.weight", "8.weight"):
        kept[name][:, :4] = False
    kept["4.conv2.weight"][:, :3] = False
    masks = Masks(kept)
    small = shrink(network, masks, IMAGE)
    widths = _weights(small)
    assert widths["0"][0] == 8
    assert widths["4.conv1"] == (13, 8, 3, 3)
    assert widths["4.conv2"] == (16, 13, 3, 3)
    _check_same(small, network, masks, IMAGE)


def test_filters_of_a_grouped_convolution_stay_and_later_ones_are_removed() -> None:
    network = _ready(_grouped(), IMAGE)
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["3.weight"][:3] = False
    kept["5.weight"][:, :5] = False
    kept["5.weight"][0] = False
    masks = Masks(kept)
    small = shrink(network, masks, IMAGE)
    assert _weights(small) == _weights(network) | {"5": (5, 12, 1, 1), "9": (10, 20)}
    _check_same(small, network, masks, IMAGE)


class Viewed(nn.Module):
    """A network whose code contains the number of filters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.conv2 = nn.Conv2d(6, 4, 3)
        self.linear = nn.Linear(4 * 28 * 28, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.relu(self.conv2(torch.relu(self.conv1(x)))).view(-1, 3136))
        return out


def test_filters_stay_if_the_code_depends_on_their_number() -> None:
    network = Viewed()
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["linear.weight"][:, : 28 * 28] = False
    kept["conv2.weight"][:, 1:3] = False
    masks = Masks(kept)
    small = shrink(network, masks, IMAGE)
    assert _weights(small) == {
        "conv1": (4, 3, 3, 3),
        "conv2": (4, 4, 3, 3),
        "linear": (5, 3136),
    }
    _check_same(small, network, masks, IMAGE)


def test_a_network_that_the_dependency_graph_does_not_support_stays_whole() -> None:
    network = _ready(torchvision.models.shufflenet_v2_x0_5(), IMAGE)
    masks = _blocks(network, share=0.3, seed=6)
    small = shrink(network, masks, IMAGE)
    assert _weights(small) == _weights(network)
    _check_same(small, network, masks, IMAGE)


def test_the_last_filter_of_a_layer_stays() -> None:
    network = _mlp()
    masks = Masks({"3.weight": np.zeros((9, 12), bool)})
    small = shrink(network, masks, torch.randn(1, 20))
    assert _weights(small) == {"0": (1, 20), "3": (1, 1), "5": (5, 1)}
    inputs = torch.randn(4, 20)
    assert torch.allclose(small(inputs), masked_copy(network, masks)(inputs), atol=1e-6)


def test_masks_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match=r"no weight 4\.weight"):
        shrink(_mlp(), Masks({"4.weight": np.ones((9, 12), bool)}), torch.randn(1, 20))


class Forked(nn.Module):
    """A forward pass that depends on the values of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Forked: cannot be traced by torch.fx"):
        shrink(Forked(), Masks({}), torch.randn(1, 20))


class Counting(nn.Module):
    """A forward pass that depends on how often it ran, which its graph does not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 5)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.linear(x) * self.calls
        return out


def test_files_that_compute_other_outputs_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^Counting: cannot be exported.* other outputs"):
        export(Counting(), Masks({}), torch.randn(1, 20), tmp_path / "small", onnx=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_a_network_with_a_hook_is_not_written(kind: str, tmp_path: Path) -> None:
    network = _mlp()
    hooked = network.get_submodule("3")
    if kind == "forward":
        hooked.register_forward_hook(lambda module, inputs, output: 1.1 * output)
    else:
        hooked.register_forward_pre_hook(lambda module, inputs: (1.1 * inputs[0],))
    with pytest.raises(InputError, match=r"^Sequential: .*computes other outputs; hooks"):
        export(network, Masks({}), torch.randn(1, 20), tmp_path / "small", onnx=False)
    assert not any(tmp_path.iterdir())


class Standardised(nn.Conv2d):
    """Applies its weight minus the mean of each filter, over the deviation."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        dims = (1, 2, 3)
        centred = self.weight - self.weight.mean(dims, keepdim=True)
        weight = centred / centred.std(dims, keepdim=True)
        out: Tensor = nn.functional.conv2d(input, weight, self.bias)
        return out


class Same(nn.Conv2d):
    """Applies its own weight, after padding."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        padded = nn.functional.pad(input, (1, 1, 1, 1))
        out: Tensor = nn.functional.conv2d(padded, self.weight, self.bias)
        return out


def test_layers_with_a_forward_of_their_own_are_counted(tmp_path: Path) -> None:
    network = nn.Sequential(
        Standardised(3, 8, 3),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 3)),
        nn.ReLU(),
        Same(6, 4, 3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    weights = np.array([3 * 8 * 9, 8 * 6 * 9, 6 * 4 * 9, 16 * 10])
    positions = np.array([30 * 30, 28 * 28, 28 * 28, 1])
    kept = np.ones((4, 6, 3, 3), bool)
    kept[1, 2] = False
    masks = Masks({"4.weight": kept})
    exported = export(network, masks, IMAGE, tmp_path / "small", onnx=False)
    assert exported.dense_weights == exported.exported_weights == weights.sum()
    assert exported.kept_weights == weights.sum() - 9
    assert exported.dense_multiply_adds == weights @ positions
    assert exported.exported_multiply_adds == weights @ positions
    network(IMAGE)  # its computed weights are as before


def test_pruned_entries_of_a_computed_weight_are_refused_by_name(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Standardised(4, 5, 3))
    masks = Masks({"1.weight": np.zeros((5, 4, 3, 3), bool)})
    with pytest.raises(InputError, match=r"^1\.weight: .*a weight that is computed"):
        export(network, masks, IMAGE, tmp_path / "small", onnx=False)


@pytest.mark.parametrize("name", ["option_a", "concatenated"])
def test_the_files_work_without_mint(name: str, tmp_path: Path) -> None:
    make, example = NETWORKS[name]
    network = _ready(make(), example)
    masks = _blocks(network, share=0.3, seed=3)
    folder = tmp_path / "below" / "small"
    exported = export(network, masks, example, folder, onnx=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "export.json",
        "network.py",
        "weights.safetensors",
    ]
    inputs = torch.randn(3, *example.shape[1:])
    safetensors.torch.save_file({"inputs": inputs}, tmp_path / "inputs.safetensors")
    script = (
        "import sys; sys.modules['mint'] = None\n"
        "from safetensors.torch import load_file, save_file\n"
        "from network import build\n"
        "outputs = build()(load_file(sys.argv[1])['inputs']).detach()\n"
        "save_file({'outputs': outputs}, sys.argv[2])"
    )
    paths = [str(tmp_path / f"{part}.safetensors") for part in ("inputs", "outputs")]
    subprocess.run([sys.executable, "-B", "-c", script, *paths], cwd=folder, check=True)
    found = safetensors.torch.load_file(paths[1])["outputs"]
    with torch.no_grad():
        expected = masked_copy(network, masks)(inputs)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()

    written = json.loads((folder / "export.json").read_text())
    assert Exported(**written | {"input_shape": tuple(written["input_shape"])}) == exported
    assert exported.dense_weights == sum(map(np.prod, _weights(network).values()))
    assert exported.kept_weights == exported.dense_weights - masks.pruned
    assert exported.exported_weights < exported.dense_weights
    assert exported.exported_multiply_adds < exported.dense_multiply_adds
    assert 0 <= exported.max_difference <= 1e-5 * float(expected.abs().max()) * 2
    assert exported.dense_ms > 0
    assert exported.exported_ms > 0


def test_remaining_pruned_weights_are_zero(tmp_path: Path) -> None:
    network = _ready(_option_a(), IMAGE)
    kept = {name: np.ones(shape, bool) for name, shape in _mask_shapes(network).items()}
    kept["5.conv1.weight"][3:, :5] = False
    export(network, Masks(kept), IMAGE, tmp_path / "small", onnx=False)
    weights = safetensors.torch.load_file(tmp_path / "small" / "weights.safetensors")
    assert not weights["5.conv1.weight"][3:, :5].any()
    assert torch.equal(weights["5.conv1.weight"][:3], network.get_parameter("5.conv1.weight")[:3])


def test_onnx_takes_any_batch_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = _ready(_option_a(), IMAGE)
    masks = _blocks(network, share=0.3, seed=4)
    export(network, masks, IMAGE, tmp_path / "small", onnx=True)
    session = onnxruntime.InferenceSession(tmp_path / "small" / "network.onnx")
    for batch in (1, 3):
        inputs = torch.randn(batch, 3, 32, 32)
        (found,) = session.run(None, {"input": inputs.numpy()})
        with torch.no_grad():
            expected = masked_copy(network, masks)(inputs).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


class Nuclear(nn.Module):
    """Takes a norm for which ONNX has no operation."""

    def forward(self, x: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.matrix_norm(x, "nuc")
        return norms


def test_onnx_that_computes_other_outputs_or_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeroed(network: nn.Module, *args: Any, **settings: Any) -> None:
        written = copy.deepcopy(network)
        with torch.no_grad():
            written.get_parameter("0.weight").zero_()
        write(written, *args, **settings)

    with pytest.raises(InputError, match="cannot be written as ONNX"):
        export(Nuclear(), Masks({}), torch.randn(1, 4, 4), tmp_path / "small", onnx=True)
    write = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", zeroed)
    with pytest.raises(InputError, match="ONNX: the file computes other outputs"):
        export(_mlp(), Masks({}), torch.randn(1, 20), tmp_path / "small", onnx=True)
    assert not any(tmp_path.iterdir())


def test_onnx_without_its_packages_is_refused_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "mint-pruning\[onnx\]"'):
        export(_mlp(), Masks({}), torch.randn(1, 20), tmp_path / "small", onnx=True)
    assert not any(tmp_path.iterdir())


def test_a_folder_with_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export(_mlp(), Masks({}), torch.randn(1, 20), tmp_path, onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"small: cannot be written"):
        export(_mlp(), Masks({}), torch.randn(1, 20), tmp_path / "file" / "small", onnx=False)


def test_a_module_whose_repr_omits_settings_is_refused_by_name(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2, count_include_pad=False))
    with pytest.raises(InputError, match=r"^1: AvgPool2d\(.*cannot be written as code"):
        export(network, Masks({}), IMAGE, tmp_path / "small", onnx=False)
    assert not any(tmp_path.iterdir())


def _mask_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape for name, shape in _weights(network).items()}


def test_a_network_that_cannot_be_exported_has_its_reason_before_it_is_trained() -> None:
    class Dependent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(inputs) if len(inputs) > 0 else inputs

    example = torch.zeros(1, 4)
    assert why_not_exported(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), example) is None
    assert "cannot be traced by torch.fx" in (why_not_exported(Dependent(), example) or "")
    assert "returns tuple" in (why_not_exported(nn.LSTM(4, 3), example) or "")
