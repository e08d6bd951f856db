"""Masks: which weights of a network are kept."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.errors import InputError, allowed

_Mask = NDArray[np.bool_] | Tensor


class Masks(Mapping[str, NDArray[np.bool_]]):
    """For each prunable weight's name, which of its entries are kept.

    Example:
        ```python
        masks.save("masks.safetensors")
        masks = Masks.load("masks.safetensors")
        masks["fc2.weight"]  # booleans of the weight's shape, such as (300, 500)
        ```
    """

    def __init__(self, kept: Mapping[str, NDArray[np.bool_]]) -> None:
        for name, mask in kept.items():
            if mask.dtype != np.bool_:
                raise TypeError(f"the mask of {name} must be of booleans, not {mask.dtype}")
        self._kept = {name: kept[name] for name in sorted(kept)}

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        """Return a line for each weight, and one for all: how much of it is pruned."""
        parts = {name: (int(mask.size - mask.sum()), mask.size) for name, mask in self.items()}
        parts["all"] = (self.pruned, self.prunable)
        width = max(map(len, parts))
        return "\n".join(
            f"{name:{width}}  pruned {pruned} of {size}, {100 * pruned / max(size, 1):.2f}%"
            for name, (pruned, size) in parts.items()
        )

    @property
    def prunable(self) -> int:
        """Number of entries of the masks."""
        return sum(mask.size for mask in self.values())

    @property
    def pruned(self) -> int:
        """Number of pruned weights."""
        return sum(int(mask.size - mask.sum()) for mask in self.values())

    @property
    def digest(self) -> str:
        """Sixteen hex digits that identify the masks."""
        content = hashlib.sha256()
        for name, mask in self.items():
            content.update(f"{name}{mask.shape}".encode())
            content.update(np.packbits(mask).data)
        return content.hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        """Return the masks as boolean tensors on the CPU."""
        return {name: torch.from_numpy(mask) for name, mask in self.items()}

    def check_fit(self, network: nn.Module) -> None:
        """Raise InputError if the network has no parameter of a mask's name and shape."""
        _check_fit(self, network)

    def save(self, path: str | Path) -> None:
        """Write the masks as safetensors: for every weight a uint8 tensor, 1 for kept."""
        tensors = {name: mask.astype(np.uint8) for name, mask in self.items()}
        safetensors.numpy.save_file(tensors, path)

    @classmethod
    def load(cls, path: str | Path) -> "Masks":
        """Read the masks that `save` wrote; raise InputError if the file does not hold masks."""
        try:
            tensors = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read as masks: {error}") from error
        for name, tensor in tensors.items():
            if not np.isin(tensor, (0, 1)).all():
                raise InputError(f"{path}: the mask of {name} has values other than 0 and 1")
        return cls({name: tensor.astype(np.bool_) for name, tensor in tensors.items()})


@contextmanager
def apply_masks(network: nn.Module, masks: Mapping[str, _Mask]) -> Iterator[None]:
    """Set pruned weights to zero, and keep them at zero while training inside the block.

    A weight of zero with a gradient of zero stays at zero under SGD, Adam and similar optimizers,
    whose momentum and weight decay only multiply zeros. So only the gradients are masked. Create
    the optimizer inside the block: momentum from before would move the pruned weights.

    Example:
        ```python
        masks = prune(score_network(network, images), fraction=0.9)
        with apply_masks(network, masks):
            optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
            for images, labels in loader:
                optimizer.zero_grad()
                cross_entropy(network(images), labels).backward()
                optimizer.step()
        ```

    Args:
        network: on any device; its weights change in place, and stay pruned after the block until
            other training changes them.
        masks: for a parameter's name, True or 1 where a weight is kept, in the parameter's shape.

    Raises:
        InputError: the network has no parameter of a mask's name and shape.
    """
    _check_fit(masks, network)
    parameters = dict(network.named_parameters())
    hooks = []
    for name, mask in masks.items():
        parameter = parameters[name]
        kept = torch.empty_like(parameter, requires_grad=False).copy_(torch.as_tensor(mask))
        with torch.no_grad():
            parameter.mul_(kept)

        def mask_gradient(updated: Tensor, kept: Tensor = kept) -> None:
            assert updated.grad is not None
            updated.grad.mul_(kept)

        if parameter.requires_grad:
            hooks.append(parameter.register_post_accumulate_grad_hook(mask_gradient))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_fit(masks: Mapping[str, _Mask], network: nn.Module) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    for name, mask in masks.items():
        if name not in shapes:
            raise InputError(f"masks: the network has no weight {name}; {allowed(name, shapes)}")
        if (shape := tuple(mask.shape)) != shapes[name]:
            raise InputError(f"masks: the mask of {name} is {shape}, the weight {shapes[name]}")
