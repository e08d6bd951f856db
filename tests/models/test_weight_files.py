"""Weights are loaded from files, and only if they fit the network."""

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mint.errors import InputError
from mint.models.mlp import mlp
from mint.models.registry import PUBLISHED_NAMES
from mint.models.resnet import resnet56
from mint.models.weight_files import load_weights


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
def test_weights_are_loaded_from_every_wrapping(tmp_path: Path, wrapped: Any) -> None:
    saved, loaded = resnet56(10), resnet56(10)
    torch.save(wrapped(saved.state_dict()), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in saved.state_dict().items())


def test_published_module_names_are_mapped_one_to_one(tmp_path: Path) -> None:
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
        InputError, match=r"wrong shape fc2.weight \(5, 3\) instead of \(3, 3\), .* fc3.weight"
    ):
        load_weights(network, tmp_path / "other.pt", {"fc9": "fc1"})
    torch.save(mlp((4, 3, 2)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"missing fc3.weight, fc3.bias; wrong shape fc2.weight"):
        load_weights(network, tmp_path / "other.pt")
    torch.save({**state, "head.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r": unexpected head.weight$"):
        load_weights(network, tmp_path / "other.pt")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


class Code:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by unpickling",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_other_files_are_refused_and_run_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    network = mlp((4, 3, 2))
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        load_weights(network, path)
    for content in (b"", b"no weights at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not a file of weights"):
            load_weights(network, path)
    torch.save({"state_dict": network.state_dict(), "code": Code()}, path)
    with pytest.raises(InputError, match=r"not a file of weights"):
        load_weights(network, path)
    assert not (tmp_path / "made by unpickling").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(2)])
def test_files_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"no state_dict in it"):
        load_weights(mlp((4, 3, 2)), tmp_path / "weights.pt")


def test_weights_that_are_not_finite_or_not_real_are_refused(tmp_path: Path) -> None:
    network = mlp((4, 3, 2), 0.0)
    state = network.state_dict()
    state["fc2.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"not finite fc2\.weight"):
        load_weights(mlp((4, 3, 2), 0.0), tmp_path / "weights.pt")
    torch.save({"fc1.weight": torch.zeros(3, 4, dtype=torch.complex64)}, tmp_path / "complex.pt")
    with pytest.raises(InputError, match="dense real tensors"):
        load_weights(network, tmp_path / "complex.pt")


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "float8_e4m3fn"])
def test_quantised_weights_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    network = mlp((4, 3, 2), 0.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    quantised = (100 * before["fc2.weight"]).to(getattr(torch, kind))
    torch.save({**before, "fc2.weight": quantised}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=rf"wrong type fc2\.weight {kind} instead of float32$"):
        load_weights(network, tmp_path / "weights.pt")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_loaded(tmp_path: Path, kind: torch.dtype) -> None:
    saved, loaded = resnet56(10).to(kind), resnet56(10)
    torch.save(saved.state_dict(), tmp_path / "weights.pt")
    load_weights(loaded, tmp_path / "weights.pt")
    state = loaded.state_dict()
    assert all(torch.equal(value.float(), state[key]) for key, value in saved.state_dict().items())
