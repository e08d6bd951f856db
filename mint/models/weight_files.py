"""Weights from a file, checked against the network before any is loaded."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from mint.errors import InputError


def load_weights(network: nn.Module, path: Path, renamed: Mapping[str, str] | None = None) -> None:
    """Load the weights of a file into a network, on the device where it is.

    Args:
        network: its parameters and buffers are overwritten.
        path: a .safetensors file, or a file of torch.save that holds tensors only: a state_dict, or
            a mapping with one under state_dict or model. A prefix module. of all keys is dropped.
        renamed: module names in the file and their names in the network; used if the file has keys
            that the network does not have.

    Raises:
        InputError: the file cannot be read, its keys or shapes differ from the network's, or it
            holds quantised numbers; the network is unchanged. num_batches_tracked may be missing.
    """
    weights, wanted = _read(path), network.state_dict()
    if renamed and not weights.keys() <= wanted.keys():
        parts = {key: key.rpartition(".") for key in weights}
        weights = {
            f"{renamed.get(module, module)}.{parameter}": weights[key]
            for key, (module, _, parameter) in parts.items()
        }
    problems = {
        "missing": [
            key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")
        ],
        "unexpected": [key for key in weights if key not in wanted],
        "wrong shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in wanted
            if key in weights and weights[key].shape != wanted[key].shape
        ],
        # Integers of a quantised checkpoint would be weights without their scale.
        "wrong type": [
            f"{key} {_name(weights[key])} instead of {_name(wanted[key])}"
            for key in wanted
            if key in weights and _is_full(weights[key]) != wanted[key].is_floating_point()
        ],
        "not finite": [
            key for key, value in weights.items() if _is_full(value) and not value.isfinite().all()
        ],
    }
    if any(problems.values()):
        found = [f"{kind} {_first_three(keys)}" for kind, keys in problems.items() if keys]
        raise InputError(f"{path}: not the weights of this network: {'; '.join(found)}")
    network.load_state_dict(weights, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    content: object
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # unpickling arbitrary bytes may raise any exception
        raise InputError(
            f"{path}: not a file of weights; allowed are .safetensors files, and files of "
            "torch.save that hold tensors only"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(map(_is_weight, content.items()))):
        raise InputError(
            f"{path}: no state_dict in it: allowed is a mapping of names to dense real tensors, "
            "as the whole file or under state_dict or model"
        )
    if all(key.startswith("module.") for key in content):  # saved from DataParallel
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _is_weight(item: tuple[object, object]) -> bool:
    key, value = item
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex()


def _is_full(value: Tensor) -> bool:
    """Return whether values are floating-point numbers that stand for themselves."""
    return value.is_floating_point() and value.itemsize > 1  # float8 is quantised, too


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _first_three(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
