"""Networks by name, their layer pairs, their activations, and weights from files."""

from mint.models.activations import collect_activations
from mint.models.layers import LayerPair, Traced, chosen_pairs
from mint.models.mlp import mlp
from mint.models.own_networks import own_modules, source_digest
from mint.models.registry import PUBLISHED_NAMES, build_network
from mint.models.resnet import resnet50, resnet56
from mint.models.tracing import evaluating, trace
from mint.models.vgg import vgg16
from mint.models.weight_files import load_weights

__all__ = [
    "PUBLISHED_NAMES",
    "LayerPair",
    "Traced",
    "build_network",
    "chosen_pairs",
    "collect_activations",
    "evaluating",
    "load_weights",
    "mlp",
    "own_modules",
    "resnet50",
    "resnet56",
    "source_digest",
    "trace",
    "vgg16",
]
