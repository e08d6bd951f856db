"""Scores of the weight blocks of one layer, from the criterion to the file they are kept in."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mint.models import LayerPair
from mint.pruning.criteria import FUNCTIONS, Evidence
from mint.pruning.masks import BlockScores
from mint.trial.result import SCORES_FILE, LayerScoring


def estimate_layer(folder: Path, pair: LayerPair, criterion: str, evidence: Evidence) -> None:
    """Score the blocks of one pair, and write them and what they took into the folder.

    Args:
        folder: of the stage; scores.npz in it holds mint.pruning.criteria.Scored.arrays.
        pair: of layers.
        criterion: its name.
        evidence: what it may judge by.
    """
    start = time.perf_counter()
    scored = FUNCTIONS[criterion](pair, evidence)
    np.savez(folder / SCORES_FILE, allow_pickle=False, **scored.arrays)
    LayerScoring(
        parent=pair.parent,
        child=pair.child,
        blocks=scored.value.size,
        bootstraps=scored.bootstraps,
        reliability=None if math.isnan(scored.reliability) else scored.reliability,
        seconds=time.perf_counter() - start,
    ).save(folder)


def load_scores(folder: Path, pair: LayerPair, network: nn.Module) -> BlockScores:
    """Return the scores in a stage's folder as those of the blocks of the child's weight."""
    with np.load(folder / SCORES_FILE, allow_pickle=False) as arrays:
        return block_scores(arrays, pair, network)


def block_scores(
    arrays: Mapping[str, NDArray[Any]], pair: LayerPair, network: nn.Module
) -> BlockScores:
    """Return mint.pruning.criteria.Scored.arrays as the scores of the blocks of the child's weight."""
    weight = network.get_parameter(f"{pair.child}.weight")
    labels = arrays["parent_labels"]
    return BlockScores(
        value=arrays["value"],
        child_labels=arrays["child_labels"],
        parent_labels=labels[pair.columns()] if labels.ndim == 1 else labels,
        kernel=tuple(weight.shape[2:]),
        reliability=float(arrays["reliability"]),
        standard_error=arrays.get("standard_error"),
    )
