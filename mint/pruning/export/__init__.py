"""Export a pruned network as a smaller plain PyTorch module, in files that do not need mint."""

import copy
import importlib.util
import json
import logging
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

# The next import compiles nothing here, but warns of a compiler of CUDA without a GPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils.benchmark import Timer

from mint.data.preparation import Preparation
from mint.errors import InputError, first_line
from mint.pruning.export.channels import WEIGHT_LAYERS
from mint.pruning.export.code import extra_tensors, network_code
from mint.pruning.export.shrink import (
    agree,
    masked_copy,
    outputs_of,
    sample_inputs,
    shrink,
    traced_modules,
)
from mint.pruning.flops import multiply_adds
from mint.pruning.masks import Masks


@dataclass(frozen=True)
class Exported:
    """Size, speed and accuracy of an exported network; dense is the network without masks.

    Weights are those of convolutions and linear layers, multiply-adds those of one image, and
    times the latency for the example (milliseconds).

    Attributes:
        input_shape: of the example, batch first.
        kept_weights: dense weights that the masks keep.
        max_difference: largest difference between outputs of the exported and the masked network.
        preparation: of the images that the network was trained on; None if unknown.
    """

    input_shape: tuple[int, ...]
    dense_weights: int
    kept_weights: int
    exported_weights: int
    dense_multiply_adds: int
    exported_multiply_adds: int
    max_difference: float
    dense_ms: float
    exported_ms: float
    preparation: Preparation | None


def export(
    network: nn.Module,
    masks: Masks,
    example: Tensor,
    folder: Path,
    *,
    onnx: bool,
    preparation: Preparation | None = None,
) -> Exported:
    """Write the pruned network as a smaller one; the folder appears complete or not at all.

    It gets network.py, whose build() returns the network with the weights of weights.safetensors,
    and whose prepare() returns its inputs for an image; export.json, an Exported; and on request
    network.onnx for any batch size.

    Args:
        network: unchanged.
        masks: of its weights.
        example: (1, ...) an input on the network's device.
        folder: new or empty.
        onnx: whether to write ONNX too.
        preparation: of the images that the network was trained on; None for no prepare().

    Raises:
        InputError: the folder is not empty or cannot be written, the masks do not fit the network,
            the network cannot be written as code that computes the same, or the packages for ONNX
            are not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder}: exists already; allowed is a new or empty folder")
    if onnx and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise InputError('ONNX needs packages: pip install "mint-pruning[onnx]"')
    small = shrink(network, masks, example)
    code = network_code(small, preparation)
    tensors = {
        name: tensor.contiguous().clone()  # safetensors refuses tensors that share memory
        for name, tensor in (small.state_dict() | extra_tensors(small)).items()
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as partial:
            complete = Path(partial) / "export"
            complete.mkdir()
            (complete / "network.py").write_text(code, encoding="utf-8")
            safetensors.torch.save_file(tensors, complete / "weights.safetensors")
            built = _build(complete / "network.py")
            exported = _describe(network, masks, example, built, preparation)
            if onnx:
                _write_onnx(built.cpu(), sample_inputs(example), complete / "network.onnx")
            content = json.dumps(asdict(exported), indent=2) + "\n"
            (complete / "export.json").write_text(content, encoding="utf-8")
            complete.rename(folder)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be written: {error}") from error
    return exported


def why_not_exported(network: nn.Module, example: Tensor) -> str | None:
    """Return why the network cannot be exported whatever its masks, in a line; None if it can.

    Args:
        network: unchanged, on the CPU.
        example: (1, ...) an input.
    """
    try:
        copied = masked_copy(network, Masks({}))
        outputs_of(copied, example)
        network_code(traced_modules(copied), None)
    except InputError as error:
        return str(error)
    return None


def _build(path: Path) -> nn.Module:
    """Return the network that network.py builds from the files just written."""
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(path.read_text(encoding="utf-8"), names)  # an import would leave bytecode in the folder
    network: nn.Module = names["build"]()
    return network


def _describe(
    network: nn.Module,
    masks: Masks,
    example: Tensor,
    small: nn.Module,
    preparation: Preparation | None,
) -> Exported:
    """Compare the written network with the masked one; raise InputError if outputs differ."""
    inputs = sample_inputs(example)
    expected = outputs_of(masked_copy(network, masks).cpu(), inputs)
    outputs = outputs_of(small, inputs)
    if not agree(outputs, expected):
        raise InputError(
            f"{type(network).__name__}: cannot be exported, for the code that torch.fx traces "
            "computes other outputs; hooks, for example, are left out of it"
        )
    dense = copy.deepcopy(network).eval()
    small = small.to(example.device)
    sizes = {
        f"{name}.weight".removeprefix("."): layer.weight.numel()
        for name, layer in dense.named_modules()
        if isinstance(layer, WEIGHT_LAYERS)
    }
    left = small.state_dict()  # a layer with a forward of its own is no module of the export
    return Exported(
        input_shape=tuple(example.shape),
        dense_weights=sum(sizes.values()),
        kept_weights=sum(sizes.values()) - masks.pruned,
        exported_weights=sum(left[name].numel() for name in sizes if name in left),
        dense_multiply_adds=multiply_adds(dense, example),
        exported_multiply_adds=multiply_adds(small, example),
        max_difference=float((outputs - expected).abs().max()),
        dense_ms=_latency(dense, example),
        exported_ms=_latency(small, example),
        preparation=preparation,
    )


@torch.inference_mode()
def _latency(network: nn.Module, example: Tensor) -> float:
    """Return the time of the network for the example, in milliseconds.

    It is the least median of three rounds: other work on the machine only makes a network slower.
    """
    names = {"network": network, "example": example}
    timer = Timer("network(example)", globals=names, num_threads=torch.get_num_threads())
    rounds = (timer.blocked_autorange(min_run_time=0.03).median for _ in range(3))
    return 1000 * min(rounds)


def _write_onnx(network: nn.Module, inputs: Tensor, path: Path) -> None:
    """Write the network as ONNX; raise InputError if the file would compute other outputs."""
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own code
            torch.onnx.export(
                network,
                (inputs[:2],),  # a batch of one would fix the batch size to one
                path,
                dynamo=True,
                external_data=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        read = ReferenceEvaluator(str(path))
        (found,) = read.run(["output"], {"input": inputs[1:].numpy()})
    except Exception as error:  # the exporter does not support every network
        raise InputError(f"the network cannot be written as ONNX: {first_line(error)}") from error
    if not agree(torch.as_tensor(found), outputs_of(network, inputs[1:])):
        raise InputError("the network cannot be written as ONNX: the file computes other outputs")
