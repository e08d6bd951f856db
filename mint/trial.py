"""One trial: baseline, activations, scores, masks, retraining. Knows neither Ray nor MLflow."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from mint.activations import collect
from mint.cache import Cache
from mint.config import DataConfig, Experiment, TrainingConfig, TrialConfig
from mint.costs import costs
from mint.data import Dataset, balanced_rows, smallest_class, split_source
from mint.errors import InputError
from mint.estimate import SCORES_FILE, estimate_layer, load_scores
from mint.layers import count_layers
from mint.masks import BlockScores, Masks, PruningOrder
from mint.networks import (
    PUBLISHED_NAMES,
    LayerPair,
    Traced,
    build_network,
    chosen_pairs,
    load_weights,
    source_digest,
    trace,
)
from mint.plots import draw_scores
from mint.results import Baseline, LayerCount, LayerScoring, Probe, Retraining, TrialResult
from mint.search import largest_passing
from mint.seeds import stream, torch_seeded
from mint.sources import KNOWN_SHAPES, Source
from mint.train import Epoch, accuracy, train

_ROWS_AT_ONCE = 1024
MASKS_FILE = "masks.safetensors"
SCORES_PLOT = "scores.png"
WEIGHTS_FILE = "weights.safetensors"


def _unheard(*_: object) -> None:
    """Stands in where nobody listens."""


@dataclass(frozen=True)
class Listener:
    """Who is told of a trial's progress.

    Attributes:
        epoch: after every epoch, with the stage (baseline or retraining), the epoch, and of how
            many.
        layer: after the scores of every layer, or when they were found finished.
        probe: after every mask that was tried.
    """

    epoch: Callable[[str, Epoch, int], None] = _unheard
    layer: Callable[[LayerScoring], None] = _unheard
    probe: Callable[[Probe], None] = _unheard


def image_shape(data: DataConfig, source: Source | None) -> tuple[int, int, int] | None:
    """Return (channels, height, width) as the network sees images; None where only data can tell.

    Args:
        data: how images are prepared.
        source: the data set, where it is at hand.
    """
    known = source.train.shape[1:] if source else KNOWN_SHAPES.get(data.name)
    side = data.crop or data.size
    if known is None and (side is None or data.channels is None):
        return None
    channels, height, width = known or (data.channels or 0, 0, 0)
    return (data.channels or channels, side or height, side or width)


def untrained(experiment: Experiment, shape: tuple[int, int, int]) -> Traced:
    """Return the layers and pairs of an experiment's network for images of a shape."""
    return trace(build_network(experiment.network), torch.zeros(1, *shape))


def check_trials(
    trials: Sequence[TrialConfig], source: Source | None, init: Path | None = None
) -> None:
    """Refuse trials of one experiment that the machine, the network or the data cannot serve.

    Args:
        trials: of the same experiment.
        source: the data set; None where it is not at hand yet, to check what needs none.
        init: file of weights to start from.

    Raises:
        InputError: more threads than cores, arguments, images or weights that the network does
            not take, pairs that it has not, more groups than filters, more images than there are.
    """
    experiment = trials[0].experiment
    cores = os.cpu_count() or 1
    if experiment.threads > cores:
        raise InputError(
            f"threads {experiment.threads} of {experiment.name}: this machine allows 1 to {cores}"
        )
    if init:
        _load_initial(build_network(experiment.network), experiment, init)
    shape = image_shape(experiment.data, source)
    if shape:
        _check_network(trials, untrained(experiment, shape))
    if source is None:
        return
    images, classes = len(source.train_labels), source.classes
    if not classes <= experiment.data.validation_size <= images - classes:
        raise InputError(
            f"data.validation_size {experiment.data.validation_size} of {experiment.name}: must "
            f"be from {classes} to {images - classes} of the {images} training images"
        )
    assert shape is not None
    with torch.inference_mode():
        outputs = build_network(experiment.network).eval()(torch.zeros(1, *shape))
    found = tuple(outputs.shape)[1:] if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (classes,):
        raise InputError(
            f"network {experiment.network.name} of {experiment.name}: puts out {found} for an "
            f"image, where the {classes} classes of {experiment.data.name} need ({classes},)"
        )
    for config in trials:
        available = smallest_class(
            source, validation_size=experiment.data.validation_size, seed=config.seed
        )
        if config.samples_per_class > available:
            raise InputError(
                f"--samples-per-class {config.samples_per_class}: {experiment.data.name} "
                f"allows 1 to {available}, the training images of its rarest class"
            )


