"""The commands of one trial: run, its stages one by one, its layers and its export."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import LimitedChoice

from mint.cli.options import (
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
from mint.config.locations import check_writable, data_folder
from mint.errors import InputError, WorkFailedError

# Torch and MLflow take seconds to import: a command imports them when it runs.
if TYPE_CHECKING:
    from mint.config.loading import ExperimentFile
    from mint.config.schema import Experiment
    from mint.trial.api import FinishedTrial
    from mint.trial.pipeline import TrialPipeline
    from mint.trial.setup import PlannedTrial

_AXES = (
    *("criterion", "groups", "samples_per_class", "upper_limit"),
    *("bootstraps", "fraction", "seed"),
)
_NETWORK = Group("Network", validator=LimitedChoice(1, 1), sort_key=0)
_NO_CHANGES = ExperimentOptions()
_TRIAL_HELP = "Folder of a finished trial, as mint run prints it."


def run(
    options: TrialOptions,
    *,
    output: Output = Path("results"),
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
    if dry_run:
        _show_forecast(planned)
    else:
        _finish(planned.pipeline, uri, output, file)


def train(options: TrialOptions, *, words: Words) -> None:
    """Train the baseline, the first stage of a trial.

    Example: mint train --experiment digits_mlp
    """
    pipeline = _plan(options, words).pipeline

    from mint.training.determinism import reproducible
    from mint.trial.result import Baseline

    with reproducible(pipeline.experiment.threads, pipeline.device):
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

    _require(pipeline, "baselines", "train")
    start = time.monotonic()
    with reproducible(pipeline.experiment.threads, pipeline.device):
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
        raise InputError(
            f"must be given: {pipeline.experiment.name} searches for the fraction, which mint run "
            "does",
            parameter="fraction",
        )

    from mint.reporting.layer_text import layer_lines

    _require(pipeline, "baselines", "train")
    _require(pipeline, "scores", "estimate")
    folder, masks = pipeline.pruned, pipeline.masks
    print("\n".join(layer_lines(pipeline.layer_counts(masks))))
    percent = 100 * masks.pruned / pipeline.counted
    print(f"pruned: {masks.pruned} of {pipeline.counted} counted weights, {percent:.2f}%")
    print(f"masks:  {folder}")


def retrain(
    options: TrialOptions,
    *,
    output: Output = Path("results"),
    tracking_uri: TrackingUri = None,
    words: Words,
) -> None:
    """Retrain under the masks and finish the trial, the stage after mint prune.

    The trial is added to the tracking store and to the report.

    Example: mint retrain --experiment digits_mlp --groups 10 --fraction 0.9
    """
    file = _read_experiment(options, output)
    pipeline = _plan(options, words, file).pipeline
    _require(pipeline, "baselines", "train")
    _require(pipeline, "scores", "estimate")
    if pipeline.config.search.fraction is not None:
        _require(pipeline, "masks", "prune")
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

    import torch

    from mint.models import build_network, chosen_pairs, trace
    from mint.pruning.layer_table import count_layers

    traced = trace(build_network(chosen.network), torch.zeros(1, *_image_shape(chosen, options)))
    print("\n".join(layer_lines(count_layers(traced, chosen_pairs(traced, chosen)))))


def export(
    *,
    trial: Annotated[Folder, Parameter(help=_TRIAL_HELP)],
    output: Annotated[Folder, Parameter(help="New folder to write.")],
    onnx: Flag = False,
) -> None:
    """Write the pruned network as a smaller plain PyTorch module.

    Filters that no kept connection reads or feeds are removed. The folder holds PyTorch code that
    needs no mint, the weights, and size and latency beside those of the dense network.

    Example: mint export --trial .mint/trials/KEY --output smaller

    Args:
        onnx: Write network.onnx as well.
    """
    finished = _finished(trial)
    check_writable("output", output)

    import torch

    from mint.pruning.export import export as write_export

    example = torch.zeros(1, *finished.result.image_shape)
    exported = write_export(finished.network, finished.masks, example, output, onnx=onnx)
    dense, left = exported.dense_weights, exported.exported_weights
    adds, left_adds = exported.dense_multiply_adds, exported.exported_multiply_adds
    kept, latency = exported.kept_weights, exported.exported_ms
    print(f"weights:       {left} of {dense}, {100 * left / dense:.2f}% ({kept} are not zero)")
    print(f"multiply-adds: {left_adds} of {adds}, {100 * left_adds / adds:.2f}%")
    print(f"latency:       {latency:.2f} ms per image, dense {exported.dense_ms:.2f} ms")
    print(f"outputs:       within {exported.max_difference:.1g} of the masked network's")
    print(f"network:       {output / 'network.py'}")


def _read_experiment(options: TrialOptions, output: Path | None = None) -> "ExperimentFile":
    """Return the experiment; with an output, check first that results can be written there."""
    given = {"fraction": options.fraction}
    file = read_chosen_experiment(options.experiment, options, given)
    if output:
        from mint.reporting.folder import check_results

        check_results(output, file.references)
    return file


def _plan(
    options: TrialOptions, words: Words, file: "ExperimentFile | None" = None
) -> "PlannedTrial":
    """Return the trial that the options describe, checked before any stage runs."""
    file = file or _read_experiment(options)

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
    pipeline, experiment = planned.pipeline, file.experiment
    on_gpu = pipeline.device.type == "cuda"
    where = "a GPU" if on_gpu else "the CPU"
    print(f"{experiment.name} {pipeline.config.name} on {where}", flush=True)
    precisions = (experiment.training.precision, experiment.retraining_settings.precision)
    emulated = not (on_gpu or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if emulated and "bfloat16" in precisions:
        print("note: this CPU emulates bfloat16 slowly; precision: float32 is faster here")
    return planned


def _show_forecast(planned: "PlannedTrial") -> None:
    from mint.trial.forecast import forecast

    pipeline = planned.pipeline
    if planned.traced is None:
        print("finished already")
        return
    config, source, cache = pipeline.config, pipeline.source, pipeline.cache
    print("\n".join(forecast([config], source, planned.traced, cache, 1)))


def _finish(pipeline: "TrialPipeline", uri: str, output: Path, file: "ExperimentFile") -> None:
    from mint.orchestration.single_trial import run_and_report
    from mint.tracking.mlflow_store import MlflowStore

    say = partial(print, flush=True)
    trial = run_and_report(pipeline, MlflowStore(uri), output, file.references, say)
    result = trial.result
    print(
        f"pruned {result.params_pruned:.2f}%: test accuracy {result.accuracy:.2f}%, the "
        f"baseline's {result.baseline_accuracy:.2f}%"
    )
    print(f"trial:  {trial.folder}")
    print(f"page:   {trial.page}")
    if trial.store_error:
        raise WorkFailedError(
            f"the trial is finished, but its run could not be written to the tracking store "
            f"({trial.store_error}); mint sync writes it"
        )
    show_runs(uri, trial.experiment_id)


def _require(pipeline: "TrialPipeline", stage: str, command: str) -> None:
    if not pipeline.is_done(stage):
        raise InputError(
            f"this trial has no result of mint {command} yet; run it first, with the same options"
        )


def _finished(folder: Path) -> "FinishedTrial":
    from mint.trial.api import FinishedTrial

    try:
        return FinishedTrial(folder)
    except InputError as error:
        raise InputError(f"--trial {error}") from None


def _image_shape(experiment: "Experiment", options: ExperimentOptions) -> tuple[int, int, int]:
    from mint.data.datasets import load_source
    from mint.trial.preflight import image_shape

    shape = image_shape(experiment.data, None)
    if shape is None:
        source = load_source(experiment.data, data_folder(options.data_dir))
        shape = image_shape(experiment.data, source)
    assert shape is not None
    return shape
