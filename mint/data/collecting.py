"""Images and labels in memory, from what a user of PyTorch has at hand."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mint.errors import InputError, error_line

Images = Tensor | NDArray[Any] | Dataset[Any] | DataLoader[Any]
Labels = Tensor | NDArray[np.integer[Any]] | None

_ALLOWED = "allowed are a tensor, an array, a Dataset and a DataLoader of tensors"
_ROWS_AT_ONCE = 500


def collect_images(inputs: Images, labels: Labels) -> tuple[Tensor, Tensor | None]:
    """Return images as one tensor, and their labels: those given, else those beside the images.

    A Dataset's or DataLoader's items are images, or begin with an image and its label. All of them
    are read. Arrays of double precision become float32. Torch's random numbers stay as they are.

    Raises:
        InputError: the images are something else, or cannot be joined to one tensor.
    """
    beside = None
    if isinstance(inputs, np.ndarray):
        inputs = torch.as_tensor(inputs)
        inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
    elif isinstance(inputs, Dataset | DataLoader):
        try:
            with torch.random.fork_rng(devices=[]):
                inputs, beside = _joined(inputs)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise InputError(f"inputs: {_ALLOWED}: {error_line(error)}") from error
    if not isinstance(inputs, Tensor):
        raise InputError(f"inputs: is a {type(inputs).__name__}; {_ALLOWED}")
    return inputs, beside if labels is None else torch.as_tensor(labels)


def _joined(items: Dataset[Any] | DataLoader[Any]) -> tuple[Tensor, Tensor | None]:
    loader = items if isinstance(items, DataLoader) else DataLoader(items, _ROWS_AT_ONCE)
    images, labels = [], []
    for batch in loader:
        first, *others = batch if isinstance(batch, tuple | list) else [batch]
        images.append(first)
        labels += others[:1]
    return torch.cat(images), torch.cat(labels) if labels else None
