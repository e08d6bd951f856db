"""One trial as a pipeline of stages: baseline, activations, scores, masks, retraining, result."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mint.config.keys import content_key
from mint.config.schema import TrainingConfig, TrialConfig
from mint.data.datasets import Source
from mint.data.loading import Dataset, balanced_rows, split_source
from mint.errors import InputError
from mint.models.activations import ROWS_AT_ONCE, collect_activations
from mint.models.layers import LayerPair, Traced, chosen_pairs
from mint.models.own_code import source_digest
from mint.models.registry import build_network
from mint.models.tracing import trace
from mint.pruning.compensation import compensate
from mint.pruning.criteria import CriterionInputs, score
from mint.pruning.gradients import ROWS_AT_ONCE_BACKWARD, loss_gradients
from mint.pruning.grouping import PairGroups, group_filters, load_groups, save_groups
from mint.pruning.layer_table import LayerCount, count_layers
from mint.pruning.masks import Masks
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores, load_scores, save_scores
from mint.rng import stream, torch_seeded
from mint.store.locks import locked
from mint.store.manifest import Manifest
from mint.store.stage_cache import StageCache
from mint.training.determinism import reproducible
from mint.training.loop import accuracy, train
from mint.trial.callbacks import TrialCallbacks, work_after
from mint.trial.ending import finish
from mint.trial.preflight import counted_weights, estimator_bytes, load_initial
from mint.trial.provenance import Provenance
from mint.trial.result import (
    ACTIVATIONS_FILE,
    GROUPS_FILE,
    MASKS_FILE,
    SCORES_FILE,
    WEIGHTS_FILE,
    Baseline,
    LayerScoring,
    Retraining,
)

_Read = TypeVar("_Read")


def run_trial(pipeline: "TrialPipeline") -> Path:
    """Run a trial, or find it finished, and return its folder.

    The folder holds the result, the masks, the weights and the scores. The cache keeps the
    baseline, the scores of every layer, the retrained network and the results of all search steps,
    so trials share the stages that they have in common. The networks of a search's other steps,
    from which a trial that was stopped resumes, are removed when it ends.

    Raises:
        InputError: the weights to start from do not fit the network.
        TrainingDivergedError: a training loss is no longer finite.
    """

    def make(folder: Path) -> None:
        with reproducible(pipeline.experiment.threads, pipeline.device):
            finish(pipeline, folder)

    folder = pipeline.cache.produce("trials", pipeline.config.key, make)
    for key in pipeline.unused_networks:
        pipeline.cache.discard("retrained", key)
    return folder


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
        if source_digest(config.experiment.network.name) != config.network_digest:
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
        self.begun = time.perf_counter()
        self.artefacts: dict[str, str] = {}  # as in TrialResult
        self.unused_networks: set[str] = set()  # keys of the steps that the trial does not end with
        self._scored: dict[str, BlockScores] = {}  # by this process
        self._init = init
        self._at_once = at_once

    def locked(self) -> AbstractContextManager[None]:
        """Let no other process run the trial, or remove stages; InputError if one does."""
        name = f"{self.experiment.name}-{self.config.key}"
        return locked(self.cache, name, self.provenance.command)

    @cached_property
    def dataset(self) -> Dataset:
        """Training, validation and test split."""
        data = self.experiment.data
        return split_source(self.source, data, seed=self.config.seed, device=self.device)

    @cached_property
    def baseline(self) -> Path:
        """Folder of the trained network before pruning."""
        folder = self._trained(
            "baselines",
            self.config.baseline_key,
            self._untrained,
            self.experiment.training,
            Baseline,
        )
        return self.use(folder)

    def _key(self, key: str, *further: str) -> str:
        """Return the key of a stage of this very baseline.

        Machines of other hardware may have trained other weights under the baseline's key: nothing
        that was made from those is used.
        """
        return content_key(key, Manifest.load(self.baseline).digest(WEIGHTS_FILE), *further)

    def use(self, folder: Path) -> Path:
        """Note whose stage the trial is made from."""
        self.artefacts[f"{folder.parent.name}/{folder.name}"] = Manifest.load(folder).maker
        return folder

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
    def example(self) -> Tensor:
        """(1, C, h, w) an input of zeros."""
        return torch.zeros(1, *self.dataset.image_shape, device=self.device)

    @cached_property
    def traced(self) -> Traced:
        """Layers and pairs of the trained network."""
        return trace(self.network(self.baseline), self.example)

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

        key = self._key(self.config.activations_key)
        folder = self.use(self.cache.produce("activations", key, make))
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

    @cached_property
    def groups(self) -> dict[str, PairGroups]:
        """The groups of the pairs' filters, by the names of the prunable weights."""
        config = self.config
        pairs = self.traced, self.pairs
        made = partial(group_filters, config.grouping, *pairs, config.groups_of, config.seed)
        if config.grouping == "contiguous":  # takes no time
            return made()

        def make(folder: Path) -> None:
            save_groups(folder / GROUPS_FILE, made())

        folder = self.cache.produce("groups", self._key(config.grouping_key), make)
        return load_groups(self.use(folder) / GROUPS_FILE)

    def _score(self, pair: LayerPair) -> BlockScores:
        inputs = CriterionInputs(
            traced=self.traced,
            groups=lambda pair: self.groups[pair.weight],
            estimate=self.config.estimate,
            device=self.config.estimator,
            memory_limit=estimator_bytes(self.config, self._at_once),
            seed=self.config.seed,
            activations=lambda: self.activations,
            magnitudes=lambda: self.magnitudes,
            gradients=lambda: self.gradients,
            on_bootstrap=lambda drawn, most: self.callbacks.on_bootstrap(
                pair, drawn, most, work_after(pair, self.pairs, self.config.groups_of)
            ),
        )
        return score(self.config.criterion, pair, inputs)

    def scores(self, pair: LayerPair) -> Path:
        """Return the folder of a pair's scores; those of single weights, as large, are not kept."""

        def make(folder: Path) -> None:
            start = time.perf_counter()
            scores = self._score(pair)
            self._scored[pair.weight] = scores
            if not self.config.scores_single_weights:
                save_scores(folder / SCORES_FILE, {pair.weight: scores})
            LayerScoring(
                parent=pair.parent,
                child=pair.child,
                blocks=scores.value.size,
                bootstraps=0 if scores.bootstraps is None else len(scores.bootstraps),
                reliability=None if math.isnan(scores.reliability) else scores.reliability,
                seconds=time.perf_counter() - start,
            ).save(folder)

        key = self._key(self.config.scores_key(pair.child))
        folder = self.use(self.cache.produce("scores", key, make))
        self.callbacks.on_layer_scores(LayerScoring.load(folder))
        return folder

    @cached_property
    def all_scores(self) -> dict[str, Path]:
        """Folders of the scores, by the names of the prunable weights."""
        return {pair.weight: self.scores(pair) for pair in self.pairs}

    @cached_property
    def block_scores(self) -> dict[str, BlockScores]:
        """The scores, by the names of the prunable weights."""
        folders, kept = self.all_scores, self._scored
        if self.config.scores_single_weights:
            return {pair.weight: kept.get(pair.weight) or self._score(pair) for pair in self.pairs}
        return {
            weight: scores
            for folder in folders.values()
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
        """Return whether a stage has finished: baselines, and after it scores, and masks."""
        keys = {
            "baselines": lambda: [self.config.baseline_key],
            "scores": lambda: [self._key(self.config.scores_key(p.child)) for p in self.pairs],
            "masks": lambda: [self._masks_key],
        }
        return all(self.cache.find(stage, key) for key in keys[stage]())

    @cached_property
    def _masks_key(self) -> str:
        files = [] if self.config.scores_single_weights else self.all_scores.values()
        return self._key(
            self.config.key, *(Manifest.load(folder).digest(SCORES_FILE) for folder in files)
        )

    @cached_property
    def pruned(self) -> Path:
        """Folder of the masks that prune the given fraction."""
        fraction = self.config.search.fraction
        assert fraction is not None

        def make(folder: Path) -> None:
            blocks = self.ranking.blocks_within(fraction, self.counted)
            self.ranking.masks(blocks).save(folder / MASKS_FILE)

        return self.use(self.cache.produce("masks", self._masks_key, make))

    @cached_property
    def masks(self) -> Masks:
        """The masks that prune the given fraction."""
        masks = Masks.load(self.pruned / MASKS_FILE)
        masks.check_fit(self.traced.network)
        return masks

    def layer_counts(self, masks: Masks) -> tuple[LayerCount, ...]:
        """Count the weights of every layer, and those that masks keep."""
        return count_layers(self.traced, self.pairs, masks)

    def _retrained_key(self, masks: Masks) -> str:
        return self._key(self.config.retrained_key(masks.digest if masks.pruned else None))

    def before_retraining(self, masks: Masks) -> nn.Module:
        """Return the baseline, compensated for the masks if the trial does that."""
        network = self.network(self.baseline)
        if self.config.compensate == "yes" and masks.pruned:
            compensate(trace(network, self.example), masks, self.dataset.train, self.config.seed)
        return network

    def retraining(self, masks: Masks) -> Retraining:
        """Return the result of retraining under masks; it stays when the network is removed."""

        def make(folder: Path) -> None:
            self.unused_networks.add(self._retrained_key(masks))
            self.from_retrained(masks, Retraining.load).save(folder)

        folder = self.cache.produce("steps", self._retrained_key(masks), make)
        return Retraining.load(self.use(folder))

    def retrained(self, masks: Masks) -> Path:
        """Return the folder of the network retrained under masks."""
        return self._trained(
            "retrained",
            self._retrained_key(masks),
            lambda: self.before_retraining(masks),
            self.config.retraining_settings,
            lambda **trained: Retraining(
                pruned_weights=masks.pruned, counted_weights=self.counted, **trained
            ),
            masks,
        )

    def from_retrained(self, masks: Masks, read: Callable[[Path], _Read]) -> _Read:
        """Return what read finds in the folder of the network retrained under masks.

        A trial that tried the same masks and ends with others may remove the network at any time:
        it is then trained again.
        """
        while True:
            folder = self.retrained(masks)
            try:
                return read(self.use(folder))
            except FileNotFoundError:
                if folder.exists():
                    raise

    @cached_property
    def dense(self) -> Path:
        """Folder of the dense control: the unpruned network, retrained as the pruned one is."""
        return self.use(self.retrained(self.ranking.masks(0)))

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
        kind = "baseline" if masks is None else "retraining" if masks.pruned else "dense control"

        def make(folder: Path) -> None:
            start = time.perf_counter()
            self.cache.fetch_checkpoint(checkpoint)
            network = start_from()
            history = train(
                network,
                self.dataset,
                settings,
                seed=self.config.seed,
                masks=None if masks is None else masks.tensors(),
                checkpoint=checkpoint,
                on_checkpoint=self.cache.keep_checkpoint,
                on_epoch=lambda epoch: self.callbacks.on_epoch(kind, epoch, settings.epochs),
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
