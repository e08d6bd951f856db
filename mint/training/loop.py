"""The training loop: trains the baseline, and retrains under masks."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
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
from mint.training.epoch import Epoch, evaluation_batch_size

_SGD_FIELDS = {"lr", "momentum", "nesterov", "weight_decay"}


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingConfig,
    *,
    seed: int,
    masks: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    on_checkpoint: Callable[[Path], None] = lambda path: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train the model in place, up to the last epoch, and return its history.

    The model is on the data's device. The validation part gives the accuracies. The seed determines
    the order of batches, the augmentation and dropout. Masks are 1 where a weight is kept and 0
    where it is pruned. The checkpoint is a file of this training alone, written now and then. If it
    exists, training resumes from it, to the same weights as without an interruption. The caller
    removes it.

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
        optimizer = SGD(model.parameters(), **settings.model_dump(include=_SGD_FIELDS))
        steps = settings.epochs * math.ceil(used / settings.batch_size)
        schedule: LRScheduler = (
            CosineAnnealingLR(optimizer, max(1, steps))
            if settings.schedule == "cosine"
            else MultiStepLR(optimizer, list(settings.milestones), settings.gamma)
        )
        identity = f"{settings!r}, seed {seed}, {len(split)} rows on {device.type}, {model}"
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        saved = Checkpoint(checkpoint, identity, parts, device)
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
            if checkpoint and saved.write_if_due([asdict(epoch) for epoch in history]):
                on_checkpoint(checkpoint)
            on_epoch(history[-1])
    model.to(memory_format=torch.contiguous_format)
    return history


def accuracy(model: nn.Module, split: Split, settings: TrainingConfig | None = None) -> float:
    """Return the top-1 accuracy in percent of a model on the data's device.

    The settings give precision and memory format: by default float32 and contiguous images.
    """
    model.eval()
    values = split.images.shape[1] * math.prod(split.side)
    with torch.inference_mode():
        correct = sum(
            int((_logits(model, inputs, settings).argmax(1) == labels).sum())
            for inputs, labels in split.batches(evaluation_batch_size(values))
        )
    return 100 * correct / len(split)


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


def _logits(model: nn.Module, inputs: Tensor, settings: TrainingConfig | None) -> Tensor:
    half = settings is not None and settings.precision == "bfloat16"
    if settings is not None and settings.channels_last:
        inputs = inputs.to(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        logits: Tensor = model(inputs)
    return logits.float()
