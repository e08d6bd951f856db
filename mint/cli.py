"""The command `mint`: one trial, whole or stage by stage; what it left; and the tables."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mint.config import Experiment, TrialConfig, parse_limit, trial_defaults
from mint.errors import InputError
from mint.options import (
    Parser,
    add_experiment,
    add_folders,
    add_results,
    cache_folder,
    check_folder,
    check_results,
    chosen_experiment,
    data_folder,
    duration,
    guarded,
    initial_weights,
    natural,
    positive,
    rebuild_report,
    show_runs,
)

# Ray, MLflow and torch take seconds to import: each is left until a command needs it.
if TYPE_CHECKING:
    from mint.results import LayerScoring, Probe, TrialResult
    from mint.train import Epoch
    from mint.trial import Stages

_STAGES = {
    "run": (
        "run one trial: train, estimate, prune, retrain",
        "Run one trial, all stages, and add it to the tracking store and the tables. A stage that "
        "is finished already is not run again; one that was stopped carries on.",
    ),
    "train": (
        "train the baseline",
        "Train the network before pruning: the first stage of a trial.",
    ),
    "estimate": (
        "score the weight blocks of every layer",
        "Estimate the scores of all weight blocks, layer by layer, and print what each took: the "
        "second stage of a trial, after mint train.",
    ),
    "prune": (
        "make the masks of a fraction",
        "Rank the blocks of all layers together and make the masks that prune a fraction of the "
        "counted weights: the third stage of a trial, after mint estimate.",
    ),
    "retrain": (
        "retrain under the masks, and finish the trial",
        "Retrain the pruned network, read its test accuracy, and add the trial to the tracking "
        "store and the tables: the last stage of a trial, after mint prune.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `mint` and return its exit code."""
    parser = Parser(prog="mint", description="Mutual-information-based neuron trimming.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    handlers: dict[str, Callable[[argparse.Namespace], int]] = {}

    for name, (summary, description) in _STAGES.items():
        stage = commands.add_parser(name, help=summary, description=description)
        _add_trial(stage)
        if name in ("run", "retrain"):
            add_results(stage)
    handlers |= {
        "run": _run,
        "train": _train,
        "estimate": _estimate,
        "prune": _prune,
        "retrain": _retrain,
    }

    layers = commands.add_parser(
        "layers",
        help="print the layer breakdown of a network or a finished trial",
        description="Print every convolution and linear layer with the one before it, its "
        "weights, and what is left of them. Pairs that are pruned are starred; of the others it "
        "is said why not.",
    )
    which = layers.add_mutually_exclusive_group(required=True)
    which.add_argument("--trial", type=Path, metavar="DIR", help="folder of a finished trial")
    add_experiment(layers, alternatives=which)
    add_folders(layers.add_argument_group("data"))
    handlers["layers"] = _layers

    export = commands.add_parser(
        "export",
        help="write the pruned network as a smaller plain PyTorch module",
        description="Remove the filters that no kept connection reads or feeds, and write what is "
        "left as PyTorch code that needs no mint, with its weights, its size and its latency "
        "beside the dense network's.",
    )
    export.add_argument(
        "--trial", type=Path, metavar="DIR", required=True, help="folder of a finished trial"
    )
    export.add_argument(
        "--output", type=Path, metavar="DIR", required=True, help="new folder to write"
    )
    export.add_argument("--onnx", action="store_true", help="write network.onnx too")
    handlers["export"] = _export

    report = commands.add_parser(
        "report",
        help="rebuild the results tables from the finished trials",
        description="Rebuild RESULTS.md, records.csv and the plots. The records are those of the "
        "tracking store, together with those already in the output folder; with --records they "
        "are those of one file, and MLflow is not asked.",
    )
    report.add_argument(
        "--records", type=Path, metavar="FILE", help="a records.csv to make the report from"
    )
    add_results(report)
    handlers["report"] = _report

    options = parser.parse_args(arguments)
    return guarded(f"mint {options.command}", lambda: handlers[options.command](options))


def _add_trial(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    trial = parser.add_argument_group("trial", "The default is the experiment's section trial.")
    trial.add_argument(
        "--groups", type=positive, metavar="N", help="groups of filters in each layer"
    )
    trial.add_argument(
        "--samples-per-class",
        type=positive,
        metavar="N",
        help="training images of every class that the scores are estimated from",
    )
    trial.add_argument(
        "--upper-limit",
        metavar="LIMIT",
        help="largest share of a layer's weights that may be pruned: none, or 0 to 1",
    )
    trial.add_argument(
        "--bootstraps",
        type=positive,
        metavar="N",
        help="estimates that the scores are the mean of; with --reliability, the most of them "
        "(default: the experiment's)",
    )
    trial.add_argument("--seed", type=natural, default=0, metavar="N", help="(default: 0)")
    running = parser.add_argument_group("running")
    running.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="(default: auto, a GPU where there is one)",
    )
    add_folders(running)


def _planned(options: argparse.Namespace) -> "Stages":
    """Return the stages of the trial that the options describe, checked before any is made."""
    experiment = chosen_experiment(options)
    defaults = trial_defaults(options.experiment, smoke=options.smoke)
    for option in ("groups", "samples_per_class", "upper_limit"):
        if getattr(options, option) is None:
            if defaults is None:
                raise InputError(
                    f"--{option.replace('_', '-')}: must be given, for {options.experiment} has "
                    "no section trial"
                )
            setattr(options, option, getattr(defaults, option))
    limit = parse_limit(options.upper_limit, options.groups, option="--upper-limit")
    init = initial_weights(options.init, experiment)
    data_dir, cache_dir = data_folder(options.data_dir), cache_folder(options.cache_dir)

    import torch

    from mint.cache import Cache
    from mint.networks import source_digest
    from mint.sources import load_source
    from mint.trial import Listener, Stages, check_trials

    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no GPU that torch can use; allowed: cpu")
    cuda = torch.cuda.is_available() and options.device != "cpu"
    config = TrialConfig(
        experiment=experiment,
        groups=options.groups,
        samples_per_class=options.samples_per_class,
        upper_limit=limit,
        bootstraps=options.bootstraps,
        seed=options.seed,
        data_digest="unknown",
        network_digest=source_digest(experiment.network),
        init=init,
    )
    check_trials([config], None, options.init)
    source = load_source(experiment.data, data_dir)
    config = config.model_copy(update={"data_digest": source.digest})
    check_trials([config], source)
    progress = _Progress()
    listener = Listener(epoch=progress.epoch, layer=progress.layer, probe=progress.probe)
    stages = Stages(
        config,
        source,
        cache=Cache(cache_dir),
        device=torch.device("cuda" if cuda else "cpu"),
        init=options.init,
        listener=listener,
    )
    print(f"{experiment.name} {config.name} on {'a GPU' if cuda else 'the CPU'}", flush=True)
    emulated = not (cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if emulated and "bfloat16" in (
        experiment.training.precision,
        experiment.retraining_settings.precision,
    ):
        print("note: this CPU only emulates bfloat16, slowly; precision: float32 is faster here")
    return stages


class _Progress:
    """Prints a line for everything that takes long."""

    def __init__(self) -> None:
        self._spent = 0.0

    def epoch(self, stage: str, epoch: "Epoch", epochs: int) -> None:
        self._spent = epoch.seconds if epoch.epoch == 1 else self._spent + epoch.seconds
        left = self._spent / epoch.epoch * (epochs - epoch.epoch)
        print(
            f"{stage} epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.4f}  validation "
            f"{epoch.validation_accuracy:.2f}%  {duration(epoch.seconds)}, "
            f"about {duration(left)} left",
            flush=True,
        )

    def layer(self, scoring: "LayerScoring") -> None:
        reliable = "" if scoring.reliability is None else f"  reliability {scoring.reliability:.2f}"
        print(
            f"scores {scoring.parent} -> {scoring.child}: {scoring.blocks} blocks, "
            f"{scoring.bootstraps} bootstraps, {scoring.seconds:.1f} s{reliable}",
            flush=True,
        )

    def probe(self, probe: "Probe") -> None:
        verdict = {True: "passed", False: "too much", None: "as asked"}[probe.passed]
        print(
            f"pruned {probe.params_pruned:.2f}%: validation "
            f"{probe.retraining.validation_accuracy:.2f}%, {verdict}",
            flush=True,
        )


def _train(options: argparse.Namespace) -> int:
    stages = _planned(options)

    from mint.results import Baseline
    from mint.trial import reproducible

    with reproducible(stages.experiment.threads, stages.device):
        folder = stages.baseline
    print(f"baseline: validation accuracy {Baseline.load(folder).validation_accuracy:.2f}%")
    print(f"weights:  {folder}")
    return 0


def _estimate(options: argparse.Namespace) -> int:
    stages = _planned(options)

    from mint.trial import reproducible

    _need(stages.has_baseline, "train")
    start = time.monotonic()
    with reproducible(stages.experiment.threads, stages.device):
        folders = stages.all_scores
    print(f"scores of {len(folders)} layers, {duration(time.monotonic() - start)}")
    print(f"scores: {next(iter(folders.values())).parent}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    stages = _planned(options)
    if stages.experiment.search.fraction is None:
        raise InputError(
            f"--fraction: must be given, for {stages.experiment.name} searches how much to "
            "prune; mint run does that"
        )

    from mint.layers import breakdown

    _need(stages.has_baseline, "train")
    _need(stages.has_scores, "estimate")
    folder = stages.pruned
    masks = stages.masks
    print("\n".join(breakdown(stages.counted_layers(masks))))
    share = 100 * masks.pruned / stages.counted
    print(f"pruned: {masks.pruned} of {stages.counted} counted weights, {share:.2f}%")
    print(f"masks:  {folder}")
    return 0


def _retrain(options: argparse.Namespace) -> int:
    check_results(options.output)
    stages = _planned(options)
    _need(stages.has_baseline, "train")
    _need(stages.has_scores, "estimate")
    if stages.experiment.search.fraction is not None:
        _need(stages.has_masks, "prune")
    return _finish(stages, options)


def _run(options: argparse.Namespace) -> int:
    check_results(options.output)
    return _finish(_planned(options), options)


def _finish(stages: "Stages", options: argparse.Namespace) -> int:
    from mint.provenance import Provenance
    from mint.records import write_whole
    from mint.results import TrialResult
    from mint.tracking import Tracker, tracking_uri
    from mint.trial import run_trial
    from mint.trial_page import page_name, trial_page

    tracker = Tracker(tracking_uri(options.tracking_uri))
    experiment_id = tracker.prepare(stages.experiment.name)
    run_id = tracker.begin(stages.config, None, Provenance.of_this_code())
    try:
        folder = run_trial(stages)
        result = TrialResult.load(folder)
        tracker.log_probes(run_id, result.probes)
        tracker.finish(run_id, result, folder)
    except KeyboardInterrupt:
        tracker.close(stages.config, "KILLED", "stopped by Ctrl-C")
        raise
    except Exception as error:
        tracker.close(stages.config, "FAILED", f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    page = options.output / "trials" / page_name(stages.config)
    write_whole(page, trial_page(result).encode())
    print(
        f"pruned {result.params_pruned:.2f}%: test accuracy {result.accuracy:.2f}%, the "
        f"baseline's {result.baseline_accuracy:.2f}%"
    )
    print(f"trial:  {folder}")
    print(f"page:   {page}")
    rebuild_report(options.output, tracker)
    show_runs(tracker, experiment_id)
    return 0


def _need(done: bool, stage: str) -> None:
    if not done:
        raise InputError(
            f"this trial has no result of mint {stage} yet; run it first, with the same options"
        )


def _layers(options: argparse.Namespace) -> int:
    from mint.layers import breakdown, count_layers

    if options.trial:
        print("\n".join(breakdown(_finished(options.trial).layers)))
        return 0
    experiment = chosen_experiment(options)

    from mint.networks import chosen_pairs
    from mint.trial import untrained

    traced = untrained(experiment, _shape(experiment, options))
    print("\n".join(breakdown(count_layers(traced, chosen_pairs(traced, experiment)))))
    return 0


def _export(options: argparse.Namespace) -> int:
    result = _finished(options.trial)
    check_folder("--output", options.output)

    import torch

    from mint.export import export
    from mint.masks import Masks
    from mint.trial import MASKS_FILE, finished_network

    masks = Masks.load(options.trial / MASKS_FILE)
    network = finished_network(options.trial)
    example = torch.zeros(1, *result.image_shape)
    exported = export(network, masks, example, options.output, onnx=options.onnx)
    dense, left = exported.dense_weights, exported.exported_weights
    adds, left_adds = exported.dense_multiply_adds, exported.exported_multiply_adds
    kept = exported.kept_weights
    print(f"weights:       {left} of {dense}, {100 * left / dense:.2f}% ({kept} are not zero)")
    print(f"multiply-adds: {left_adds} of {adds}, {100 * left_adds / adds:.2f}%")
    print(
        f"latency:       {exported.exported_ms:.2f} ms an image, dense {exported.dense_ms:.2f} ms"
    )
    print(f"outputs:       within {exported.max_difference:.1g} of the masked network's")
    print(f"network:       {options.output / 'network.py'}")
    return 0


def _shape(experiment: Experiment, options: argparse.Namespace) -> tuple[int, int, int]:
    from mint.sources import load_source
    from mint.trial import image_shape

    known = image_shape(experiment.data, None)
    if known is None:
        source = load_source(experiment.data, data_folder(options.data_dir))
        known = image_shape(experiment.data, source)
    assert known is not None
    return known


def _finished(folder: Path) -> "TrialResult":
    from pydantic import ValidationError

    from mint.results import TrialResult

    try:
        return TrialResult.load(folder)
    except (OSError, ValidationError):
        raise InputError(
            f"--trial {folder}: is no folder of a finished trial, such as mint run prints"
        ) from None


def _report(options: argparse.Namespace) -> int:
    check_folder("--output", options.output)
    if options.records:
        from mint.records import read_records
        from mint.report import write_report

        write_report(options.output, read_records(options.records))
        print(f"tables: {options.output / 'RESULTS.md'}")
        return 0

    from mint.tracking import Tracker, tracking_uri

    tracker = Tracker(tracking_uri(options.tracking_uri))
    if not tracker.exists:
        raise InputError(
            f"--tracking-uri {tracker.shown}: there is no such store; run a sweep first, or "
            "give --records FILE"
        )
    rebuild_report(options.output, tracker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
