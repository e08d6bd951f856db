"""Networks are built by name, and a user's own networks are checked."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue
from torch import nn

from mint.config.schema import NetworkConfig
from mint.errors import InputError
from mint.models.registry import build_network


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module own_networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\nfrom torch.nn import Linear\n\n"
        "def build(width) -> nn.Module:\n"
        "    if width < 1:\n"
        "        raise ValueError('width must be\\nat least 1')\n"
        "    return nn.Linear(4, width)\n\n"
        "def number() -> nn.Module:\n    return 3\n\n"
        "def unannotated():\n    return nn.Linear(4, 2)\n\n"
        "class Network(nn.Linear):\n"
        "    def __init__(self) -> None:\n"
        "        super().__init__(4, 2)\n"
    )
    yield tmp_path
    sys.modules.pop("own_networks", None)


def test_a_users_function_builds_a_network(own_folder: Path) -> None:
    network = build_network(NetworkConfig(name="own_networks:build", arguments={"width": 7}))
    assert isinstance(network, nn.Linear)
    assert network.out_features == 7
    assert isinstance(build_network(NetworkConfig(name="own_networks:Network")), nn.Linear)
    resnet = NetworkConfig(name="torchvision.models:resnet18", arguments={"num_classes": 3})
    assert build_network(resnet).get_parameter("fc.bias").shape == (3,)


@pytest.mark.parametrize(
    ("name", "image", "parameters"),
    [
        ("lenet5", (1, 28, 28), 61_706),  # LeCun et al. 1998, with every filter of conv2 connected
        ("resnet8", (3, 32, 32), 75_290),
        ("resnet56", (3, 32, 32), 853_018),  # He et al. 2016: 0.85 million
    ],
)
def test_networks_have_the_published_size(
    name: str, image: tuple[int, ...], parameters: int
) -> None:
    network = build_network(NetworkConfig(name=name, arguments={"classes": 10}))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.rand(2, *image)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("own_network:build", {}, "own_network cannot be imported: ModuleNotFoundError"),
        ("own_networks:built", {}, "own_networks has no function built; did you mean build?"),
        ("own_networks:build", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("own_networks:build", {"width": 0}, "width must be at least 1"),
        ("own_networks:number", {}, "must return an nn.Module, not int"),
        ("own_networks:unannotated", {}, "must be a class of nn.Module, or a function annotated"),
        ("own_networks:nn", {}, "must be a class of nn.Module, or a function annotated"),
        ("own_networks:Linear", {}, "is defined in torch.nn.modules.linear; name it there"),
        ("os:system", {"command": "touch ran"}, "must be a class of nn.Module"),
        ("subprocess:run", {"args": ["touch", "ran"]}, "must be a class of nn.Module"),
        ("broken:build", {}, "broken cannot be imported: SyntaxError"),
        ("mlp", {"widths": [4, 2]}, "widths [4, 2]: "),
        ("mlp", {"widths": [4, 0, 2]}, "widths.1 0: "),
        ("mlp", {"widths": [4, 3, 2], "dropout": 1}, "dropout 1: "),
        ("mlp", {}, "missing key widths"),
        ("vgg16", {"classes": "ten"}, "classes 'ten': "),
        ("resnet56", {"classes": 0}, "classes 0: "),
        ("resnet50", {"class": 10}, "class 10: "),
    ],
)
def test_a_network_that_cannot_be_built_is_a_one_line_error(
    own_folder: Path, name: str, arguments: dict[str, JsonValue], message: str
) -> None:
    (own_folder / "broken.py").write_text("def build(:\n")
    with pytest.raises(InputError) as raised:
        build_network(NetworkConfig(name=name, arguments=arguments))
    assert str(raised.value).startswith(f"network {name}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (own_folder / "ran").exists()
