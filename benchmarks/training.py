"""Time the training loop against a bare loop and a DataLoader, and ways to hold masks.

Run as: uv run python benchmarks/training.py [--data-dir DIR] [--threads N] [--device cuda]

Methods take turns, so that they share whatever else the machine does; figures are medians. The
DataLoader reads a sixth of an epoch, and its time is scaled to a whole one.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from mint.config.schema import DataConfig, TrainingConfig
from mint.data.augmentation import DRAWS, crop_flip, resized_crop_flip
from mint.data.datasets import load_source
from mint.data.loading import Dataset, split_source
from mint.models.mlp import mlp
from mint.training.loop import train

SETTINGS = TrainingConfig(
    epochs=1, batch_size=256, lr=0.01, momentum=0.9, nesterov=False, weight_decay=1e-4
)
LOADED_SHARE = 6


class ByMask(nn.Module):
    """A parametrization that multiplies a weight by its mask in every forward pass."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = nn.Buffer(mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def multilayer_perceptron() -> nn.Module:
    return mlp((784, 500, 300, 10), 0.0)


def convolutional() -> nn.Module:
    """Return four layers of 64 filters each, as in the middle of a network for CIFAR-10."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(weight.shape, generator=generator) < 0.5
        for name, weight in model.named_parameters()
        if weight.ndim > 1
    }


def optimizer_of(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(),
        lr=SETTINGS.lr,
        momentum=SETTINGS.momentum,
        weight_decay=SETTINGS.weight_decay,
    )


def bare_loop(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> None:
    model.train()
    optimizer = optimizer_of(model)
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def medians(methods: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of every method; one turn beforehand is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(1 + repeats):
        for name, method in methods.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            method()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def print_table(title: str, seconds: dict[str, float], unit: str, count: int) -> None:
    """Print the milliseconds of each of `count` units, and the ratio to the first line."""
    first = next(iter(seconds.values()))
    print(f"\n{title}\n  {'':34}{'ms ' + unit:>14}{'x the first':>13}")
    for name, value in seconds.items():
        print(f"  {name:34}{1e3 * value / count:14.3f}{value / first:13.2f}")


def time_epochs(dataset: Dataset, data_dir: Path, device: torch.device, repeats: int) -> None:
    split = dataset.train
    inputs = torch.cat([some for some, _ in split.batches(4096)])

    def from_memory() -> Iterable[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(split)).to(device).split(SETTINGS.batch_size):
            yield inputs[rows], split.labels[rows]

    images = MNIST(str(data_dir), train=True, transform=ToTensor())
    loaded = Subset(images, range(len(split) // LOADED_SHARE))

    def loader(workers: int) -> Iterable[Any]:
        return DataLoader(loaded, SETTINGS.batch_size, shuffle=True, num_workers=workers)

    model = multilayer_perceptron().to(device)
    seconds = medians(
        {
            "bare loop over float tensors": lambda: bare_loop(model, from_memory(), device),
            "ours": lambda: train(model, dataset, SETTINGS, seed=0),
            "ours, masks held": lambda: train(
                model, dataset, SETTINGS, seed=0, masks=masks_of(model)
            ),
            "DataLoader, ToTensor": lambda: bare_loop(model, loader(0), device),
            "DataLoader, ToTensor, 2 workers": lambda: bare_loop(model, loader(2), device),
        },
        repeats,
    )
    seconds |= {
        name: LOADED_SHARE * value for name, value in seconds.items() if name.startswith("Data")
    }
    print_table(f"MNIST, an epoch of {len(split)} images", seconds, "an epoch", 1)


def time_masks(
    title: str, build: Callable[[], nn.Module], inputs: Tensor, labels: Tensor, repeats: int
) -> None:
    """Compare steps without masks, with masked gradients and with masked weights."""
    device = inputs.device
    plain, hooked, parametrized = (build().to(device) for _ in range(3))
    for name, mask in masks_of(hooked).items():
        kept = mask.to(device, torch.float32)
        weight = hooked.get_parameter(name)

        def mask_gradient(updated: Tensor, kept: Tensor = kept) -> None:
            assert updated.grad is not None
            updated.grad.mul_(kept)

        weight.register_post_accumulate_grad_hook(mask_gradient)
        module = parametrized.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(module, "weight", ByMask(kept))
    steps = 20
    batches = [(inputs, labels)] * steps
    seconds = medians(
        {
            "no masks": lambda: bare_loop(plain, batches, device),
            "gradient hook (ours)": lambda: bare_loop(hooked, batches, device),
            "parametrize": lambda: bare_loop(parametrized, batches, device),
        },
        repeats,
    )
    print_table(f"Masks, {title}", seconds, "a step", steps)


def time_augmentation(device: torch.device, repeats: int) -> None:
    """Compare getting a batch ready with a step of the four convolutional layers above."""
    images = torch.randint(0, 256, (5000, 3, 32, 32), dtype=torch.uint8, device=device)
    rows = torch.randperm(len(images), device=device)[:128]
    draws = torch.rand(len(rows), DRAWS, device=device)

    def ready() -> Tensor:
        return images.index_select(0, rows).to(torch.float32).sub_(127).div_(64)

    seconds = medians(
        {
            "as they are": lambda: [ready() for _ in range(20)],
            "crop_flip": lambda: [crop_flip(ready(), draws, (32, 32)) for _ in range(20)],
            "resized_crop_flip": lambda: [
                resized_crop_flip(ready(), draws, (32, 32)) for _ in range(20)
            ],
        },
        repeats,
    )
    print_table("128 images of 3 x 32 x 32 got ready", seconds, "a batch", 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path(os.environ.get("MINT_DATA_DIR", "data"))
    parser.add_argument("--data-dir", type=Path, default=default, help="holds MNIST/raw")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = options.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{name}, {os.cpu_count()} cores, {options.threads} threads, PyTorch {torch.__version__}")
    data = DataConfig(name="mnist", validation_size=10)  # so that little of an epoch validates
    dataset = split_source(load_source(data, options.data_dir), data, seed=0, device=device)
    time_epochs(dataset, options.data_dir, device, options.repeats)
    inputs, labels = next(dataset.train.batches(SETTINGS.batch_size))
    time_masks("784-500-300-10, batch 256", multilayer_perceptron, inputs, labels, options.repeats)
    pixels = torch.randn(64, 64, 16, 16, device=device)
    time_masks("4 x 64 filters, batch 64", convolutional, pixels, labels[:64], options.repeats)
    time_augmentation(device, options.repeats)


if __name__ == "__main__":
    main()
