"""Masks are saved, checked against the network, and hold while it trains."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from mint.errors import InputError
from mint.pruning.masks import Masks, apply_masks


def test_masks_of_another_network_are_refused() -> None:
    network = nn.Sequential(OrderedDict(first=nn.Linear(3, 2), second=nn.Linear(2, 2)))
    Masks({"second.weight": np.ones((2, 2), bool)}).check_fit(network)
    with pytest.raises(InputError, match=r"no weight secon\.weight; did you mean second\.weight"):
        Masks({"secon.weight": np.ones((2, 2), bool)}).check_fit(network)
    with pytest.raises(InputError, match=r"first\.weight is \(2, 2\), the weight \(2, 3\)"):
        Masks({"first.weight": np.ones((2, 2), bool)}).check_fit(network)


def test_masks_are_saved_and_loaded(tmp_path: Path) -> None:
    masks = Masks({"w": np.eye(5, dtype=bool), "v": np.ones((2, 3), bool)})
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert loaded.digest == masks.digest
    assert loaded.pruned == 20
    assert loaded.prunable == 31
    zeros = [int((t == 0).sum()) for t in _tensors(tmp_path / "masks.safetensors")]
    assert sum(zeros) == 20
    assert repr(masks).splitlines() == [
        "v    pruned 0 of 6, 0.00%",
        "w    pruned 20 of 25, 80.00%",
        "all  pruned 20 of 31, 64.52%",
    ]


def test_files_and_arrays_that_are_not_masks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        Masks.load(path)
    safetensors.numpy.save_file({"w": np.full((2, 2), 2, np.uint8)}, path)
    with pytest.raises(InputError, match="other than 0 and 1"):
        Masks.load(path)
    with pytest.raises(TypeError, match="booleans"):
        Masks({"w": np.ones((2, 2), np.uint8)})


def _tensors(path: Path) -> list[np.ndarray]:
    return list(safetensors.numpy.load_file(path).values())


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
    ],
)
def test_masks_hold_in_any_training_loop_and_only_inside_the_block(
    optimizer: Callable[..., torch.optim.Optimizer], settings: dict[str, float]
) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # other weights may leave a filter that is never active
        network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    network.get_parameter("0.weight").requires_grad_(False)
    weights = {name: network.get_parameter(name) for name in ("0.weight", "2.weight")}
    random = np.random.default_rng(0)
    masks = Masks({name: random.random(tuple(w.shape)) < 0.5 for name, w in weights.items()})

    def train() -> None:
        trained = optimizer(network.parameters(), lr=0.01, **settings)
        for _ in range(5):
            trained.zero_grad()
            inputs = torch.randn(16, 8, generator=generator)
            network(inputs).square().sum().backward()
            trained.step()

    with apply_masks(network, masks):
        begun = weights["2.weight"].detach().clone()
        train()
        for name, mask in masks.items():
            assert np.array_equal(weights[name].detach().numpy() != 0, mask)
        moved = (weights["2.weight"] != begun).numpy()
        assert np.array_equal(moved, masks["2.weight"])
    train()
    assert (weights["2.weight"] != 0).all()


def test_masks_of_another_network_change_no_weight() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    weight = network.get_parameter("0.weight")
    masks = {"0.weight": np.zeros((3, 4), bool), "1.weight": np.zeros((2, 4), bool)}
    refused = pytest.raises(InputError, match=r"mask of 1\.weight is \(2, 4\), the weight \(2, 3\)")
    with refused, apply_masks(network, masks):
        pass
    assert (weight != 0).all()
