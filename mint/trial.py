"""One trial: baseline, activations, scores, masks, retraining. Knows neither Ray nor MLflow."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from threadpoolctl import threadpool_limits
from torch import nn

from mint.activations import collect
from mint.cache import Cache
from mint.config import EstimateConfig, TrialConfig
from mint.data import Dataset, Source, balanced_rows, load_source, smallest_class, split_source
from mint.errors import InputError
from mint.information import Bootstrap, contiguous_groups, gmi_bootstraps, summarize
from mint.masks import BlockScores, Masks, PruningOrder
from mint.networks import chosen_pairs, mlp
from mint.plots import draw_scores
from mint.search import largest_passing
from mint.seeds import stream, torch_seeded
from mint.train import Epoch, accuracy, train


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Baseline(_Record):
    """The trained network before pruning; accuracy in percent on the validation images."""

    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class Retraining(_Record):
    """One network retrained under a mask; accuracy in percent on the validation images."""

    pruned_weights: int
    counted_weights: int
    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class Probe(_Record):
    """One step of the search: a mask that was tried, and whether the accuracy held."""

    params_pruned: float
    passed: bool
    retraining: Retraining


class TrialResult(_Record):
    """The record of a finished trial; params and accuracies in percent.

    Attributes:
        accuracy: of the pruned network on the test images, read once, after the search.
        accuracy_drop: baseline_accuracy - accuracy, in percentage points.
        probes: in the order they were tried.
        score_seconds: what the scores took when they were estimated.
        bootstraps: how many the scores are the mean of.
        reliability: of the scores, the lowest of all pairs; None where there is none, as for one
            bootstrap.
        device: such as cpu, or the name of the card.
    """

    config: TrialConfig
    params_pruned: float
    pruned_weights: int
    counted_weights: int
    accuracy: float
    baseline_accuracy: float
    accuracy_drop: float
    validation_accuracy: float
    baseline_validation_accuracy: float
    probes: tuple[Probe, ...]
    score_seconds: float
    bootstraps: int
    reliability: float | None
    device: str


RESULT_FILE = "result.json"
MASKS_FILE = "masks.safetensors"
SCORES_FILE = "scores.npz"
SCORES_PLOT = "scores.png"
_WEIGHTS_FILE = "weights.safetensors"


def check_network(config: TrialConfig) -> None:
    """Refuse a trial that the network or the machine cannot serve; needs no data.

    Raises:
        InputError: more groups than filters, or more threads than cores.
    """
    cores = os.cpu_count() or 1
    if config.experiment.threads > cores:
        raise InputError(
            f"threads {config.experiment.threads} of {config.experiment.name}: this machine "
            f"allows 1 to {cores}"
        )
    network = _build(config)
    weights = dict(network.named_parameters())
    for pair in chosen_pairs(network, config.experiment.prune):
        filters = min(weights[f"{pair.child}.weight"].shape[:2])
        if config.groups > filters:
            raise InputError(
                f"--groups {config.groups}: {pair.parent} -> {pair.child} allows 1 to {filters}"
            )


def check_data(config: TrialConfig, source: Source) -> None:
    """Refuse a trial that the data cannot serve.

    Raises:
        InputError: a network of another shape, or more samples than a class has.
    """
    chosen = config.experiment
    pixels, classes = source.train_images[0].size, int(source.train_labels.max()) + 1
    widths = chosen.network.widths
    if (widths[0], widths[-1]) != (pixels, classes):
        raise InputError(
            f"network.widths of {chosen.name}: must begin with {pixels} and end with {classes}, "
            f"the pixels and classes of {chosen.data.name}, not {widths[0]} and {widths[-1]}"
        )
    images = len(source.train_labels)
    if not classes <= chosen.data.validation_size <= images - classes:
        raise InputError(
            f"data.validation_size {chosen.data.validation_size} of {chosen.name}: must be from "
            f"{classes} to {images - classes} of the {images} training images"
        )
    available = smallest_class(
        source, validation_size=config.experiment.data.validation_size, seed=config.seed
    )
    if config.samples_per_class > available:
        raise InputError(
            f"--samples-per-class {config.samples_per_class}: {config.experiment.data.name} "
            f"allows 1 to {available}, the training images of its rarest class"
        )


def run_trial(
    config: TrialConfig,
    *,
    data_dir: Path,
    cache: Cache,
    device: torch.device,
    on_probe: Callable[[Probe], None] | None = None,
) -> Path:
    """Run a trial, or find it finished, and return its folder.

    The folder holds the result, the masks, the scores and a picture of them. The baseline, the
    scores and every retraining are kept in the cache on the way, so a trial that was stopped
    carries on where it was, and trials that need the same one share it.

    Args:
        config: of the trial.
        data_dir: where the data set is, or is downloaded to.
        cache: of finished stages.
        device: to train on.
        on_probe: called after every probe.

    Raises:
        InputError: the data cannot be had, or are not those of the configuration.
        TrainingDivergedError: a training loss is no longer finite.
    """

    def make(folder: Path) -> None:
        with _reproducible(config.experiment.threads, device):
            _make_trial(folder, config, data_dir, cache, device, on_probe)

    return cache.produce("trials", config.key, make)


def load_result(folder: Path) -> TrialResult:
    """Read the result of a finished trial."""
    return TrialResult.model_validate_json((folder / RESULT_FILE).read_bytes())


def _make_trial(
    folder: Path,
    config: TrialConfig,
    data_dir: Path,
    cache: Cache,
    device: torch.device,
    on_probe: Callable[[Probe], None] | None,
) -> None:
    experiment = config.experiment
    source = load_source(experiment.data.name, data_dir)
    if source.digest != config.data_digest:
        raise InputError(f"data folder {data_dir}: its content is not what this sweep began with")
    dataset = split_source(
        source, validation_size=experiment.data.validation_size, seed=config.seed, device=device
    )
    baseline_folder = trained_baseline(config, dataset, cache, device)
    baseline = Baseline.model_validate_json((baseline_folder / RESULT_FILE).read_bytes())
    scores_folder = _estimated_scores(config, dataset, baseline_folder, cache, device)
    scores, estimation = _load_scores(scores_folder)
    order = PruningOrder(
        scores,
        upper_limit=config.upper_limit,
        generator=stream(config.seed, "order of equal scores"),
    )

    probes: list[Probe] = []

    def passes(blocks: int) -> bool:
        masks = order.masks(blocks)
        retrained = _retrained(config, dataset, masks, baseline_folder, cache, device)
        retraining = Retraining.model_validate_json((retrained / RESULT_FILE).read_bytes())
        drop = baseline.validation_accuracy - retraining.validation_accuracy
        probe = Probe(
            params_pruned=masks.params_pruned,
            # The slack is for the last bit of a difference of two percentages.
            passed=drop <= experiment.search.max_drop + 1e-9,
            retraining=retraining,
        )
        probes.append(probe)
        if on_probe:
            on_probe(probe)
        return probe.passed

    limited = config.upper_limit is not None and config.upper_limit < 1
    blocks = largest_passing(
        order.pruned.tolist(),
        order.counted,
        passes,
        probes=experiment.search.probes,
        try_last_first=limited,
    )
    masks = order.masks(blocks)
    masks.save(folder / MASKS_FILE)
    (folder / SCORES_FILE).write_bytes((scores_folder / SCORES_FILE).read_bytes())
    draw_scores(folder / SCORES_PLOT, scores, masks, title=f"{experiment.name} {config.name}")

    final_folder = (
        cache.folder("retrained", config.probe_key(masks.digest)) if blocks else baseline_folder
    )
    baseline_network = load_network(config, baseline_folder, device)
    final_network = load_network(config, final_folder, device)
    baseline_accuracy = accuracy(baseline_network, dataset.test)
    final_accuracy = accuracy(final_network, dataset.test)
    result = TrialResult(
        config=config,
        params_pruned=masks.params_pruned,
        pruned_weights=masks.pruned,
        counted_weights=masks.counted,
        accuracy=final_accuracy,
        baseline_accuracy=baseline_accuracy,
        accuracy_drop=baseline_accuracy - final_accuracy,
        validation_accuracy=accuracy(final_network, dataset.validation),
        baseline_validation_accuracy=baseline.validation_accuracy,
        probes=tuple(probes),
        **estimation,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )
    _write(folder, result)


def trained_baseline(
    config: TrialConfig, dataset: Dataset, cache: Cache, device: torch.device
) -> Path:
    """Return the folder of the trained baseline, training it if nobody has."""

    def make(folder: Path) -> None:
        start = time.perf_counter()
        with torch_seeded(config.seed, "initial weights", torch.device("cpu")):
            network = _build(config).to(device)
        history = train(network, dataset, config.experiment.training, seed=config.seed)
        safetensors.torch.save_model(network, str(folder / _WEIGHTS_FILE))
        baseline = Baseline(
            validation_accuracy=history[-1].validation_accuracy,
            training=tuple(history),
            seconds=time.perf_counter() - start,
        )
        _write(folder, baseline)

    return cache.produce("baselines", config.baseline_key, make)


def _estimated_scores(
    config: TrialConfig,
    dataset: Dataset,
    baseline_folder: Path,
    cache: Cache,
    device: torch.device,
) -> Path:
    def make(folder: Path) -> None:
        start = time.perf_counter()
        rows, activations = pair_activations(
            config, load_network(config, baseline_folder, device), dataset
        )
        arrays: dict[str, np.ndarray] = {"rows": rows}
        for weight, (child, parent) in activations.items():
            arrays |= _scores_of_weight(config, weight, child, parent, device)
        arrays["score_seconds"] = np.array(time.perf_counter() - start)
        np.savez(folder / SCORES_FILE, allow_pickle=False, **arrays)

    return cache.produce("scores", config.scores_key, make)


def pair_activations(
    config: TrialConfig, network: nn.Module, dataset: Dataset
) -> tuple[NDArray[np.int64], dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Return the training rows that scores are estimated from, and what the layers make of them.

    Returns:
        (n,) rows, the same number of every class; and for the name of every weight to be scored
        the activations (n, c) of its layer and (n, p) of the layer before.
    """
    rows = balanced_rows(
        dataset.train.labels, samples_per_class=config.samples_per_class, seed=config.seed
    )
    pairs = chosen_pairs(network, config.experiment.prune)
    outputs = [name for pair in pairs for name in (pair.parent_output, pair.child_output)]
    found = collect(network, dataset.train.inputs[torch.from_numpy(rows)], outputs)
    return rows, {
        f"{pair.child}.weight": (found[pair.child_output], found[pair.parent_output])
        for pair in pairs
    }


