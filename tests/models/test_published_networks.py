"""Networks of torchvision, timm and Hugging Face, small and with random weights, as they are."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from intervention import check_pairs
from torch import Tensor, nn
from torchvision import models

from mint.models.tracing import trace
from mint.rng import torch_seeded
from mint.trial.in_memory import prune, score_network

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SIZES, "intermediate_size": 24}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch_seeded(0, "networks of the tests", torch.device("cpu")):
        yield


def images(side: int) -> Tensor:
    return torch.randn(12, 3, side, side)


def words() -> Tensor:
    return torch.randint(1, 50, (12, 7))


def swin() -> Any:
    windows = {"patch_size": [4, 4], "window_size": [4, 4]}
    return models.SwinTransformer(
        embed_dim=8, depths=[2, 2], num_heads=[2, 4], num_classes=5, **windows
    )


def vit() -> Any:
    return models.VisionTransformer(16, 4, 2, 2, hidden_dim=16, mlp_dim=24, num_classes=5)


def convnext() -> Any:
    blocks = [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)]
    return models.ConvNeXt(blocks, num_classes=5)


TORCHVISION: dict[str, tuple[Callable[[], Any], int, dict[str, str]]] = {
    "ViT": (
        vit,
        16,
        {
            f"encoder.layers.encoder_layer_{layer}.{child}": (
                f"encoder.layers.encoder_layer_{layer}.{parent}"
            )
            for layer in range(2)
            for child, parent in (
                ("self_attention.out_proj", "self_attention.in_proj_weight"),
                ("mlp.3", "mlp.0"),
            )
        },
    ),
    "Swin": (
        swin,
        32,
        {
            f"features.{stage}.{block}.{child}": f"features.{stage}.{block}.{parent}"
            for stage in (1, 3)
            for block in range(2)
            for child, parent in (("attn.proj", "attn.qkv"), ("mlp.3", "mlp.0"))
        },
    ),
    "ConvNeXt": (
        convnext,
        32,
        {f"features.{stage}.0.block.5": f"features.{stage}.0.block.3" for stage in (1, 3)},
    ),
}

# For each kind of transformers' networks, its configuration, and its pairs in one layer.
HUGGING_FACE = {
    "ViTForImageClassification": (
        {**WIDE, "image_size": 16, "patch_size": 4},
        {"attention.o_proj": "attention.v_proj", "mlp.fc2": "mlp.fc1"},
    ),
    "BertForSequenceClassification": (
        {**WIDE, "vocab_size": 50},
        {
            "attention.output.dense": "attention.self.value",
            "output.dense": "intermediate.dense",
        },
    ),
    "DistilBertForSequenceClassification": (
        {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        {"attention.out_lin": "attention.v_lin", "ffn.lin2": "ffn.lin1"},
    ),
    "GPT2ForSequenceClassification": (
        {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0}
        | {"bos_token_id": 1, "eos_token_id": 1},
        {"attn.c_proj": "attn.c_attn", "mlp.c_proj": "mlp.c_fc"},
    ),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_transformers_of_torchvision(name: str) -> None:
    build, side, parents = TORCHVISION[name]
    network, inputs = build().eval(), images(side)
    traced = trace(network, inputs[:2])
    assert {pair.child: pair.parent for pair in traced.pairs} == parents
    assert check_pairs(traced, inputs[:2], most=3) >= len(parents)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_networks_of_hugging_face_are_traced_scored_and_pruned(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="the group networks has it")
    settings, parents = HUGGING_FACE[name]
    kind = getattr(transformers, name)
    network: nn.Module = kind(kind.config_class(**settings, num_labels=5)).eval()
    inputs = images(16) if name.startswith("ViT") else words()
    traced = trace(network, inputs[:2])
    assert traced.output == (5,)
    found = {pair.child: pair.parent for pair in traced.pairs}
    for child, parent in parents.items():
        by_layer = [name for name in found if re.search(rf"\.\d+\.{child}$", name)]
        assert len(by_layer) >= 2
        assert all(found[name] == f"{name.removesuffix(child)}{parent}" for name in by_layer)
    assert check_pairs(traced, inputs[:2], most=3) >= len(found)
    scores = score_network(network, inputs, groups=4, bootstraps=2)
    masks = prune(scores, fraction=0.5)
    assert set(masks) == {pair.weight for pair in traced.pairs}
    assert masks.prunable / 2.2 < masks.pruned <= masks.prunable / 2


TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
}


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_are_traced(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the group networks has it")
    inputs = images(32)[:2]
    traced = trace(timm.create_model(name, num_classes=5, **TIMM[name]), inputs)
    fc2 = [pair for pair in traced.pairs if pair.child.endswith("mlp.fc2")]
    assert [pair.parent for pair in fc2] == [pair.child.replace("fc2", "fc1") for pair in fc2]
    assert len(fc2) >= 2
    assert check_pairs(traced, inputs, most=2) >= len(traced.pairs)
