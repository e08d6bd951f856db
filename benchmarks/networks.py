"""Print what mint finds in published networks; the dependency group networks has what it needs.

Every classification network of torchvision, families of timm, and small networks of Hugging Face,
all with random weights. Beside it the groups of channels that Torch-Pruning finds.
"""

import argparse
import contextlib
import io
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torchvision import models

from mint.errors import InputError, first_line
from mint.models.layers import Traced
from mint.models.tracing import trace
from mint.pruning.export import why_not_exported

SIDE = 64
TIMM = (
    *("beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convmixer_768_32"),
    *("convnext_atto", "crossvit_tiny_240", "cspresnet50", "darknet53"),
    *("deit_tiny_patch16_224", "dla34", "edgenext_xx_small", "efficientformer_l1"),
    *("efficientnetv2_rw_t", "eva02_tiny_patch14_224", "fastvit_t8", "focalnet_tiny_srf"),
    *("ghostnet_100", "hrnet_w18", "levit_128s", "mixer_b16_224", "mobilenetv4_conv_small"),
    *("mobilevit_xxs", "nfnet_l0", "pit_ti_224", "poolformer_s12", "regnety_002", "repvgg_a0"),
    *("resmlp_12_224", "resnetv2_50", "seresnet50", "swin_tiny_patch4_window7_224"),
    *("tiny_vit_5m_224", "vit_tiny_patch16_224", "xcit_nano_12_p16_224"),
)
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {**_LAYERS, "intermediate_size": 24}
_WORDS = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
HUGGING_FACE: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {**_WIDE, "image_size": SIDE, "patch_size": 8},
    "DeiTForImageClassification": {**_WIDE, "image_size": SIDE, "patch_size": 8},
    "SwinForImageClassification": {
        **{"image_size": SIDE, "embed_dim": 8, "depths": [2, 2]},
        **{"num_heads": [2, 4], "window_size": 4},
    },
    "BertForSequenceClassification": {**_WIDE, **_WORDS},
    "DistilBertForSequenceClassification": {
        **_WORDS,
        **{"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    },
    "GPT2ForSequenceClassification": {**_WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2},
}


def networks() -> Iterator[tuple[str, Callable[[], nn.Module], Sequence[Tensor]]]:
    """Yield the name of each network, its builder, and example inputs to try in this order."""
    images = [torch.randn(1, 3, side, side) for side in (SIDE, 96, 224, 240)]
    for name in models.list_models(module=models):
        yield f"torchvision {name}", partial(models.get_model, name), images
    import timm
    import transformers

    for name in TIMM:
        yield f"timm {name}", partial(timm.create_model, name), images
    for name, settings in HUGGING_FACE.items():
        kind = getattr(transformers, name)
        example = images[0] if "Image" in name else torch.randint(2, 50, (1, 7))

        def build(kind: Any = kind, settings: dict[str, Any] = settings) -> nn.Module:
            network: nn.Module = kind(kind.config_class(**settings, num_labels=5))
            return network

        yield f"transformers {name}", build, [example]


def traced_on(network: nn.Module, examples: Sequence[Tensor]) -> tuple[Traced, Tensor]:
    """Return the traced network, and the first of the examples that it accepts."""
    for example in examples[:-1]:
        with contextlib.suppress(InputError):
            return trace(network, example), example
    return trace(network, examples[-1]), examples[-1]


def row(name: str, network: nn.Module, examples: Sequence[Tensor]) -> tuple[str, Counter[str]]:
    """Return a row of the table, and how many layers have each reason."""
    start = time.process_time()
    try:
        traced, example = traced_on(network, examples)
    except InputError as error:
        return (
            f"| {name} | | | | | | {first_line(error)} | {_groups(network, examples[-1])} |",
            Counter(),
        )
    seconds = time.process_time() - start
    weights = sum(layer.weights for layer in traced.layers)
    share = sum(layer.weights for layer in traced.layers if layer.parent) / weights
    export = why_not_exported(network, example)
    cells = (
        *(name, len(traced.layers), len(traced.pairs), f"{100 * share:.0f}", f"{seconds:.2f}"),
        *("no" if export else "yes", (export or "").partition(": ")[2][:60]),
        _groups(network, example),
    )
    reasons = Counter(_kind(layer.reason) for layer in traced.layers if layer.reason)
    return f"| {' | '.join(map(str, cells))} |", reasons


def _kind(reason: str) -> str:
    """Return a reason without the names of layers."""
    return reason.partition(" on ")[0] if reason.startswith("reads the output") else reason


def _groups(network: nn.Module, example: Tensor) -> str:
    """Return the number of groups of channels that Torch-Pruning finds, or that it fails."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = torch_pruning.DependencyGraph().build_dependency(network.eval(), example)
            return str(sum(1 for _ in found.get_all_groups()))
    except Exception as error:  # the package raises any kind
        return f"fails: {type(error).__name__}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name contains this text")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    columns = ("layers", "pairs", "prunable weights (%)", "seconds", "export", "why not")
    print(f"| network | {' | '.join(columns)} | Torch-Pruning groups |")
    print("|---|---:|---:|---:|---:|---|---|---:|", flush=True)
    reasons: Counter[str] = Counter()
    for name, build, examples in networks():
        if only not in name:
            continue
        line, own = row(name, build(), examples)
        print(line, flush=True)
        reasons += own
    print("\n| why a layer is not pruned | layers |\n|---|---:|")
    for reason, count in reasons.most_common():
        print(f"| {reason} | {count} |")


if __name__ == "__main__":
    main()
