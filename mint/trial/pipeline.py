"""One trial: baseline, activations, scores, masks, retraining."""

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
from mint.data.datasets import Source
from mint.data.loading import Dataset, balanced_rows, split_source
from mint.errors import InputError
from mint.models import (
    LayerPair,
    Traced,
    build_network,
    chosen_pairs,
    load_weights,
    source_digest,
    trace,
)
from mint.models.activations import ROWS_AT_ONCE, collect, nodes_of
from mint.pruning.criteria import Evidence
from mint.pruning.flops import costs
from mint.pruning.gradients import ROWS_AT_ONCE_BACKWARD, loss_gradients
from mint.pruning.layer_table import LayerCount, count_layers
from mint.pruning.masks import BlockScores, Masks, PruningOrder
from mint.pruning.scores import estimate_layer, load_scores
from mint.pruning.sparsity_search import largest_passing
from mint.rng import stream, torch_seeded
from mint.store.stage_cache import MANIFEST, Cache
from mint.training.determinism import reproducible
from mint.training.loop import Epoch, accuracy, train
from mint.trial.preflight import counted_weights, load_initial
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

    Attributes:
        on_epoch: called after every epoch with the stage (baseline or retraining), the epoch, and
            the number of epochs.
        on_layer_scores: called with the scores of every layer, new or found finished.
        on_search_step: called after every search step.
    """

    on_epoch: Callable[[str, Epoch, int], None] = _ignore
    on_layer_scores: Callable[[LayerScoring], None] = _ignore
    on_search_step: Callable[[SearchStep], None] = _ignore


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


def initial_file(cache: Cache, config: TrialConfig) -> Path | None:
    """Return the file that was kept for a trial; None where it starts from random weights.

    It has the name that it had when it was first kept, which may not be that of config.init.
    """
    folder = config.init and cache.find("initial", config.init.digest)
    if not folder:
        return None
    (file,) = (path for path in folder.iterdir() if path.name != MANIFEST)
    return file


def finished_network(folder: Path) -> nn.Module:
    """Return the pruned and retrained network of a finished trial's folder, on the CPU.

    Raises:
        InputError: its source was changed since, or the weights cannot be read.
    """
    config = TrialResult.load(folder).config
    if source_digest(config.experiment.network) != config.network_digest:
        raise InputError(
            f"{folder}: the source of {config.experiment.network.name} was changed since this "
            "trial; bring it back first"
        )
    network = build_network(config.experiment.network)
    load_weights(network, folder / WEIGHTS_FILE)
    return network


class TrialPipeline:
    """The stages of one trial; each runs when it is first needed, and is kept in the cache."""

    def __init__(
        self,
        config: TrialConfig,
        source: Source,
        *,
        cache: Cache,
        provenance: Provenance,
        init: Path | None = None,
        callbacks: TrialCallbacks | None = None,
    ) -> None:
        """Prepare the stages; run them inside `reproducible`.

        Args:
            config: of the trial.
            source: the data set.
            cache: of finished stages.
            provenance: for the trial's result.
            init: file of the weights that config.init describes.
            callbacks: report the progress.

        Raises:
            InputError: the data are not those of the configuration.
        """
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
        self._init = init
        self.callbacks = callbacks or TrialCallbacks()
        self._begun = time.perf_counter()

    @cached_property
    def dataset(self) -> Dataset:
        """The three parts of the data set."""
        return split_source(
            self.source, self.experiment.data, seed=self.config.seed, device=self.device
        )

    @cached_property
    def baseline(self) -> Path:
        """The folder of the trained network before pruning."""

        def untrained_network() -> nn.Module:
            with torch_seeded(self.config.seed, "initial weights", torch.device("cpu")):
                network = build_network(self.experiment.network)
            if self.config.init:
                if self._init is None:
                    raise InputError(
                        f"the file {self.config.init.file} is needed", parameter="init"
                    )
                load_initial(network, self.experiment, self._init)
            return network.to(self.device)

        return self._trained(
            "baselines",
            self.config.baseline_key,
            untrained_network,
            self.experiment.training,
            lambda trained: Baseline(**trained),
        )

    def network(self, folder: Path) -> nn.Module:
        """Return the network with the weights of a baseline's or a retraining's folder."""
        network = build_network(self.experiment.network)
        safetensors.torch.load_model(network, str(folder / WEIGHTS_FILE))
        return network.to(self.device)

    @cached_property
    def traced(self) -> Traced:
        """The trained network's layers and pairs."""
        example = torch.zeros(1, *self.dataset.image_shape, device=self.device)
        return trace(self.network(self.baseline), example)

    @cached_property
    def pairs(self) -> list[LayerPair]:
        """The pairs that are pruned."""
        return chosen_pairs(self.traced, self.experiment)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(n,) the training rows that scores are estimated from, the same number of every class."""
        return balanced_rows(
            self.dataset.train.labels,
            samples_per_class=self.config.samples_per_class,
            seed=self.config.seed,
        )

    @cached_property
    def activations(self) -> dict[str, NDArray[np.float32]]:
        """For the name of every node that a pair tells of, (n, filters) for these rows."""

        def make(folder: Path) -> None:
            batches = self.dataset.train.batches(ROWS_AT_ONCE, self.rows)
            inputs = (inputs for inputs, _ in batches)
            collected = collect(self.traced, inputs, nodes_of(self.pairs))
            np.savez(folder / ACTIVATIONS_FILE, allow_pickle=False, **collected)

        folder = self.cache.produce("activations", self.config.activations_key, make)
        with np.load(folder / ACTIVATIONS_FILE, allow_pickle=False) as kept:
            return dict(kept)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """For the name of every weight that is pruned, the loss's gradient over these rows."""
        batches = self.dataset.train.batches(ROWS_AT_ONCE_BACKWARD, self.rows)
        return loss_gradients(self.traced, batches, [f"{pair.child}.weight" for pair in self.pairs])

    def scores(self, pair: LayerPair) -> Path:
        """Return the folder of the scores of a pair's blocks."""

        def make(folder: Path) -> None:
            evidence = Evidence(
                traced=self.traced,
                groups_of=self.config.groups_of,
                estimate=self.config.estimate,
                seed=self.config.seed,
                activations=lambda: self.activations,
                gradients=lambda: self.gradients,
            )
            estimate_layer(folder, pair, self.config.criterion, evidence)

        folder = self.cache.produce("scores", self.config.scores_key(pair.child), make)
        self.callbacks.on_layer_scores(LayerScoring.load(folder))
        return folder

    @cached_property
    def all_scores(self) -> dict[str, Path]:
        """For the name of every weight that is pruned, the folder of its blocks' scores."""
        return {f"{pair.child}.weight": self.scores(pair) for pair in self.pairs}

    @cached_property
    def block_scores(self) -> dict[str, BlockScores]:
        """Likewise, the scores."""
        folders = self.all_scores
        return {
            f"{pair.child}.weight": load_scores(
                folders[f"{pair.child}.weight"], pair, self.traced.graph
            )
            for pair in self.pairs
        }

    @cached_property
    def order(self) -> PruningOrder:
        """The order in which the blocks of all layers are pruned."""
        limits = {f"{pair.child}.weight": self.config.limit_of(pair.child) for pair in self.pairs}
        return PruningOrder(
            self.block_scores,
            limits=limits,
            floor=self.experiment.keep_connected,
            generator=stream(self.config.seed, "order of equal scores"),
        )

    @cached_property
    def counted(self) -> int:
        """The number of weights that fractions and percents are of."""
        return counted_weights(self.traced, self.pairs, self.experiment)

    @property
    def has_baseline(self) -> bool:
        return self.cache.find("baselines", self.config.baseline_key) is not None

    @property
    def has_scores(self) -> bool:
        """Whether all scores are there; needs the baseline."""
        keys = [self.config.scores_key(pair.child) for pair in self.pairs]
        return all(self.cache.find("scores", key) for key in keys)

    @property
    def has_masks(self) -> bool:
        return self.cache.find("masks", self.config.key) is not None

    @cached_property
    def pruned(self) -> Path:
        """The folder of the masks of the fraction that the experiment gives."""
        fraction = self.config.search.fraction
        assert fraction is not None

        def make(folder: Path) -> None:
            blocks = self.order.blocks_within(fraction, self.counted)
            self.order.masks(blocks).save(folder / MASKS_FILE)

        return self.cache.produce("masks", self.config.key, make)

    @cached_property
    def masks(self) -> Masks:
        """Those masks."""
        masks = Masks.load(self.pruned / MASKS_FILE)
        masks.check_fit(self.traced.graph)
        return masks

    def counted_layers(self, masks: Masks) -> tuple[LayerCount, ...]:
        """Count the weights of every layer, and those that the masks keep."""
        return count_layers(self.traced, self.pairs, masks)

    def retrained(self, masks: Masks) -> Path:
        """Return the folder of the network retrained under these masks."""
        return self._trained(
            "retrained",
            self.config.retrained_key(masks.digest),
            lambda: self.network(self.baseline),
            self.experiment.retraining_settings,
            lambda trained: Retraining(
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
        record: Callable[[dict[str, Any]], Baseline | Retraining],
        masks: Masks | None = None,
    ) -> Path:
        """Return the folder of a trained network and its record, training it if nobody has."""

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
                on_epoch=lambda epoch: self.callbacks.on_epoch(
                    "retraining" if masks else "baseline", epoch, settings.epochs
                ),
            )
            safetensors.torch.save_model(network, str(folder / WEIGHTS_FILE))
            reached = (
                history[-1].validation_accuracy
                if history
                else accuracy(network, self.dataset.validation, settings)
            )
            trained = {
                "validation_accuracy": reached,
                "training": tuple(history),
                "seconds": time.perf_counter() - start,
            }
            record(trained).save(folder)

        checkpoint = self.cache.checkpoint(stage, key)
        folder = self.cache.produce(stage, key, make)
        self.cache.drop_checkpoint(checkpoint)
        return folder

    def finish(self, folder: Path) -> None:
        """Prune and retrain, and write the trial's result, masks and scores into its folder."""
        baseline = Baseline.load(self.baseline)
        masks, steps = self._search(baseline)
        masks.save(folder / MASKS_FILE)
        self._write_scores(folder / SCORES_FILE)
        final_folder = self.retrained(masks) if masks.pruned else self.baseline
        shutil.copyfile(final_folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        pruned_network = self.network(final_folder)
        baseline_accuracy = accuracy(self.network(self.baseline), self.dataset.test)
        final_accuracy = accuracy(pruned_network, self.dataset.test)
        scoring = tuple(LayerScoring.load(scores) for scores in self.all_scores.values())
        reliabilities = [layer.reliability for layer in scoring]
        known = [value for value in reliabilities if value is not None]
        bought = costs(
            pruned_network, masks, torch.zeros(1, *self.dataset.image_shape, device=self.device)
        )
        final = Retraining.load(final_folder) if masks.pruned else baseline
        TrialResult(
            keys=TrialKeys.of(self.config),
            config=self.config,
            params_pruned=100 * masks.pruned / self.counted,
            pruned_weights=masks.pruned,
            prunable_weights=masks.prunable,
            counted_weights=self.counted,
            accuracy=final_accuracy,
            baseline_accuracy=baseline_accuracy,
            accuracy_drop=baseline_accuracy - final_accuracy,
            validation_accuracy=final.validation_accuracy,
            baseline_validation_accuracy=baseline.validation_accuracy,
            search_steps=tuple(steps),
            score_seconds=sum(layer.seconds for layer in scoring),
            bootstraps=max(layer.bootstraps for layer in scoring),
            reliability=min(known) if len(known) == len(scoring) else None,
            scoring=scoring,
            image_shape=self.dataset.image_shape,
            layers=self.counted_layers(masks),
            multiply_adds=(bought.multiply_adds, bought.pruned_multiply_adds),
            state_bytes=(bought.dense_bytes, bought.sparse_bytes),
            device=(
                torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
            ),
            seconds=time.perf_counter() - self._begun,
            provenance=self.provenance,
        ).save(folder)

    def _search(self, baseline: Baseline) -> tuple[Masks, list[SearchStep]]:
        """Return the masks of the given fraction, or of the largest that the search passes."""
        search = self.config.search
        steps: list[SearchStep] = []

        def try_masks(masks: Masks) -> bool:
            retraining = Retraining.load(self.retrained(masks))
            drop = baseline.validation_accuracy - retraining.validation_accuracy
            # The slack is for the last bit of a difference of two percentages.
            passed = None if search.max_drop is None else drop <= search.max_drop + 1e-9
            step = SearchStep(
                params_pruned=100 * masks.pruned / self.counted,
                passed=passed,
                retraining=retraining,
            )
            steps.append(step)
            self.callbacks.on_search_step(step)
            return bool(passed)

        if search.fraction is not None:
            if self.masks.pruned:
                try_masks(self.masks)
            return self.masks, steps
        assert search.steps is not None
        blocks = largest_passing(
            self.order.pruned,
            self.order.prunable,
            lambda step: try_masks(self.order.masks(step)),
            probes=search.steps,
            try_last_first=int(self.order.pruned[-1]) < self.order.prunable,
        )
        return self.order.masks(blocks), steps

    def _write_scores(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {"rows": self.rows}
        for weight, folder in self.all_scores.items():
            with np.load(folder / SCORES_FILE, allow_pickle=False) as scores:
                arrays |= {f"{weight}/{name}": scores[name] for name in scores}
        np.savez(path, allow_pickle=False, **arrays)