def _scores_of_weight(
    config: TrialConfig,
    weight: str,
    child: NDArray[np.float32],
    parent: NDArray[np.float32],
    device: torch.device,
) -> dict[str, np.ndarray]:
    bootstraps = gmi_bootstraps(
        child, parent, config.groups, config.groups, seed=config.seed, device=device.type
    )
    drawn: list[Bootstrap] = []
    for wanted in _bootstraps_to_try(config.estimate):
        drawn += islice(bootstraps, wanted - len(drawn))
        scores = summarize(drawn)
        if config.estimate.reliability and scores.reliability >= config.estimate.reliability:
            break
    return {
        f"{weight}/value": scores.value,
        f"{weight}/standard_error": scores.standard_error,
        f"{weight}/z_score": scores.z_score,
        f"{weight}/reliability": np.array(scores.reliability),
        f"{weight}/bootstraps": np.stack([bootstrap.value for bootstrap in drawn]),
        f"{weight}/child_labels": contiguous_groups(child.shape[1], config.groups),
        f"{weight}/parent_labels": contiguous_groups(parent.shape[1], config.groups),
    }


def _bootstraps_to_try(estimate: EstimateConfig) -> Iterator[int]:
    """Yield after how many bootstraps to look at the reliability: each time half as many again."""
    wanted = 4
    while estimate.reliability and wanted < estimate.bootstraps:
        yield wanted
        wanted += wanted // 2
    yield estimate.bootstraps


