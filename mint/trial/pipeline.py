"""One trial as a pipeline of stages: baseline, activations, scores, masks, retraining, result."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.config.schema import TrainingConfig, TrialConfig
from mint.data.checks import OnCheck
from mint.data.datasets import Source
from mint.data.loading import Dataset, balanced_rows, split_source
from mint.errors import InputError
from mint.models import (
    LayerPair,
    Traced,
    build_network,
    chosen_pairs,
    collect_activations,
    source_digest,
    trace,
)
from mint.models.activations import ROWS_AT_ONCE
from mint.pruning.criteria import CriterionInputs, score
from mint.pruning.flops import multiply_adds, state_bytes
from mint.pruning.gradients import ROWS_AT_ONCE_BACKWARD, loss_gradients
from mint.pruning.layer_table import LayerCount, count_layers
from mint.pruning.masks import Masks
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores, load_scores, save_scores
from mint.pruning.sparsity_search import largest_passing
from mint.rng import stream, torch_seeded
from mint.store.stage_cache import StageCache
from mint.training.determinism import reproducible
from mint.training.loop import Epoch, accuracy, train
from mint.trial.preflight import counted_weights, estimator_bytes, load_initial
from mint.trial.provenance import Provenance
from mint.trial.result import (
    ACTIVATIONS_FILE,
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


def _ignore(*_: object) -> None:
    """Ignore a report."""


@dataclass(frozen=True)
class TrialCallbacks:
    """Functions that report a trial's progress.

    on_epoch gets the stage (baseline or retraining), the epoch and the number of epochs;
    on_layer_scores the scores of every layer, new or found finished; on_check the number of images
    checked so far, and of all.
    """

    on_epoch: Callable[[str, Epoch, int], None] = _ignore
    on_layer_scores: Callable[[LayerScoring], None] = _ignore
    on_search_step: Callable[[SearchStep], None] = _ignore
    on_check: OnCheck = _ignore


def run_trial(pipeline: "TrialPipeline") -> Path:
    """Run a trial, or find it finished, and return its folder.

    The folder holds the result, the masks, the weights and the scores. The cache keeps the
    baseline, the scores of every layer and every retrained network, so a trial that was stopped
    resumes, and trials share the stages that they have in common.

    Raises:
        InputError: the weights to start from do not fit the network.
        TrainingDivergedError: a training loss is no longer finite.
    """

    def make(folder: Path) -> None:
        with reproducible(pipeline.experiment.threads, pipeline.device):
            pipeline.finish(folder)

    return pipeline.cache.produce("trials", pipeline.config.key, make)


class TrialPipeline:
    """The stages of one trial; each runs when it is first needed, and is kept in the cache.

    Run them inside `reproducible`, as run_trial does.
    """

    def __init__(
        self,
        config: TrialConfig,
        source: Source,
        *,
        cache: StageCache,
        provenance: Provenance,
        init: Path | None = None,
        callbacks: TrialCallbacks | None = None,
        at_once: int = 1,
    ) -> None:
        """Prepare the stages; init is the file of the weights that config.init describes.

        So many trials side by side share the memory of the machine or the GPU.

        Raises:
            InputError: the data or the source of the network are not those of the configuration.
        """
        if source_digest(config.experiment.network) != config.network_digest:
            problem = "its source is not what this trial began with"
            raise InputError(f"network {config.experiment.network.name}: {problem}")
        if source.digest != config.data_digest:
            raise InputError(
                f"{config.experiment.data.name}: its content is not what this trial began with"
            )
        self.config = config
        self.experiment = config.experiment
        self.source = source
        self.cache = cache
        self.device = torch.device(config.device)
        self.provenance = provenance
        self.callbacks = callbacks or TrialCallbacks()
        self._init = init
        self._at_once = at_once
        self._begun = time.perf_counter()

    @cached_property
    def dataset(self) -> Dataset:
        """Training, validation and test split."""
        data = self.experiment.data
        return split_source(self.source, data, seed=self.config.seed, device=self.device)

    @cached_property
    def baseline(self) -> Path:
        """Folder of the trained network before pruning."""
        return self._trained(
            "baselines",
            self.config.baseline_key,
            self._untrained,
            self.experiment.training,
            Baseline,
        )

    def _untrained(self) -> nn.Module:
        with torch_seeded(self.config.seed, "initial weights", torch.device("cpu")):
            network = build_network(self.experiment.network)
        if self.config.init:
            if self._init is None:
                raise InputError(f"the file {self.config.init.file} is needed", parameter="init")
            load_initial(network, self.experiment, self._init)
        return network.to(self.device)

    def network(self, folder: Path) -> nn.Module:
        """Return the network with the weights in the folder of a baseline or a retraining."""
        network = build_network(self.experiment.network)
        safetensors.torch.load_model(network, str(folder / WEIGHTS_FILE))
        return network.to(self.device)

    @cached_property
    def _example(self) -> Tensor:
        return torch.zeros(1, *self.dataset.image_shape, device=self.device)

    @cached_property
    def traced(self) -> Traced:
        """Layers and pairs of the trained network."""
        return trace(self.network(self.baseline), self._example)

    @cached_property
    def pairs(self) -> list[LayerPair]:
        """The pairs to prune."""
        return chosen_pairs(self.traced, self.experiment)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(n,) training rows that scores are estimated from, the same number for every class."""
        return balanced_rows(
            self.dataset.train.labels,
            samples_per_class=self.config.samples_per_class,
            seed=self.config.seed,
        )

    @cached_property
    def activations(self) -> dict[str, NDArray[np.float32]]:
        """(n, filters) activations of the rows, by the names of the pairs' nodes."""

        def make(folder: Path) -> None:
            np.savez(folder / ACTIVATIONS_FILE, allow_pickle=False, **self._collected())

        folder = self.cache.produce("activations", self.config.activations_key, make)
        with np.load(folder / ACTIVATIONS_FILE, allow_pickle=False) as kept:
            return dict(kept)

    @cached_property
    def magnitudes(self) -> dict[str, NDArray[np.float32]]:
        """(n, filters) absolute activations of the rows, by the names of the pairs' nodes."""
        return self._collected(absolute=True)

    def _collected(self, *, absolute: bool = False) -> dict[str, NDArray[np.float32]]:
        batches = self.dataset.train.batches(ROWS_AT_ONCE, self.rows)
        images = (inputs for inputs, _ in batches)
        return collect_activations(self.traced, images, self.pairs, absolute=absolute)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the mean loss over the rows, by the names of the prunable weights."""
        batches = self.dataset.train.batches(ROWS_AT_ONCE_BACKWARD, self.rows)
        return loss_gradients(self.traced, batches, [pair.weight for pair in self.pairs])

    def scores(self, pair: LayerPair) -> Path:
        """Return the folder of the scores of a pair's blocks."""

        def make(folder: Path) -> None:
            start = time.perf_counter()
            inputs = CriterionInputs(
                traced=self.traced,
                groups_of=self.config.groups_of,
                estimate=self.config.estimate,
                device=self.config.estimator,
                memory_limit=estimator_bytes(self.config, self._at_once),
                seed=self.config.seed,
                activations=lambda: self.activations,
                magnitudes=lambda: self.magnitudes,
                gradients=lambda: self.gradients,
            )
            scores = score(self.config.criterion, pair, inputs)
            save_scores(folder / SCORES_FILE, {pair.weight: scores})
            LayerScoring(
                parent=pair.parent,
                child=pair.child,
                blocks=scores.value.size,
                bootstraps=0 if scores.bootstraps is None else len(scores.bootstraps),
                reliability=None if math.isnan(scores.reliability) else scores.reliability,
                seconds=time.perf_counter() - start,
            ).save(folder)

        folder = self.cache.produce("scores", self.config.scores_key(pair.child), make)
        self.callbacks.on_layer_scores(LayerScoring.load(folder))
        return folder

    @cached_property
    def all_scores(self) -> dict[str, Path]:
        """Folders of the scores, by the names of the prunable weights."""
        return {pair.weight: self.scores(pair) for pair in self.pairs}

    @cached_property
    def block_scores(self) -> dict[str, BlockScores]:
        """The scores, by the names of the prunable weights."""
        return {
            weight: scores
            for folder in self.all_scores.values()
            for weight, scores in load_scores(folder / SCORES_FILE).items()
        }

    @cached_property
    def ranking(self) -> BlockRanking:
        """The order in which the blocks of all layers are pruned."""
        return BlockRanking(
            self.block_scores,
            limits={pair.weight: self.config.limit_of(pair.child) for pair in self.pairs},
            keep_connected=self.experiment.keep_connected,
            generator=stream(self.config.seed, "order of equal scores"),
        )

    @cached_property
    def counted(self) -> int:
        """Number of weights that fractions and percentages refer to."""
        return counted_weights(self.traced, self.pairs, self.experiment)

    def is_done(self, stage: str) -> bool:
        """Return whether a stage has finished: baselines, scores (after baselines) or masks."""
        keys = {
            "baselines": lambda: [self.config.baseline_key],
            "scores": lambda: [self.config.scores_key(pair.child) for pair in self.pairs],
            "masks": lambda: [self.config.key],
        }
        return all(self.cache.find(stage, key) for key in keys[stage]())

    @cached_property
    def pruned(self) -> Path:
        """Folder of the masks that prune the given fraction."""
        fraction = self.config.search.fraction
        assert fraction is not None

        def make(folder: Path) -> None:
            blocks = self.ranking.blocks_within(fraction, self.counted)
            self.ranking.masks(blocks).save(folder / MASKS_FILE)

        return self.cache.produce("masks", self.config.key, make)

    @cached_property
    def masks(self) -> Masks:
        """The masks that prune the given fraction."""
        masks = Masks.load(self.pruned / MASKS_FILE)
        masks.check_fit(self.traced.graph)
        return masks

    def layer_counts(self, masks: Masks) -> tuple[LayerCount, ...]:
        """Count the weights of every layer, and those that masks keep."""
        return count_layers(self.traced, self.pairs, masks)

    def retrained(self, masks: Masks) -> Path:
        """Return the folder of the network retrained under masks."""
        return self._trained(
            "retrained",
            self.config.retrained_key(masks.digest),
            lambda: self.network(self.baseline),
            self.experiment.retraining_settings,
            lambda **trained: Retraining(
                pruned_weights=masks.pruned, counted_weights=self.counted, **trained
            ),
            masks,
        )

    def _trained(
        self,
        stage: str,
        key: str,
        start_from: Callable[[], nn.Module],
        settings: TrainingConfig,
        result: Callable[..., Baseline | Retraining],
        masks: Masks | None = None,
    ) -> Path:
        """Return the folder of a trained network and its result, training it if necessary."""
        checkpoint = self.cache.checkpoint(stage, key)
        reported_as = "retraining" if masks else "baseline"

        def make(folder: Path) -> None:
            start = time.perf_counter()
            network = start_from()
            history = train(
                network,
                self.dataset,
                settings,
                seed=self.config.seed,
                masks=masks.tensors() if masks else None,
                checkpoint=checkpoint,
                on_checkpoint=self.cache.keep_checkpoint,
                on_epoch=lambda epoch: self.callbacks.on_epoch(reported_as, epoch, settings.epochs),
            )
            safetensors.torch.save_model(network, str(folder / WEIGHTS_FILE))
            result(
                validation_accuracy=history[-1].validation_accuracy
                if history
                else accuracy(network, self.dataset.validation, settings),
                training=tuple(history),
                seconds=time.perf_counter() - start,
            ).save(folder)

        folder = self.cache.produce(stage, key, make)
        self.cache.drop_checkpoint(checkpoint)
        return folder

    def finish(self, folder: Path) -> None:
        """Prune and retrain, and write the trial's result, masks, weights and scores."""
        masks, steps = self._search()
        masks.save(folder / MASKS_FILE)
        save_scores(folder / SCORES_FILE, self.block_scores, rows=self.rows)
        final_folder = self.retrained(masks) if masks.pruned else self.baseline
        shutil.copyfile(final_folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        pruned_network = self.network(final_folder)
        TrialResult(
            keys=TrialKeys.of(self.config),
            config=self.config,
            search_steps=tuple(steps),
            image_shape=self.dataset.image_shape,
            preparation=self.dataset.preparation,
            layers=self.layer_counts(masks),
            device="cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            provenance=self.provenance,
            **self._accuracies(masks, pruned_network, final_folder),
            **self._weight_counts(masks, pruned_network),
            **self._scoring(),
            seconds=time.perf_counter() - self._begun,
        ).save(folder)

    def _accuracies(
        self, masks: Masks, pruned_network: nn.Module, final_folder: Path
    ) -> dict[str, Any]:
        """Return all accuracies; this alone reads the test images, after the search is over."""
        baseline = Baseline.load(self.baseline)
        final = Retraining.load(final_folder) if masks.pruned else baseline
        before = accuracy(self.network(self.baseline), self.dataset.test)
        after = accuracy(pruned_network, self.dataset.test)
        return {
            "accuracy": after,
            "baseline_accuracy": before,
            "accuracy_drop": before - after,
            "validation_accuracy": final.validation_accuracy,
            "baseline_validation_accuracy": baseline.validation_accuracy,
        }

    def _weight_counts(self, masks: Masks, network: nn.Module) -> dict[str, Any]:
        example = self._example
        return {
            "params_pruned": 100 * masks.pruned / self.counted,
            "pruned_weights": masks.pruned,
            "prunable_weights": masks.prunable,
            "counted_weights": self.counted,
            "multiply_adds": (
                multiply_adds(network, example),
                multiply_adds(network, example, masks),
            ),
            "state_bytes": (state_bytes(network), state_bytes(network, masks)),
        }

    def _scoring(self) -> dict[str, Any]:
        scoring = tuple(LayerScoring.load(folder) for folder in self.all_scores.values())
        known = [layer.reliability for layer in scoring if layer.reliability is not None]
        return {
            "scoring": scoring,
            "score_seconds": sum(layer.seconds for layer in scoring),
            "bootstraps": max(layer.bootstraps for layer in scoring),
            "reliability": min(known) if len(known) == len(scoring) else None,
        }

    def _search(self) -> tuple[Masks, list[SearchStep]]:
        """Return the masks of the given fraction, or the largest that the search passes."""
        search, baseline = self.config.search, Baseline.load(self.baseline)
        steps: list[SearchStep] = []

        def passes(masks: Masks) -> bool:
            retraining = Retraining.load(self.retrained(masks))
            drop = baseline.validation_accuracy - retraining.validation_accuracy
            # The slack is for the last bit of a difference of two percentages.
            passed = None if search.max_drop is None else drop <= search.max_drop + 1e-9
            pruned = 100 * masks.pruned / self.counted
            steps.append(SearchStep(params_pruned=pruned, passed=passed, retraining=retraining))
            self.callbacks.on_search_step(steps[-1])
            return bool(passed)

        if search.fraction is not None:
            if self.masks.pruned:
                passes(self.masks)
            return self.masks, steps
        assert search.steps is not None
        ranking = self.ranking
        blocks = largest_passing(
            ranking.pruned,
            ranking.prunable,
            lambda blocks: passes(ranking.masks(blocks)),
            steps=search.steps,
            try_last_first=int(ranking.pruned[-1]) < ranking.prunable,
        )
        return ranking.masks(blocks), steps
