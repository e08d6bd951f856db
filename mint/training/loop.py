"""The one training loop: it trains the baseline, and retrains under masks."""

import math
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from mint.config.schema import TrainingConfig
from mint.data.loading import Dataset, Split
from mint.errors import TrainingDivergedError, first_line
from mint.pruning.masks import apply_masks
from mint.rng import stream, torch_seeded

# Between two checkpoints: small networks then never stop to write one.
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind.

    Attributes:
        epoch: from 1.
        loss: mean over the training batches (nats).
        validation_accuracy: percent.
        seconds: of training and validation.
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
    """Train the model in place and return its history; the last epoch counts, none is chosen.

    Args:
        model: on the data's device.
        dataset: its training part is learnt, its validation part watched.
        settings: SGD, its schedule and the number of epochs.
        seed: of the batches' order, of augmentation and of dropout.
        masks: for a parameter's name, 1 where its weight is kept and 0 where it is held at zero.
        checkpoint: file of this training alone that is written now and then; where it is there
            already, the training carries on from it, to the same weights as if it had never been
            stopped. It is the caller's to remove.
        on_checkpoint: called whenever it was written.
        on_epoch: called after every epoch.

    Raises:
        TrainingDivergedError: the loss is no longer finite.
        InputError: an image cannot be read.
    """
    with _laid_out(model, settings), apply_masks(model, masks or {}):
        run = _Run(model, dataset, settings, seed)
        device = dataset.train.labels.device
        with torch_seeded(seed, "dropout", device):
            if checkpoint and checkpoint.exists():
                run.resume(checkpoint)
            written = time.monotonic()
            while len(run.history) < settings.epochs:
                epoch = run.epoch()
                if checkpoint and time.monotonic() - written >= CHECKPOINT_SECONDS:
                    run.save(checkpoint)
                    if on_checkpoint:
                        on_checkpoint(checkpoint)
                    written = time.monotonic()
                if on_epoch:
                    on_epoch(epoch)
    return run.history


def accuracy(model: nn.Module, split: Split, settings: TrainingConfig | None = None) -> float:
    """Return the top-1 accuracy in percent, with dropout and the like switched off.

    Args:
        model: on the data's device.
        split: to classify.
        settings: whose precision and memory layout to use; None for float32 as it comes.
    """
    model.eval()
    correct = 0
    with torch.inference_mode():
        values = split.images.shape[1] * split.side[0] * split.side[1]
        for inputs, labels in split.batches(evaluation_batch(values)):
            correct += int((_logits(model, inputs, settings).argmax(1) == labels).sum())
    return 100 * correct / len(split)


class _Run:
    """The state of a training between two epochs."""

    def __init__(
        self, model: nn.Module, dataset: Dataset, settings: TrainingConfig, seed: int
    ) -> None:
        self._model = model
        self._dataset = dataset
        self._settings = settings
        self._seed = seed
        self._device = dataset.train.labels.device
        self._optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )
        self._steps = math.ceil(self._images / settings.batch_size)
        self._schedule = self._chosen_schedule()
        self._order_of_rows = stream(seed, "batch order")
        self.history: list[Epoch] = []

    def epoch(self) -> Epoch:
        start = time.perf_counter()
        number = len(self.history) + 1
        loss = self._pass(number)
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the training loss is {loss} in epoch {number} (lr {self._settings.lr})"
            )
        validated = accuracy(self._model, self._dataset.validation, self._settings)
        self.history.append(Epoch(number, loss, validated, time.perf_counter() - start))
        return self.history[-1]

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        partial = path.with_name(f".{path.name}.partial")
        torch.save(
            {
                "of": self._identity,
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "history": [asdict(epoch) for epoch in self.history],
                "generators": self._generators(),
            },
            partial,
        )
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Take over the state of a checkpoint, or warn that it is none of this training."""
        try:
            with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is damaged")
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if found["of"] != self._identity:
                raise ValueError("it is of another training")
        except Exception as error:  # half a file makes torch raise errors of many kinds
            detail = first_line(error)
            warnings.warn(f"{path}: training starts afresh ({detail})", stacklevel=3)
            return
        self._model.load_state_dict(found["model"])
        self._optimizer.load_state_dict(found["optimizer"])
        self._schedule.load_state_dict(found["schedule"])
        self.history = [Epoch(**epoch) for epoch in found["history"]]
        torch.set_rng_state(found["generators"]["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(found["generators"]["cuda"], self._device)
        for _ in self.history:
            self._order_of_rows.permutation(len(self._dataset.train))

    def _pass(self, number: int) -> float:
        """Learn every training image once and return the mean loss."""
        model, settings, split = self._model, self._settings, self._dataset.train
        model.train()
        order = torch.from_numpy(self._order_of_rows.permutation(len(split))[: self._images])
        augment = stream(self._seed, f"augmentation {number}")
        losses = []
        for inputs, labels in split.batches(settings.batch_size, order, augment):
            loss = nn.functional.cross_entropy(
                _logits(model, inputs, settings), labels, label_smoothing=settings.label_smoothing
            )
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            if settings.schedule == "cosine":
                self._schedule.step()
            losses.append(loss.detach())
        if settings.schedule == "milestones":
            self._schedule.step()
        return float(np.mean(torch.stack(losses).cpu().numpy()))

    def _chosen_schedule(self) -> LRScheduler:
        settings = self._settings
        if settings.schedule == "cosine":
            return CosineAnnealingLR(self._optimizer, max(1, settings.epochs * self._steps))
        return MultiStepLR(self._optimizer, list(settings.milestones), settings.gamma)

    def _generators(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    @property
    def _images(self) -> int:
        """How many an epoch has; one that would be left alone is not, for batch norm needs two."""
        images = len(self._dataset.train)
        return images - 1 if images % self._settings.batch_size == 1 < images else images

    @property
    def _identity(self) -> str:
        """What a checkpoint must share with this training."""
        shapes = {name: list(value.shape) for name, value in self._model.state_dict().items()}
        where = f"{len(self._dataset.train)} rows on {self._device.type}"
        return f"{self._settings!r} seed {self._seed} {where} {shapes}"


def _logits(model: nn.Module, inputs: Tensor, settings: TrainingConfig | None) -> Tensor:
    half = settings is not None and settings.precision == "bfloat16"
    if settings is not None and settings.channels_last:
        inputs = inputs.to(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        logits: Tensor = model(inputs)
    return logits.float()


def evaluation_batch(values: int) -> int:
    """Return how many images of so many values have four million, from 128 to 4096."""
    return min(4096, max(128, 2**22 // values))


@contextmanager
def _laid_out(model: nn.Module, settings: TrainingConfig) -> Iterator[None]:
    """Lay the filters out as the settings want it, and as usual again at the end."""
    if not settings.channels_last:
        yield
        return
    model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)
