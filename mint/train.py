"""The one training loop: it trains the baseline, and retrains under masks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mint.config import TrainingConfig
from mint.data import Dataset, Split
from mint.errors import TrainingDivergedError
from mint.seeds import stream, torch_seeded


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind: mean training loss (nats) and validation accuracy (percent)."""

    epoch: int
    loss: float
    validation_accuracy: float


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingConfig,
    *,
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
) -> list[Epoch]:
    """Train the model in place and return its history; the last epoch counts, none is chosen.

    Args:
        model: on the data's device.
        dataset: its training part is learnt, its validation part watched.
        settings: SGD, its schedule and the number of epochs.
        seed: of the batches' order and of dropout.
        masks: for a parameter's name, 1 where its weight is kept and 0 where it is held at zero.

    Raises:
        TrainingDivergedError: the loss is no longer finite.
    """
    if masks:
        _hold_at_zero(model, masks)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, list(settings.milestones), settings.gamma
    )
    device = dataset.train.inputs.device
    order_of_rows = stream(seed, "batch order")
    history = []
    with torch_seeded(seed, "dropout", device):
        for number in range(1, settings.epochs + 1):
            order = torch.from_numpy(order_of_rows.permutation(len(dataset.train))).to(device)
            loss = _epoch(model, dataset.train, order, settings.batch_size, optimizer)
            schedule.step()
            if not math.isfinite(loss):
                raise TrainingDivergedError(
                    f"the training loss is {loss} in epoch {number} (lr {settings.lr})"
                )
            history.append(Epoch(number, loss, accuracy(model, dataset.validation)))
    return history


def accuracy(model: nn.Module, split: Split, *, batch_size: int = 4096) -> float:
    """Return the top-1 accuracy in percent, with dropout and the like switched off."""
    model.eval()
    correct = 0
    with torch.inference_mode():
        for inputs, labels in zip(
            split.inputs.split(batch_size), split.labels.split(batch_size), strict=True
        ):
            correct += int((model(inputs).argmax(1) == labels).sum())
    return 100 * correct / len(split)


def _epoch(
    model: nn.Module, split: Split, order: Tensor, batch_size: int, optimizer: torch.optim.SGD
) -> float:
    model.train()
    losses = []
    for rows in order.split(batch_size):
        loss = nn.functional.cross_entropy(model(split.inputs[rows]), split.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(np.mean(torch.stack(losses).cpu().numpy()))


def _hold_at_zero(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    # A weight that starts at zero and whose gradient is zero stays there under SGD: momentum
    # and weight decay only multiply zeros. So one multiply a step holds the mask.
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameter = parameters[name]
        kept = mask.to(parameter.device, parameter.dtype)
        with torch.no_grad():
            parameter.mul_(kept)

        def mask_gradient(updated: Tensor, kept: Tensor = kept) -> None:
            assert updated.grad is not None
            updated.grad.mul_(kept)

        parameter.register_post_accumulate_grad_hook(mask_gradient)
