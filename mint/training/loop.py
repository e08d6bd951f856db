"""The training loop: trains the baseline, and retrains under masks."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from mint.config.schema import TrainingConfig
from mint.data.loading import Dataset, Split
from mint.errors import TrainingDivergedError
from mint.pruning.masks import apply_masks
from mint.rng import stream, torch_seeded
from mint.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    Attributes:
        epoch: number, from 1.
        loss: mean over the training batches (nats).
        validation_accuracy: top-1, in percent.
        seconds: time of training and validation.
    """

    epoch: int
    loss: float
    validation_accuracy: float
    seconds: float


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingConfig,
    *,
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train the model in place, up to the last epoch, and return its history.

    Args:
        model: on the data's device.
        dataset: the training part is learned; the validation part gives the accuracies.
        settings: SGD, its schedule and the number of epochs.
        seed: seeds the order of batches, the augmentation and dropout.
        masks: by parameter name, 1 where a weight is kept and 0 where it is pruned.
        checkpoint: file of this training alone, written now and then. If it exists, training
            resumes from it, to the same weights as without an interruption. The caller removes it.
        on_checkpoint: called after every write of the checkpoint.
        on_epoch: called after every epoch.

    Raises:
        TrainingDivergedError: the loss is not finite.
        InputError: an image cannot be read.
    """
    split, device = dataset.train, dataset.train.labels.device
    # Batch normalisation needs two images: a last batch of one is left out.
    used = len(split) - (len(split) % settings.batch_size == 1 < len(split))
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    with apply_masks(model, masks or {}), torch_seeded(seed, "dropout", device):
        optimizer, schedule = _sgd(model, settings, math.ceil(used / settings.batch_size))
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        identity = f"{settings!r}, seed {seed}, {len(split)} rows on {device.type}, {model}"
        saved = Checkpoint(checkpoint, identity, parts, device, on_checkpoint)
        history = [Epoch(**epoch) for epoch in saved.restore()]
        order = stream(seed, "batch order")
        for number in range(1, settings.epochs + 1):
            rows = order.permutation(len(split))
            if number <= len(history):  # restored
                continue
            start = time.perf_counter()
            augment = stream(seed, f"augmentation {number}")
            batches = split.batches(settings.batch_size, rows[:used], augment)
            loss = _train_epoch(model, batches, settings, optimizer, schedule)
            if not math.isfinite(loss):
                raise TrainingDivergedError(f"loss {loss} in epoch {number} (lr {settings.lr})")
            reached = accuracy(model, dataset.validation, settings)
            history.append(Epoch(number, loss, reached, time.perf_counter() - start))
            saved.write_if_due([asdict(epoch) for epoch in history])
            if on_epoch:
                on_epoch(history[-1])
    model.to(memory_format=torch.contiguous_format)
    return history


def accuracy(model: nn.Module, split: Split, settings: TrainingConfig | None = None) -> float:
    """Return the top-1 accuracy in percent, in evaluation mode.

    Args:
        model: on the data's device.
        split: the images to classify.
        settings: precision and memory format; None for float32 and contiguous images.
    """
    model.eval()
    correct = 0
    with torch.inference_mode():
        values = split.images.shape[1] * split.side[0] * split.side[1]
        for inputs, labels in split.batches(evaluation_batch_size(values)):
            correct += int((_logits(model, inputs, settings).argmax(1) == labels).sum())
    return 100 * correct / len(split)


def evaluation_batch_size(values: int) -> int:
    """Return how many images of so many values hold four million, from 128 to 4096."""
    return min(4096, max(128, 2**22 // values))


def _train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    settings: TrainingConfig,
    optimizer: SGD,
    schedule: LRScheduler,
) -> float:
    """Train on every batch once and return the mean loss."""
    model.train()
    losses = []
    for inputs, labels in batches:
        logits = _logits(model, inputs, settings)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if settings.schedule == "cosine":
            schedule.step()
        losses.append(loss.detach())
    if settings.schedule == "milestones":
        schedule.step()
    return float(np.mean(torch.stack(losses).cpu().numpy()))


def _sgd(model: nn.Module, settings: TrainingConfig, steps: int) -> tuple[SGD, LRScheduler]:
    """Return the optimizer and its schedule for so many steps an epoch."""
    names = {"lr", "momentum", "nesterov", "weight_decay"}
    optimizer = SGD(model.parameters(), **settings.model_dump(include=names))
    if settings.schedule == "cosine":
        return optimizer, CosineAnnealingLR(optimizer, max(1, settings.epochs * steps))
    return optimizer, MultiStepLR(optimizer, list(settings.milestones), settings.gamma)


def _logits(model: nn.Module, inputs: Tensor, settings: TrainingConfig | None) -> Tensor:
    half = settings is not None and settings.precision == "bfloat16"
    if settings is not None and settings.channels_last:
        inputs = inputs.to(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        logits: Tensor = model(inputs)
    return logits.float()
