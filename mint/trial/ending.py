"""The end of a trial: the search for its masks, its accuracies, and its result."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mint.pruning.flops import multiply_adds, state_bytes
from mint.pruning.masks import Masks
from mint.pruning.scores import save_scores
from mint.pruning.sparsity_search import largest_passing
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
    masks, steps = _search(trial)
    masks.save(folder / MASKS_FILE)
    if not trial.config.scores_single_weights:
        save_scores(folder / SCORES_FILE, trial.block_scores, rows=trial.rows)
    final: Baseline | Retraining = Baseline.load(trial.baseline)
    if masks.pruned:
        final = _retraining(trial, masks, folder / WEIGHTS_FILE)
    else:
        link_or_copy(trial.baseline / WEIGHTS_FILE, folder / WEIGHTS_FILE)
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
        **_accuracies(trial, pruned_network, final),
        **_weight_counts(trial, masks, pruned_network),
        **_scoring(trial),
        seconds=time.perf_counter() - trial.begun,
        artefacts=trial.artefacts,
    ).save(folder)


def _retraining(trial: "TrialPipeline", masks: Masks, weights: Path | None = None) -> Retraining:
    """Return the result of retraining under masks; put the weights at a path if one is given.

    A trial that tried the same masks and ends with others may remove the network at any time:
    it is then trained again.
    """
    while True:
        folder = trial.retrained(masks)
        try:
            result = Retraining.load(trial.use(folder))
            if weights:
                link_or_copy(folder / WEIGHTS_FILE, weights)
                trial.unused_networks.discard(folder.name)
            return result
        except FileNotFoundError:
            if folder.exists():
                raise


def _accuracies(
    trial: "TrialPipeline", pruned_network: nn.Module, final: Baseline | Retraining
) -> dict[str, Any]:
    """Return all accuracies; this alone reads the test images, after the search is over."""
    baseline = Baseline.load(trial.baseline)
    before = accuracy(trial.network(trial.baseline), trial.dataset.test)
    after = accuracy(pruned_network, trial.dataset.test)
    return {
        "accuracy": after,
        "baseline_accuracy": before,
        "accuracy_drop": before - after,
        "validation_accuracy": final.validation_accuracy,
        "baseline_validation_accuracy": baseline.validation_accuracy,
    }


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


def _search(trial: "TrialPipeline") -> tuple[Masks, list[SearchStep]]:
    """Return the masks of the given fraction, or the largest that the search passes."""
    search, baseline = trial.config.search, Baseline.load(trial.baseline)
    steps: list[SearchStep] = []

    def passes(masks: Masks) -> bool:
        retraining = _retraining(trial, masks)
        drop = baseline.validation_accuracy - retraining.validation_accuracy
        # The slack is for the last bit of a difference of two percentages.
        passed = None if search.max_drop is None else drop <= search.max_drop + 1e-9
        pruned = 100 * masks.pruned / trial.counted
        steps.append(SearchStep(params_pruned=pruned, passed=passed, retraining=retraining))
        trial.callbacks.on_search_step(steps[-1])
        return bool(passed)

    if search.fraction is not None:
        if trial.masks.pruned:
            passes(trial.masks)
        return trial.masks, steps
    assert search.steps is not None
    ranking = trial.ranking
    blocks = largest_passing(
        ranking.pruned,
        ranking.prunable,
        lambda blocks: passes(ranking.masks(blocks)),
        steps=search.steps,
        try_last_first=int(ranking.pruned[-1]) < ranking.prunable,
    )
    return ranking.masks(blocks), steps
