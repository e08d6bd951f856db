"""An experiment chooses among the layer pairs of a network."""

from typing import Any

import pytest
import torch

from mint.config.estimate import EstimateConfig
from mint.config.schema import (
    DataConfig,
    Experiment,
    NetworkConfig,
    SearchConfig,
    TrainingConfig,
)
from mint.errors import InputError
from mint.models.layers import Traced, chosen_pairs
from mint.models.mlp import mlp
from mint.models.tracing import trace


def experiment(**fields: Any) -> Experiment:
    return Experiment(
        name="chosen",
        title="Chosen",
        data=DataConfig(name="digits", validation_size=10),
        network=NetworkConfig(name="mlp"),
        training=TrainingConfig(
            epochs=0, batch_size=1, lr=0.1, momentum=0, nesterov=False, weight_decay=0
        ),
        estimate=EstimateConfig(bootstraps=1),
        search=SearchConfig(fraction=0.5),
        **fields,
    )


@pytest.fixture(scope="module")
def traced_mlp() -> Traced:
    return trace(mlp((4, 3, 3, 3, 2)), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("fields", "children"),
    [
        ({"prune": "all"}, ["fc2", "fc3", "fc4"]),
        ({"prune": [("fc3", "fc4"), ("fc1", "fc2")]}, ["fc2", "fc4"]),
        ({"prune": "all", "leave_out": [("fc2", "fc3")]}, ["fc2", "fc4"]),
        ({"prune": [("fc3", "fc4"), ("input", "fc1")]}, ["fc1", "fc4"]),
    ],
)
def test_chosen_pairs_are_in_forward_order(
    traced_mlp: Traced, fields: dict[str, Any], children: list[str]
) -> None:
    assert [pair.child for pair in chosen_pairs(traced_mlp, experiment(**fields))] == children


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune": [("fc1", "fc3")]}, r"prune \[fc1, fc3\]: mlp has no such pair; fc3 reads fc2"),
        ({"prune": [("fc1", "fc")]}, r"fc is not one of its layers; did you mean fc4\?"),
        ({"prune": [("x", "fc2")]}, r"x is not one of its layers; known are fc1, fc2, fc3, fc4"),
        ({"prune": [("fc2", "fc1")]}, r"fc1 reads the input"),
        ({"prune": [("input", "fc2")]}, r"prune \[input, fc2\]: .*; fc2 reads fc1"),
        ({"prune": [("fc1", "input")]}, r"input is not one of its layers"),
        ({"prune": "all", "leave_out": [("fc3", "fc2")]}, r"leave_out \[fc3, fc2\]: .* reads fc1"),
        (
            {"prune": "all", "leave_out": [("fc1", "fc2"), ("fc2", "fc3"), ("fc3", "fc4")]},
            r"no pair of mlp is left to prune: fc1 reads the input$",
        ),
    ],
)
def test_unknown_pairs_are_refused_with_what_the_child_reads(
    traced_mlp: Traced, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        chosen_pairs(traced_mlp, experiment(**fields))
