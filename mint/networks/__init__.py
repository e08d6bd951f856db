"""Networks, and the pairs of layers in them that can be pruned."""

from mint.networks.mlp import mlp
from mint.networks.pairs import LayerPair, chosen_pairs, layer_pairs

__all__ = ["LayerPair", "chosen_pairs", "layer_pairs", "mlp"]
