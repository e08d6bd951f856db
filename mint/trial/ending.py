"""The end of a trial: the search for its masks, its accuracies, and its result."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mint.pruning.flops import multiply_adds, state_bytes
from mint.pruning.masks import Masks, apply_masks
from mint.pruning.scores import save_scores
from mint.pruning.sparsity_search import MarginCrossing, find_crossing
from mint.rng import stream
from mint.store.atomic import link_or_copy
from mint.training.loop import accuracy
from mint.trial.result import (
    MASKS_FILE,
    SCORES_FILE,
    WEIGHTS_FILE,
    Baseline,
    LayerScoring,
    Retraining,
    SearchStep,
    TrialKeys,
    TrialResult,
)

if TYPE_CHECKING:
    from mint.trial.pipeline import TrialPipeline


def finish(trial: "TrialPipeline", folder: Path) -> None:
    """Prune and retrain, and write the trial's result, masks, weights and scores."""
    masks, steps, crossing = _search(trial)
    masks.save(folder / MASKS_FILE)
    if not trial.config.scores_single_weights:
        save_scores(folder / SCORES_FILE, trial.block_scores, rows=trial.rows)
    kept = trial.from_retrained(masks, partial(_link_weights, weights=folder / WEIGHTS_FILE))
    trial.unused_networks.discard(kept)
    pruned_network = trial.network(folder)
    TrialResult(
        keys=TrialKeys.of(trial.config),
        config=trial.config,
        search_steps=tuple(steps),
        image_shape=trial.dataset.image_shape,
        preparation=trial.dataset.preparation,
        layers=trial.layer_counts(masks),
        device="cpu" if trial.device.type == "cpu" else torch.cuda.get_device_name(trial.device),
        provenance=trial.provenance,
        **_accuracies(trial, masks, pruned_network),
        **_share_at_margin(trial, crossing),
        **_weight_counts(trial, masks, pruned_network),
        **_scoring(trial),
        seconds=time.perf_counter() - trial.begun,
        artefacts=trial.artefacts,
    ).save(folder)


def _link_weights(retrained: Path, weights: Path) -> str:
    """Put the weights of a retrained network at a path, and return its key."""
    link_or_copy(retrained / WEIGHTS_FILE, weights)
    return retrained.name


def _accuracies(trial: "TrialPipeline", masks: Masks, pruned_network: nn.Module) -> dict[str, Any]:
    """Return all accuracies; this alone reads the test images, after the search is over."""
    test, masked = trial.dataset.test, trial.before_retraining(masks)
    before = accuracy(trial.network(trial.baseline), test)
    with apply_masks(masked, masks):
        before_retraining = accuracy(masked, test)
    after = accuracy(pruned_network, test)
    return {
        "accuracy": after,
        "baseline_accuracy": before,
        "accuracy_drop": before - after,
        "accuracy_before_retraining": before_retraining,
        "dense_accuracy": accuracy(trial.network(trial.dense), test),
        "test_images": len(test),
        "validation_accuracy": trial.retraining(masks).validation_accuracy,
        "baseline_validation_accuracy": Baseline.load(trial.baseline).validation_accuracy,
        "dense_validation_accuracy": Retraining.load(trial.dense).validation_accuracy,
    }


def _share_at_margin(trial: "TrialPipeline", crossing: MarginCrossing | None) -> dict[str, Any]:
    if crossing is None:
        return {}
    pruned, low, high, bound = crossing
    weights = {"share_at_margin": pruned, "share_low": low, "share_high": high}
    shares = {
        name: None if number is None else 100 * number / trial.counted
        for name, number in weights.items()
    }
    return {**shares, "share_bound": bound}


def _weight_counts(trial: "TrialPipeline", masks: Masks, network: nn.Module) -> dict[str, Any]:
    example = trial.example
    return {
        "params_pruned": 100 * masks.pruned / trial.counted,
        "pruned_weights": masks.pruned,
        "prunable_weights": masks.prunable,
        "counted_weights": trial.counted,
        "multiply_adds": (
            multiply_adds(network, example),
            multiply_adds(network, example, masks),
        ),
        "state_bytes": (state_bytes(network), state_bytes(network, masks)),
    }


def _scoring(trial: "TrialPipeline") -> dict[str, Any]:
    scoring = tuple(LayerScoring.load(folder) for folder in trial.all_scores.values())
    known = [layer.reliability for layer in scoring if layer.reliability is not None]
    return {
        "scoring": scoring,
        "score_seconds": sum(layer.seconds for layer in scoring),
        "bootstraps": max(layer.bootstraps for layer in scoring),
        "reliability": min(known) if len(known) == len(scoring) else None,
    }


def _search(
    trial: "TrialPipeline",
) -> tuple[Masks, list[SearchStep], MarginCrossing | None]:
    """Return the masks of the given fraction, or those of the share at the margin."""
    search, ranking = trial.config.search, trial.ranking
    baseline = Baseline.load(trial.baseline).validation_accuracy
    steps: list[SearchStep] = []

    def drop_of(masks: Masks) -> float:
        retraining = trial.retraining(masks)
        drop = baseline - retraining.validation_accuracy
        passed = None if search.margin is None else drop <= search.margin
        pruned = 100 * masks.pruned / trial.counted
        steps.append(SearchStep(params_pruned=pruned, passed=passed, retraining=retraining))
        trial.callbacks.on_search_step(steps[-1])
        return drop

    if search.margin is None:
        drop_of(trial.masks)
        return trial.masks, steps, None
    assert search.steps is not None
    crossing = find_crossing(
        ranking.pruned,
        ranking.prunable,
        lambda blocks: drop_of(ranking.masks(blocks)),
        dense_drop=baseline - Retraining.load(trial.dense).validation_accuracy,
        margin=search.margin,
        sd=search.sd or search.margin / 3,
        steps=search.steps - 1,  # the last retraining is at the crossing
        generator=stream(trial.config.seed, "interval of the share at the margin"),
    )
    blocks = int(np.searchsorted(ranking.pruned, crossing.pruned, side="right")) - 1
    masks = ranking.masks(blocks)
    if masks.pruned not in {step.retraining.pruned_weights for step in steps}:
        drop_of(masks)
    return masks, steps, crossing
