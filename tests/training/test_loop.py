"""Training learns, is reproducible, resumes from a checkpoint, and keeps pruned weights at zero."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mint.config.schema import DataConfig, TrainingConfig
from mint.data.datasets import Source
from mint.data.loading import Dataset, split_source
from mint.errors import TrainingDivergedError
from mint.models.mlp import mlp
from mint.rng import torch_seeded
from mint.training import checkpoint as checkpoint_module
from mint.training.epoch import Epoch
from mint.training.loop import accuracy, train

CPU = torch.device("cpu")
SETTINGS = TrainingConfig(
    epochs=3,
    batch_size=64,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    milestones=(2,),
)
# Every setting that multilayer perceptrons do not use.
CONVOLUTIONAL = SETTINGS.model_copy(
    update={
        "schedule": "cosine",
        "label_smoothing": 0.1,
        "precision": "bfloat16",
        "channels_last": True,
    }
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, two threads wait for each other during most of a step this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _network(seed: int = 0) -> nn.Sequential:
    with torch_seeded(seed, "initial weights", CPU):
        return mlp((64, 50, 30, 10), 0.2)


def _convolutional() -> nn.Sequential:
    with torch_seeded(0, "initial weights", CPU):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(16 * 9, 10),
        )


@pytest.fixture(scope="module")
def augmented(digits: Source) -> Dataset:
    data = DataConfig(name="digits", validation_size=280, augmentation="crop_flip")
    return split_source(digits, data, seed=0, device=CPU)


def _weights(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def test_training_learns(digits_dataset: Dataset) -> None:
    network = _network()
    untrained = accuracy(network, digits_dataset.test)
    history = train(network, digits_dataset, SETTINGS.model_copy(update={"epochs": 10}), seed=0)
    assert untrained < 30
    assert accuracy(network, digits_dataset.test) > 90
    assert [epoch.epoch for epoch in history] == list(range(1, 11))
    assert history[-1].loss < history[0].loss / 2
    assert all(epoch.seconds > 0 for epoch in history)


def test_convolutional_network_learns_in_bfloat16(digits_dataset: Dataset) -> None:
    network = _convolutional()
    train(network, digits_dataset, CONVOLUTIONAL, seed=0)
    assert accuracy(network, digits_dataset.test) > 90
    assert accuracy(network, digits_dataset.test, CONVOLUTIONAL) > 90
    for parameter in network.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()


def test_zero_epochs_leave_the_network_unchanged(digits_dataset: Dataset, tmp_path: Path) -> None:
    network = _convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert (
        train(network, digits_dataset, CONVOLUTIONAL.model_copy(update={"epochs": 0}), seed=0) == []
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_zero_epochs_apply_the_masks(digits_dataset: Dataset) -> None:
    network = _network()
    mask = torch.rand(30, 50) < 0.5
    train(
        network,
        digits_dataset,
        SETTINGS.model_copy(update={"epochs": 0}),
        seed=0,
        masks={"fc2.weight": mask},
    )
    assert torch.equal(network.get_parameter("fc2.weight") != 0, mask)


def test_weights_depend_on_the_seed_alone(augmented: Dataset) -> None:
    def weights(seed: int) -> Tensor:
        network = _network()
        train(network, augmented, SETTINGS, seed=seed)
        return _weights(network)

    first = weights(0)
    torch.rand(7)
    np.random.default_rng().random(7)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_training_does_not_advance_the_global_generator(digits_dataset: Dataset) -> None:
    before = torch.get_rng_state()
    train(_network(), digits_dataset, SETTINGS, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_augments_differently(
    augmented: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = []
    network = _network()
    network.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0].double().sum()))
    train(network, augmented, SETTINGS.model_copy(update={"epochs": 2}), seed=0)
    batches = math.ceil(len(augmented.train) / 64)
    of_epoch = sums[:batches], sums[batches + 1 : -1]
    # The sum over all images depends on their shifts, not on their order.
    assert len(of_epoch[1]) == batches
    assert abs(float(sum(of_epoch[0]) - sum(of_epoch[1]))) > 1


@pytest.mark.parametrize("schedule", ["milestones", "cosine"])
def test_learning_rates(
    digits_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    rates = []
    step = torch.optim.SGD.step

    def recorded_step(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded_step)
    settings = SETTINGS.model_copy(update={"schedule": schedule})
    train(_network(), digits_dataset, settings, seed=0)
    steps = math.ceil(len(digits_dataset.train) / 64)
    if schedule == "milestones":
        expected = [0.1] * (2 * steps) + [0.01] * steps
    else:
        expected = [0.05 * (1 + math.cos(math.pi * k / (3 * steps))) for k in range(3 * steps)]
    assert rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "settings", "name", "shape"),
    [
        (_network, SETTINGS, "fc2.weight", (30, 50)),
        (_network, SETTINGS.model_copy(update={"nesterov": False}), "fc2.weight", (30, 50)),
        (_convolutional, CONVOLUTIONAL, "3.weight", (16, 4, 3, 3)),
    ],
)
def test_masked_weights_are_zero_after_every_step(
    digits_dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[], nn.Module],
    settings: TrainingConfig,
    name: str,
    shape: tuple[int, ...],
) -> None:
    network = build()
    train(network, digits_dataset, settings, seed=0)
    mask = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.3)
    weight = network.get_parameter(name)
    steps = 0
    step = torch.optim.SGD.step

    def checked_step(self: torch.optim.SGD) -> None:
        nonlocal steps
        step(self)
        assert torch.all(weight[~mask] == 0)
        steps += 1

    before = weight.detach().clone()
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.SGD, "step", checked_step)
        train(network, digits_dataset, settings, seed=0, masks={name: mask})
    assert steps == 3 * math.ceil(len(digits_dataset.train) / 64)
    assert not torch.equal(weight[mask], before[mask])
    assert int((weight == 0).sum()) == int((~mask).sum())
    # The masks do not outlast that training.
    train(network, digits_dataset, settings, seed=0)
    assert int((weight == 0).sum()) < int((~mask).sum())


@pytest.mark.parametrize(
    ("build", "settings"), [(_network, SETTINGS), (_convolutional, CONVOLUTIONAL)]
)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_resumed_training_reaches_the_same_bits(
    augmented: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[], nn.Module],
    settings: TrainingConfig,
    stop_after: int,
) -> None:
    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", 0)
    settings = settings.model_copy(update={"epochs": 4})
    name, weight = list(build().named_parameters())[-2]
    masks = {name: torch.from_numpy(np.random.default_rng(0).random(tuple(weight.shape)) < 0.5)}

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == stop_after:
            raise KeyboardInterrupt

    uninterrupted = build()
    expected = train(uninterrupted, augmented, settings, seed=0, masks=masks)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(
            build(), augmented, settings, seed=0, masks=masks, checkpoint=checkpoint, on_epoch=stop
        )
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    resumed, epochs = build(), []
    history = train(
        resumed,
        augmented,
        settings,
        seed=0,
        masks=masks,
        checkpoint=checkpoint,
        on_epoch=lambda epoch: epochs.append(epoch.epoch),
    )
    assert epochs == list(range(stop_after + 1, 5))
    assert [(epoch.loss, epoch.validation_accuracy) for epoch in history] == [
        (epoch.loss, epoch.validation_accuracy) for epoch in expected
    ]
    state = uninterrupted.state_dict()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, state[name]), name
    # From the last checkpoint, no epoch is left to train.
    again = build()
    assert train(again, augmented, settings, seed=0, checkpoint=checkpoint) == history
    assert torch.equal(_weights(again), _weights(uninterrupted))


@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "foreign", "other seed"])
def test_unusable_checkpoint_restarts_the_training(
    digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", 0)
    checkpoint = tmp_path / "checkpoint.pt"
    settings = SETTINGS.model_copy(update={"epochs": 2})
    seed = 1 if damage == "other seed" else 0
    train(_network(), digits_dataset, settings, seed=seed, checkpoint=checkpoint)
    content = checkpoint.read_bytes()
    if damage == "half":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        checkpoint.write_bytes(
            content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        )
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "foreign":
        torch.save([torch.ones(3)], checkpoint)
    network, uninterrupted = _network(), _network()
    with pytest.warns(UserWarning, match=r"checkpoint\.pt: training restarts"):
        train(network, digits_dataset, settings, seed=0, checkpoint=checkpoint)
    train(uninterrupted, digits_dataset, settings, seed=0)
    assert torch.equal(_weights(network), _weights(uninterrupted))


def test_short_training_writes_no_checkpoint(digits_dataset: Dataset, tmp_path: Path) -> None:
    train(_network(), digits_dataset, SETTINGS, seed=0, checkpoint=tmp_path / "checkpoint.pt")
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_reported(digits_dataset: Dataset) -> None:
    wild = SETTINGS.model_copy(update={"lr": 1e9})
    with pytest.raises(TrainingDivergedError, match=r"epoch \d .*lr 1000000000"):
        train(_network(), digits_dataset, wild, seed=0)


def test_last_batch_of_one_image_is_left_out(digits: Source) -> None:
    data = DataConfig(name="digits", validation_size=284)  # 1153 are left: 18 batches and one
    dataset = split_source(digits, data, seed=0, device=CPU)
    assert len(dataset.train) % SETTINGS.batch_size == 1
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    for settings in (SETTINGS, CONVOLUTIONAL):
        assert len(train(network, dataset, settings.model_copy(update={"epochs": 1}), seed=0)) == 1