def _load_scores(folder: Path) -> tuple[dict[str, BlockScores], dict[str, Any]]:
    """Return the scores of every weight, and the fields of the result that tell of them."""
    with np.load(folder / SCORES_FILE, allow_pickle=False) as arrays:
        weights = [name.removesuffix("/value") for name in arrays if name.endswith("/value")]
        scores = {
            weight: BlockScores(
                arrays[f"{weight}/value"],
                arrays[f"{weight}/child_labels"],
                arrays[f"{weight}/parent_labels"],
            )
            for weight in weights
        }
        reliability = min(float(arrays[f"{weight}/reliability"]) for weight in weights)
        estimation = {
            "score_seconds": float(arrays["score_seconds"]),
            "bootstraps": max(len(arrays[f"{weight}/bootstraps"]) for weight in weights),
            "reliability": None if math.isnan(reliability) else reliability,
        }
    return scores, estimation


def _retrained(
    config: TrialConfig,
    dataset: Dataset,
    masks: Masks,
    baseline_folder: Path,
    cache: Cache,
    device: torch.device,
) -> Path:
    def make(folder: Path) -> None:
        start = time.perf_counter()
        network = load_network(config, baseline_folder, device)
        history = train(
            network, dataset, config.experiment.training, seed=config.seed, masks=masks.tensors()
        )
        safetensors.torch.save_model(network, str(folder / _WEIGHTS_FILE))
        retraining = Retraining(
            pruned_weights=masks.pruned,
            counted_weights=masks.counted,
            validation_accuracy=history[-1].validation_accuracy,
            training=tuple(history),
            seconds=time.perf_counter() - start,
        )
        _write(folder, retraining)

    return cache.produce("retrained", config.probe_key(masks.digest), make)


def _build(config: TrialConfig) -> nn.Module:
    network = config.experiment.network
    return mlp(network.widths, network.dropout)


def load_network(config: TrialConfig, folder: Path, device: torch.device) -> nn.Module:
    """Return the network with the weights of a baseline's or a retraining's folder."""
    network = _build(config)
    safetensors.torch.load_model(network, str(folder / _WEIGHTS_FILE))
    return network.to(device)


def _write(folder: Path, record: _Record) -> None:
    (folder / RESULT_FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


@contextmanager
def _reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Fix the number of threads, and on a GPU the algorithms, for sums to come out the same."""
    before = torch.get_num_threads()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
