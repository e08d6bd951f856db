"""The layer table counts kept weights, and says why the others are not pruned."""

import numpy as np
import pytest
import torch
from torch import nn

from mint.models.tracing import trace
from mint.pruning.layer_table import LayerCount, count_layers, layers_text, parse_layers
from mint.pruning.masks import Masks


def _layers(masks: Masks | None = None) -> tuple[LayerCount, ...]:
    shared = nn.Linear(3, 3)
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3), nn.Linear(3, 3), shared, shared)
    traced = trace(network, torch.zeros(1, 2))
    return count_layers(traced, traced.pairs[:1], masks)


def test_text_before_and_after_pruning() -> None:
    mask = np.ones((3, 4), bool)
    mask[0, 1:] = False
    before, after = _layers(), _layers(Masks({"1.weight": mask}))
    assert layers_text(before) == (
        "Input > 0: 8 (reads the input); 0 > 1: 12; 1 > 2: 9 (left out); ? > 3: 9 (is used twice)"
    )
    assert layers_text(after) == (
        "Input > 0: 8/8 (reads the input); 0 > 1: 9/12; 1 > 2: 9/9 (left out); "
        "? > 3: 9/9 (is used twice)"
    )
    assert parse_layers(layers_text(before)) == before
    assert parse_layers(layers_text(after)) == after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fc1 > fc2", "'fc1 > fc2' is not a layer with its weights"),
        ("fc1 > fc2: 4/3", "keeps an impossible number of weights"),
        ("fc1 > fc2: 2/3 (left out)", "keeps an impossible number of weights"),
    ],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_layers(text)
