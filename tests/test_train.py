"""Training learns, repeats itself, and holds masks at zero after every step."""

import numpy as np
import pytest
import torch
from torch import nn

from mint.config import Experiment
from mint.data import Dataset
from mint.errors import TrainingDivergedError
from mint.networks import mlp
from mint.seeds import torch_seeded
from mint.train import accuracy, train

CPU = torch.device("cpu")


def _network(seed: int = 0) -> nn.Sequential:
    with torch_seeded(seed, "initial weights", CPU):
        return mlp((64, 50, 30, 10), 0.2)


def test_training_learns(quick: Experiment, digits_dataset: Dataset) -> None:
    network = _network()
    untrained = accuracy(network, digits_dataset.test)
    history = train(network, digits_dataset, quick.training.with_epochs(10), seed=0)
    assert untrained < 30
    assert accuracy(network, digits_dataset.test) > 90
    assert [epoch.epoch for epoch in history] == list(range(1, 11))
    assert history[-1].loss < history[0].loss / 2


def test_same_seed_same_weights_whatever_was_drawn_before(
    quick: Experiment, digits_dataset: Dataset
) -> None:
    def weights(seed: int) -> torch.Tensor:
        network = _network()
        train(network, digits_dataset, quick.training, seed=seed)
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    first = weights(0)
    torch.rand(7)
    np.random.default_rng().random(7)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_training_leaves_the_global_generator_alone(
    quick: Experiment, digits_dataset: Dataset
) -> None:
    before = torch.get_rng_state()
    train(_network(), digits_dataset, quick.training, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_masked_weights_are_zero_after_every_step(
    quick: Experiment, digits_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    train(network, digits_dataset, quick.training, seed=0)
    mask = torch.from_numpy(np.random.default_rng(0).random((30, 50)) < 0.3)
    weight = network.get_submodule("fc2").weight
    assert isinstance(weight, nn.Parameter)
    steps = 0
    step = torch.optim.SGD.step

    def checked_step(self: torch.optim.SGD) -> None:
        nonlocal steps
        step(self)
        assert torch.all(weight[~mask] == 0)
        steps += 1

    monkeypatch.setattr(torch.optim.SGD, "step", checked_step)
    before = weight.detach().clone()
    train(network, digits_dataset, quick.training, seed=0, masks={"fc2.weight": mask})
    assert steps == 3 * int(np.ceil(len(digits_dataset.train) / 64))
    assert not torch.equal(weight[mask], before[mask])
    assert int((weight == 0).sum()) == int((~mask).sum())


def test_divergence_is_told(quick: Experiment, digits_dataset: Dataset) -> None:
    wild = quick.training.model_copy(update={"lr": 1e9})
    with pytest.raises(TrainingDivergedError, match=r"epoch \d .*lr 1000000000"):
        train(_network(), digits_dataset, wild, seed=0)
