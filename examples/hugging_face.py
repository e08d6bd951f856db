"""A vision transformer of Hugging Face, as it is: `transformers` must be installed."""

from torch import nn
from transformers import ViTConfig, ViTForImageClassification


def build(channels: int = 1, classes: int = 10) -> nn.Module:
    """Return an untrained network for 8 x 8 images, in 16 patches."""
    sizes = {"hidden_size": 48, "intermediate_size": 96}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4}
    images = {"image_size": 8, "patch_size": 2, "num_channels": channels}
    config = ViTConfig(**sizes, **layers, **images, num_labels=classes)
    network: nn.Module = ViTForImageClassification(config)
    return network
