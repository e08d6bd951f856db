"""Scores of the weight blocks of one layer, from activations to the file they are kept in."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mint.config import EstimateConfig
from mint.information import Bootstrap, contiguous_groups, gmi_bootstraps, summarize
from mint.masks import BlockScores
from mint.networks import LayerPair
from mint.results import SCORES_FILE, LayerScoring


def group_labels(filters: int, groups: int) -> NDArray[np.int64]:
    """Label a layer's filters with so many groups, or one each where there are fewer filters."""
    return contiguous_groups(filters, min(groups, filters))


def estimate_layer(
    folder: Path,
    pair: LayerPair,
    child: NDArray[np.float32],
    parent: NDArray[np.float32],
    *,
    groups: int,
    estimate: EstimateConfig,
    seed: int,
    device: torch.device,
) -> LayerScoring:
    """Score the blocks of one pair, write them into the folder and return what they took.

    Args:
        folder: of the stage; scores.npz in it holds value, standard_error, z_score (each child
            groups x parent groups), bootstraps (one such matrix each), reliability and labels.
        pair: of layers.
        child: (n, child filters) activations.
        parent: (n, parent filters) activations of the same rows.
        groups: of filters in each layer.
        estimate: how many bootstraps, or how reliable.
        seed: of the splits.
        device: to count on.
    """
    start = time.perf_counter()
    child_labels = group_labels(pair.child_filters, groups)
    parent_labels = group_labels(pair.parent_filters, groups)
    bootstraps = gmi_bootstraps(
        child, parent, child_labels, parent_labels, seed=seed, device=device.type
    )
    drawn: list[Bootstrap] = []
    for wanted in _bootstraps_to_try(estimate):
        drawn += islice(bootstraps, wanted - len(drawn))
        scores = summarize(drawn)
        if estimate.reliability and scores.reliability >= estimate.reliability:
            break
    np.savez(
        folder / SCORES_FILE,
        allow_pickle=False,
        value=scores.value,
        standard_error=scores.standard_error,
        z_score=scores.z_score,
        reliability=scores.reliability,
        bootstraps=np.stack([bootstrap.value for bootstrap in drawn]),
        child_labels=child_labels,
        parent_labels=parent_labels,
    )
    scoring = LayerScoring(
        parent=pair.parent,
        child=pair.child,
        blocks=scores.value.size,
        bootstraps=scores.bootstraps,
        reliability=None if math.isnan(scores.reliability) else scores.reliability,
        seconds=time.perf_counter() - start,
    )
    scoring.save(folder)
    return scoring


def load_scores(folder: Path, pair: LayerPair, network: nn.Module) -> BlockScores:
    """Return the scores in a stage's folder as those of the blocks of the child's weight."""
    weight = network.get_parameter(f"{pair.child}.weight")
    with np.load(folder / SCORES_FILE, allow_pickle=False) as arrays:
        return BlockScores(
            value=arrays["value"],
            child_labels=arrays["child_labels"],
            parent_labels=arrays["parent_labels"][pair.columns()],
            kernel=tuple(weight.shape[2:]),
        )


def _bootstraps_to_try(estimate: EstimateConfig) -> Iterator[int]:
    """Yield after how many bootstraps to look at the reliability: each time half as many again."""
    wanted = 4
    while estimate.reliability and wanted < estimate.bootstraps:
        yield wanted
        wanted += wanted // 2
    yield estimate.bootstraps
