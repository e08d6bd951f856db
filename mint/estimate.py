"""Scores of the weight blocks of one layer, from the criterion to the file they are kept in."""

import math
import time
from pathlib import Path

import numpy as np
from torch import nn

from mint.criteria import FUNCTIONS, Evidence
from mint.masks import BlockScores
from mint.networks import LayerPair
from mint.results import SCORES_FILE, LayerScoring


def estimate_layer(folder: Path, pair: LayerPair, evidence: Evidence) -> LayerScoring:
    """Score the blocks of one pair, write them into the folder and return what they took.

    Args:
        folder: of the stage; scores.npz in it holds value, reliability, child_labels and
            parent_labels as mint.criteria.Scored has them, and its details: of MINT's scores
            standard_error and z_score (each child groups x parent groups), and bootstraps (one
            such matrix each).
        pair: of layers.
        evidence: what the trial's criterion may judge by.
    """
    start = time.perf_counter()
    scored = FUNCTIONS[evidence.config.criterion](pair, evidence)
    np.savez(
        folder / SCORES_FILE,
        allow_pickle=False,
        value=scored.value,
        reliability=scored.reliability,
        child_labels=scored.child_labels,
        parent_labels=scored.parent_labels,
        **scored.details,
    )
    scoring = LayerScoring(
        parent=pair.parent,
        child=pair.child,
        blocks=scored.value.size,
        bootstraps=scored.bootstraps,
        reliability=None if math.isnan(scored.reliability) else scored.reliability,
        seconds=time.perf_counter() - start,
    )
    scoring.save(folder)
    return scoring


def load_scores(folder: Path, pair: LayerPair, network: nn.Module) -> BlockScores:
    """Return the scores in a stage's folder as those of the blocks of the child's weight."""
    weight = network.get_parameter(f"{pair.child}.weight")
    with np.load(folder / SCORES_FILE, allow_pickle=False) as arrays:
        labels = arrays["parent_labels"]
        return BlockScores(
            value=arrays["value"],
            child_labels=arrays["child_labels"],
            parent_labels=labels[pair.columns()] if labels.ndim == 1 else labels,
            kernel=tuple(weight.shape[2:]),
        )
