"""Networks are built by name, and a user's own networks are checked."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue
from torch import nn

from mint.config.schema import NetworkConfig
from mint.errors import InputError
from mint.models import build_network, source_digest


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module own_networks."""
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


def test_a_users_function_builds_a_network(own_folder: Path) -> None:
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


def test_the_digest_follows_the_source_of_a_users_network(own_folder: Path) -> None:
    config = NetworkConfig(name="own_networks:build", arguments={"width": 7})
    before = source_digest(config)
    assert before is not None
    assert len(bytes.fromhex(before)) == 8
    assert source_digest(NetworkConfig(name="own_networks:number")) == before
    file = own_folder / "own_networks.py"
    file.write_text(file.read_text() + "# edited\n")
    assert source_digest(config) != before
    assert source_digest(NetworkConfig(name="vgg16", arguments={"classes": 10})) is None