def _load_initial(network: nn.Module, experiment: Experiment, path: Path) -> None:
    """Give an experiment's network the weights of a file, of published ones by their names."""
    load_weights(network, path, PUBLISHED_NAMES.get(experiment.network.name))


def _check_network(trials: Sequence[TrialConfig], traced: Traced) -> None:
    experiment = trials[0].experiment
    pairs = chosen_pairs(traced, experiment)
    children = [pair.child for pair in pairs]
    for name in experiment.limits:
        if name not in children:
            raise InputError(
                f"limits: {name} is no layer that {experiment.name} prunes; those are "
                f"{', '.join(children)}"
            )
    widest = max(pairs, key=lambda pair: min(pair.parent_filters, pair.child_filters))
    most = min(widest.parent_filters, widest.child_filters)
    weights = {layer.name: layer.weights for layer in traced.layers}
    prunable = sum(weights[child] for child in children)
    counted = _counted_weights(traced, pairs, experiment)
    fraction = experiment.search.fraction
    for config in trials:
        limits = {child: config.limit_of(child) for child in children}
        most_pruned = sum(
            (1 if limit is None else limit) * weights[child] for child, limit in limits.items()
        )
        if fraction is not None and fraction * counted > most_pruned:
            raise InputError(
                f"--fraction {fraction:g}: {experiment.name} allows at most "
                f"{most_pruned / counted:.4f}: of {counted} counted weights {prunable} are "
                f"prunable, and the limits leave {most_pruned:.0f}"
            )
        if config.groups > most:
            raise InputError(
                f"--groups {config.groups}: {widest.parent} -> {widest.child} of "
                f"{experiment.name} allows 1 to {most}"
            )


def _counted_weights(traced: Traced, pairs: Sequence[LayerPair], experiment: Experiment) -> int:
    pruned = {pair.child for pair in pairs}
    everything = experiment.count == "all"
    return sum(layer.weights for layer in traced.layers if everything or layer.name in pruned)


def run_trial(stages: "Stages") -> Path:
    """Run a trial, or find it finished, and return its folder.

    The folder holds the result, the masks, the weights, the scores and a picture of them. The
    baseline, the scores of every layer and every retraining are kept in the cache on the way, so
    a trial that was stopped carries on where it was, and trials that need the same one share it.

    Raises:
        InputError: the weights to start from do not fit the network.
        TrainingDivergedError: a training loss is no longer finite.
    """

    def make(folder: Path) -> None:
        with reproducible(stages.experiment.threads, stages.device):
            stages.finish(folder)

    return stages.cache.produce("trials", stages.config.key, make)


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


