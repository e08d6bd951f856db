"""Multilayer perceptron."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn


def mlp(
    widths: Annotated[Sequence[PositiveInt], Field(min_length=3)],
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Sequential:
    """Return flatten, fc1, relu1, dropout1, fc2, ...: inputs (n, ...), logits (n, widths[-1]).

    Args:
        widths: neurons of every layer, including inputs and classes.
        dropout: share of the activations dropped after every ReLU in training.
    """
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers.append((f"fc{index}", nn.Linear(inputs, outputs)))
        if index < len(widths) - 1:
            layers.append((f"relu{index}", nn.ReLU()))
            layers.append((f"dropout{index}", nn.Dropout(dropout)))
    return nn.Sequential(OrderedDict(layers))
