"""The commands of one trial: run, its stages one by one, its layers and its export."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import LimitedChoice

from mint.cli.options import (
    MY_RESULTS,
    RUNNING,
    ExperimentName,
    ExperimentOptions,
    Flag,
    Folder,
    Output,
    TrackingUri,
    TrialOptions,
    Words,
    read_chosen_experiment,
    show_runs,
    store_uri,
)
from mint.config.locations import cache_folder, check_writable, data_folder
from mint.errors import InputError

# Torch and MLflow take seconds to import: a command imports them when it runs.
if TYPE_CHECKING:
    from mint.config.loading import ExperimentFile
    from mint.trial.api import FinishedTrial
    from mint.trial.pipeline import TrialPipeline
    from mint.trial.setup import PlannedTrial

_AXES = (
    *("criterion", "groups", "grouping", "samples_per_class", "upper_limit"),
    *("bootstraps", "fraction", "retraining", "compensate", "seed"),
)
_NETWORK = Group("Network", validator=LimitedChoice(1, 1), sort_key=0)
_COMMANDS = {"baselines": "train", "scores": "estimate", "masks": "prune"}
_NO_CHANGES = ExperimentOptions()
_TRIAL_HELP = "Folder of a finished trial, as mint run prints it."


def run(
    options: TrialOptions,
    *,
    output: Output = MY_RESULTS,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[Flag, Parameter(group=RUNNING)] = False,
    words: Words,
) -> None:
    """Run one trial: train, estimate, prune, retrain.

    The trial is added to the tracking store and to the report. Finished stages are not repeated;
    a trial that was stopped resumes.

    Example: mint run --experiment digits_mlp --fraction 0.9 --set retraining.epochs=5

    Args:
        dry_run: Print the time and the memory that the trial takes, and run nothing.
    """
    uri = store_uri(tracking_uri)
    file = _read_experiment(options, output)
    planned = _plan(options, words, file)
    pipeline, layers_known = planned.pipeline, planned.layers
    if layers_known and layers_known.not_exported:
        print(f"mint export cannot write this network: {layers_known.not_exported}")
    if not dry_run:
        _finish(pipeline, uri, output, file)
    elif layers_known:
        from mint.trial.forecast import forecast

        lines = forecast([pipeline.config], pipeline.source.facts, layers_known, pipeline.cache, 1)
        print("\n".join(lines))
    else:
        print("finished already")


def train(options: TrialOptions, *, words: Words) -> None:
    """Train the baseline, the first stage of a trial.

    Example: mint train --experiment digits_mlp
    """
    pipeline = _plan(options, words).pipeline

    from mint.training.determinism import reproducible
    from mint.trial.result import Baseline

    with pipeline.locked(), reproducible(pipeline.experiment.threads, pipeline.device):
        folder = pipeline.baseline
    print(f"baseline: validation accuracy {Baseline.load(folder).validation_accuracy:.2f}%")
    print(f"weights:  {folder}")


def estimate(options: TrialOptions, *, words: Words) -> None:
    """Score the weight blocks of every layer, the stage after mint train.

    Example: mint estimate --experiment digits_mlp --groups 10
    """
    pipeline = _plan(options, words).pipeline

    from mint.training.determinism import reproducible
    from mint.trial.forecast import format_duration

    start = time.monotonic()
    with pipeline.locked(), reproducible(pipeline.experiment.threads, pipeline.device):
        _require(pipeline, "baselines")
        folders = pipeline.all_scores
    print(f"scores of {len(folders)} layers, {format_duration(time.monotonic() - start)}")
    print(f"scores: {next(iter(folders.values())).parent}")


def prune(options: TrialOptions, *, words: Words) -> None:
    """Make the masks of a pruned fraction, the stage after mint estimate.

    The blocks of all layers are ranked together by their scores.

    Example: mint prune --experiment digits_mlp --groups 10 --fraction 0.9
    """
    pipeline = _plan(options, words).pipeline
    if pipeline.config.search.fraction is None:
        problem = f"must be given: {pipeline.experiment.name} searches for it, as mint run does"
        raise InputError(problem, parameter="fraction")

    from mint.reporting.layer_text import layer_lines
    from mint.training.determinism import reproducible

    with pipeline.locked(), reproducible(pipeline.experiment.threads, pipeline.device):
        _require(pipeline, "baselines", "scores")
        folder, masks = pipeline.pruned, pipeline.masks
        print("\n".join(layer_lines(pipeline.layer_counts(masks))))
    percent = 100 * masks.pruned / pipeline.counted
    print(f"pruned: {masks.pruned} of {pipeline.counted} counted weights, {percent:.2f}%")
    print(f"masks:  {folder}")


def retrain(
    options: TrialOptions,
    *,
    output: Output = MY_RESULTS,
    tracking_uri: TrackingUri = None,
    words: Words,
) -> None:
    """Retrain under the masks and finish the trial, the stage after mint prune.

    The trial is added to the tracking store and to the report.

    Example: mint retrain --experiment digits_mlp --groups 10 --fraction 0.9
    """
    file = _read_experiment(options, output)
    pipeline = _plan(options, words, file).pipeline

    from mint.store.locks import in_use

    given = pipeline.config.search.fraction is not None
    with in_use(pipeline.cache):
        _require(pipeline, "baselines", "scores", *(["masks"] if given else []))
        _finish(pipeline, store_uri(tracking_uri), output, file)


def layers(
    options: ExperimentOptions = _NO_CHANGES,
    *,
    experiment: Annotated[ExperimentName | None, Parameter(group=_NETWORK)] = None,
    trial: Annotated[Folder | None, Parameter(group=_NETWORK, help=_TRIAL_HELP)] = None,
) -> None:
    """Print the layers of an experiment's network, or what a trial kept of them.

    A row is a layer with the one before it. Pairs that may be pruned are starred; the other rows
    give the reason why not.

    Example: mint layers --experiment resnet56_cifar10
    """
    from mint.reporting.layer_text import layer_lines

    if trial:
        print("\n".join(layer_lines(_finished(trial).result.layers)))
        return
    chosen = read_chosen_experiment(str(experiment), options).experiment

    from mint.data.datasets import load_source
    from mint.models.layers import chosen_pairs
    from mint.pruning.layer_table import count_layers
    from mint.trial.preflight import image_shape, trace_network

    shape = image_shape(chosen.data, None)
    if shape is None:
        cache, data_dir = cache_folder(options.cache_dir), data_folder(options.data_dir)
        shape = image_shape(chosen.data, load_source(chosen.data, data_dir, cache=cache).facts)
    assert shape
    traced = trace_network(chosen, shape)
    print("\n".join(layer_lines(count_layers(traced, chosen_pairs(traced, chosen)))))
    if traced.not_exported:
        print(f"mint export cannot write this network: {traced.not_exported}")


def export(
    *,
    trial: Annotated[Folder, Parameter(help=_TRIAL_HELP)],
    output: Annotated[Folder, Parameter(help="New folder to write.")],
    model: Annotated[str | None, Parameter(metavar="MODULE:FUNCTION")] = None,
    onnx: Flag = False,
) -> None:
    """Write the pruned network as a smaller plain PyTorch module.

    Filters that no kept connection reads or feeds are removed. The folder holds PyTorch code that
    needs no mint, the weights, and size and latency beside those of the dense network. The code
    prepares images as the trial did.

    Example: mint export --trial .mint/trials/KEY --output smaller

    Args:
        model: The trial's network, if it is not mint's own. The folder may come from somebody
            else: mint runs only code that you name (default: none).
        onnx: Write network.onnx as well.
    """
    finished = _finished(trial, model)
    check_writable("output", output)

    import torch

    from mint.pruning.export import export as write_export

    example = torch.zeros(1, *finished.result.image_shape)
    preparation = finished.result.preparation
    exported = write_export(
        finished.network, finished.masks, example, output, onnx=onnx, preparation=preparation
    )
    left, dense = exported.exported_weights, exported.dense_weights
    kept = f"the masks alone keep {exported.kept_weights}"
    print(f"weights:       {left} of {dense}, {100 * left / dense:.2f}%; {kept}")
    left, dense = exported.exported_multiply_adds, exported.dense_multiply_adds
    print(f"multiply-adds: {left} of {dense}, {100 * left / dense:.2f}%")
    times = f"{exported.exported_ms:.2f} ms per image, dense {exported.dense_ms:.2f} ms"
    print(f"latency:       {times}")
    print(f"outputs:       within {exported.max_difference:.1g} of the masked network's")
    print(f"network:       build() in {output / 'network.py'}")
    unknown = "not recorded, for an older version of mint ran this trial"
    print(f"inputs:        {'prepare() in the same file' if preparation else unknown}")


def _read_experiment(options: TrialOptions, output: Path | None = None) -> "ExperimentFile":
    """Return the experiment; with an output, check first that results can be written there."""
    file = read_chosen_experiment(options.experiment, options, fraction=options.fraction)
    if output:
        from mint.reporting.folder import check_results

        check_results(output, file.references)
    return file


def _plan(
    options: TrialOptions, words: Words, file: "ExperimentFile | None" = None
) -> "PlannedTrial":
    """Return the trial that the options describe, checked before any stage runs."""
    file = file or _read_experiment(options)
    print(f"checking {file.experiment.name}", flush=True)  # importing torch takes seconds

    import torch

    from mint.orchestration.display import print_progress
    from mint.trial.setup import TrialPaths, plan_trial

    planned = plan_trial(
        file,
        {axis: getattr(options, axis) for axis in _AXES},
        TrialPaths(options.init, options.cache_dir, options.data_dir),
        options.device,
        words,
        print_progress(),
    )
    experiment, on_gpu = file.experiment, planned.pipeline.device.type == "cuda"
    config, where = planned.pipeline.config, "a GPU" if on_gpu else "the CPU"
    source = f", source {config.network_digest[:8]}," if config.network_digest else ""
    print(f"{experiment.name} {config.name}{source} on {where}", flush=True)
    precisions = (
        experiment.training.precision,
        planned.pipeline.config.retraining_settings.precision,
    )
    emulated = not (on_gpu or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if emulated and "bfloat16" in precisions:
        print("note: this CPU emulates bfloat16 slowly; precision: float32 is faster here")
    return planned


def _finish(pipeline: "TrialPipeline", uri: str, output: Path, file: "ExperimentFile") -> None:
    from mint.orchestration.single_trial import run_and_report
    from mint.tracking.mlflow_store import MlflowStore

    show_runs(uri, run_and_report(pipeline, MlflowStore(uri), output, file.references))


def _require(pipeline: "TrialPipeline", *stages: str) -> None:
    for stage in stages:
        if not pipeline.is_done(stage):
            problem = f"this trial has no result of mint {_COMMANDS[stage]} yet"
            raise InputError(f"{problem}; run it first, with the same options")


def _finished(folder: Path, model: str | None = None) -> "FinishedTrial":
    from mint.trial.api import FinishedTrial

    try:
        return FinishedTrial(folder, model=model)
    except InputError as error:
        raise InputError(f"--trial {error}") from None