class Stages:
    """The stages of one trial; each is made when it is first asked for, and kept in the cache."""

    def __init__(
        self,
        config: TrialConfig,
        source: Source,
        *,
        cache: Cache,
        device: torch.device,
        init: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Take what the stages need; they are to be asked for inside `reproducible`.

        Args:
            config: of the trial.
            source: the data set.
            cache: of finished stages.
            device: to train and estimate on.
            init: file of the weights that config.init tells of.
            listener: told of the progress.

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
        self.device = device
        self._init = init
        self._listener = listener or Listener()

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
                    raise InputError(f"--init: the file {self.config.init.file} is needed")
                _load_initial(network, self.experiment, self._init)
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
        nodes = {pair.parent_node: pair.parent_filters for pair in self.pairs}
        nodes |= {pair.child_node: pair.child_filters for pair in self.pairs}
        batches = self.dataset.train.batches(_ROWS_AT_ONCE, self.rows)
        return collect(self.traced, (inputs for inputs, _ in batches), nodes)

    def scores(self, pair: LayerPair) -> Path:
        """Return the folder of the scores of a pair's blocks."""

        def make(folder: Path) -> None:
            estimate_layer(
                folder,
                pair,
                self.activations[pair.child_node],
                self.activations[pair.parent_node],
                groups=self.config.groups,
                estimate=self.config.estimate,
                seed=self.config.seed,
                device=self.device,
            )

        folder = self.cache.produce("scores", self.config.scores_key(pair.child), make)
        self._listener.layer(LayerScoring.load(folder))
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
            generator=stream(self.config.seed, "order of equal scores"),
        )

    @cached_property
    def counted(self) -> int:
        """The number of weights that fractions and percents are of."""
        return _counted_weights(self.traced, self.pairs, self.experiment)

    @property
    def has_baseline(self) -> bool:
        return self.cache.folder("baselines", self.config.baseline_key).exists()

    @property
    def has_scores(self) -> bool:
        """Whether all scores are there; needs the baseline."""
        keys = [self.config.scores_key(pair.child) for pair in self.pairs]
        return all(self.cache.folder("scores", key).exists() for key in keys)

    @property
    def has_masks(self) -> bool:
        return self.cache.folder("masks", self.config.key).exists()

    @cached_property
    def pruned(self) -> Path:
        """The folder of the masks of the fraction that the experiment gives."""
        fraction = self.experiment.search.fraction
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
                on_epoch=lambda epoch: self._listener.epoch(
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
        checkpoint.unlink(missing_ok=True)
        return folder

    def finish(self, folder: Path) -> None:
        """Prune and retrain, and write the trial's result, masks and scores into its folder."""
        baseline = Baseline.load(self.baseline)
        masks, probes = self._searched(baseline)
        masks.save(folder / MASKS_FILE)
        self._write_scores(folder / SCORES_FILE)
        title = f"{self.experiment.name} {self.config.name}"
        draw_scores(folder / SCORES_PLOT, self.block_scores, masks, title=title)

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
            probes=tuple(probes),
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
        ).save(folder)

    def _searched(self, baseline: Baseline) -> tuple[Masks, list[Probe]]:
        """Return the masks of the fraction that was given, or the best that a search finds."""
        search = self.experiment.search
        probes: list[Probe] = []

        def probe(masks: Masks) -> bool:
            retraining = Retraining.load(self.retrained(masks))
            drop = baseline.validation_accuracy - retraining.validation_accuracy
            # The slack is for the last bit of a difference of two percentages.
            passed = None if search.max_drop is None else drop <= search.max_drop + 1e-9
            probes.append(
                Probe(
                    params_pruned=100 * masks.pruned / self.counted,
                    passed=passed,
                    retraining=retraining,
                )
            )
            self._listener.probe(probes[-1])
            return bool(passed)

        if search.fraction is not None:
            if self.masks.pruned:
                probe(self.masks)
            return self.masks, probes
        assert search.probes is not None
        blocks = largest_passing(
            self.order.pruned.tolist(),
            self.order.prunable,
            lambda step: probe(self.order.masks(step)),
            probes=search.probes,
            try_last_first=int(self.order.pruned[-1]) < self.order.prunable,
        )
        return self.order.masks(blocks), probes

    def _write_scores(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {"rows": self.rows}
        for weight, folder in self.all_scores.items():
            with np.load(folder / SCORES_FILE, allow_pickle=False) as scores:
                arrays |= {f"{weight}/{name}": scores[name] for name in scores}
        np.savez(path, allow_pickle=False, **arrays)


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Fix the number of threads, and on a GPU the algorithms, for sums to come out the same."""
    before = torch.get_num_threads()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    numba.get_num_threads()  # starts its threads, which would set torch's number once more later
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
