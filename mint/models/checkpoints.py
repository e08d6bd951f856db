"""Weights from a file, checked to be those of the network before any is taken over."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from mint.errors import InputError

_SHOWN = 3  # keys of every kind that a message names


def load_weights(network: nn.Module, path: Path, renamed: Mapping[str, str] | None = None) -> None:
    """Give the network the weights of a file.

    Args:
        network: whose parameters and buffers are overwritten, on the device where they are.
        path: a .safetensors file, or one of torch that holds tensors only: a state_dict, by
            itself or under state_dict or model. A prefix module. of all keys is dropped.
        renamed: names of modules in the file, and what the network calls them. Tried where the
            file's keys are not the network's, and used only if it makes them so.

    Raises:
        InputError: the file cannot be read, or its keys or shapes are not the network's; nothing
            was changed then. Counters of batches (num_batches_tracked) may be missing.
    """
    weights = _read(path)
    wanted = network.state_dict()
    candidates = [weights]
    if renamed:
        candidates.append({_rename(key, renamed): weights[key] for key in weights})
    problems = [_problems(candidate, wanted) for candidate in candidates]
    best = min(range(len(candidates)), key=lambda index: sum(map(len, problems[index].values())))
    found = [
        f"{kind} {', '.join(keys[:_SHOWN])}"
        + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
        for kind, keys in problems[best].items()
        if keys
    ]
    if found:
        raise InputError(f"{path}: not the weights of this network: {'; '.join(found)}")
    network.load_state_dict(candidates[best], strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    content: object
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what unpickling stray bytes may raise has no end
        raise InputError(
            f"{path}: is no file of weights; read are .safetensors, and files of torch.save with "
            "tensors only (code in them is never run)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, Tensor) for value in content.values())
        and all(v.layout == torch.strided and not v.is_complex() for v in content.values())
    ):
        raise InputError(
            f"{path}: holds no state_dict: it must map names to dense real tensors, by itself or "
            "under state_dict or model"
        )
    if all(key.startswith("module.") for key in content):  # of DataParallel
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _rename(key: str, renamed: Mapping[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return f"{renamed.get(module, module)}.{parameter}"


def _problems(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    return {
        "missing": [
            key for key in wanted if key not in found and not key.endswith("num_batches_tracked")
        ],
        "unexpected": [key for key in found if key not in wanted],
        "misshapen": [
            f"{key} {tuple(found[key].shape)} for {tuple(wanted[key].shape)}"
            for key in wanted
            if key in found and found[key].shape != wanted[key].shape
        ],
        "not finite": [key for key, value in found.items() if not value.isfinite().all()],
    }
