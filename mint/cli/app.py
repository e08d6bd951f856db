"""The command `mint`: one trial, whole or stage by stage; what it left; and the tables."""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli.options import (
    CACHE_HELP,
    EXIT_FAILED,
    STORE_HELP,
    Parser,
    add_data_dir,
    add_experiment,
    add_folders,
    add_results,
    check_how_much,
    chosen_experiment,
    criterion,
    days,
    fraction,
    guarded,
    natural,
    port,
    positive,
    show_runs,
    tracking_uri,
)
from mint.cli.sweep import EPILOG, add_sweep, run_sweep_command
from mint.config.grid import bundled_sweeps
from mint.config.locations import cache_folder, check_writable, data_folder
from mint.config.schema import CRITERIA, DEFAULT_CRITERION, Experiment
from mint.errors import InputError, allowed
from mint.orchestration.interruption import STOP_SECONDS, STOPPED
from mint.reporting.folder import check_results, rebuild_report, write_trial_page
from mint.trial.provenance import PACKAGE, installed_version

# Ray, MLflow and torch take seconds to import: each is left until a command needs it.
if TYPE_CHECKING:
    from mint.store.stage_cache import StageCache
    from mint.tracking.mlflow_store import MlflowStore
    from mint.tracking.writer import RunWriter
    from mint.training.loop import Epoch
    from mint.trial.api import FinishedTrial
    from mint.trial.pipeline import TrialPipeline
    from mint.trial.result import LayerScoring, SearchStep
    from mint.trial.setup import PlannedTrial

_MOST_DIFFERENCES = 20  # that are printed
# Of a trial, as its options and the fields of TrialConfig are called.
_AXES = (
    *("criterion", "groups", "samples_per_class", "upper_limit"),
    *("bootstraps", "fraction", "seed"),
)
# For the heading of every part of mint --help, its commands.
_PARTS = {
    "stages of a trial": ("run", "train", "estimate", "prune", "retrain"),
    "sweeps": ("sweep",),
    "reports": ("ui", "report", "verify", "layers", "export"),
    "upkeep": ("sync", "cache", "completion"),
}
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


class _Program(Parser):
    """Shows its commands part by part."""

    def format_help(self) -> str:
        assert self._subparsers
        (commands,) = self._subparsers._group_actions
        assert isinstance(commands, argparse._SubParsersAction)
        summaries = {command.dest: command for command in commands._get_subactions()}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for part, names in _PARTS.items():
            formatter.start_section(part)
            formatter.add_arguments([summaries[name] for name in names])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self._optionals._group_actions)
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `mint` and return its exit code."""
    options = command_line().parse_args(arguments)
    options.words = sys.argv[1:] if arguments is None else arguments
    return guarded(f"mint {options.command}", lambda: options.handler(options))


def command_line() -> Parser:
    """Return the parser of the command `mint`."""
    program = _Program(
        prog="mint",
        description="Mutual-information-based neuron trimming.",
        epilog="mint COMMAND --help tells of all options. Exit codes: 0 done, 1 failed, 2 bad "
        "input and nothing was changed, 130 stopped by Ctrl-C.",
    )
    program.add_argument(
        "--version",
        action="version",
        help="show the version and exit",
        version=f"mint {installed_version(PACKAGE)}",
    )
    commands = program.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    handlers = (_run, _train, _estimate, _prune, _retrain)
    for handler, (name, (summary, description)) in zip(handlers, _STAGES.items(), strict=True):
        stage = commands.add_parser(name, help=summary, description=description)
        _add_trial(stage)
        if name in ("run", "retrain"):
            add_results(stage)
        if name == "run":
            stage.add_argument(
                "--dry-run",
                action="store_true",
                help="print how long the trial takes and how much memory, and run nothing",
            )
        stage.set_defaults(handler=handler)

    sweep = commands.add_parser(
        "sweep",
        help="run many trials, and rebuild the tables",
        description="Run the trials of a sweep that are not finished yet.",
    )
    names = sweep.add_subparsers(dest="sweep", required=True, metavar="SWEEP")
    for name, definition in bundled_sweeps().items():
        add_sweep(
            names.add_parser(
                name,
                help=definition.question,
                description=definition.question,
                epilog=EPILOG,
            ),
            definition,
        )
    sweep.set_defaults(handler=_sweep)

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
    add_data_dir(layers)
    layers.set_defaults(handler=_layers)

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
    export.set_defaults(handler=_export)

    report = commands.add_parser(
        "report",
        help="rebuild the results tables from the finished trials",
        description="Rebuild RESULTS.md, trials.csv and the figures. The trials are those of the "
        "tracking store, together with those already in the output folder; with --trials they "
        "are those of one file, and MLflow is not asked.",
    )
    report.add_argument(
        "--trials",
        type=Path,
        metavar="FILE",
        help="a trials.csv to make the report from (default: the tracking store's trials)",
    )
    add_results(report)
    report.set_defaults(handler=_report)

    ui = commands.add_parser(
        "ui",
        help="show the runs in a browser",
        description="Start MLflow's pages of the tracking store, for this machine alone, and print "
        "the link of every experiment. Ctrl-C ends it.",
    )
    ui.add_argument(
        "--port",
        type=port,
        metavar="N",
        help="to listen on, 1 to 65535 (default: 5000, else the next that is free)",
    )
    ui.add_argument("--tracking-uri", metavar="URI", help=STORE_HELP)
    ui.set_defaults(handler=_ui)

    verify = commands.add_parser(
        "verify",
        help="recompute every figure of the results",
        description="Recompute the tables of a folder from its records, and compare them cell by "
        "cell with what is there. Records are compared with their own arithmetic, with the results "
        "and masks of trials that are on the disk, and with their runs where --tracking-uri is "
        "given. Any difference is printed, and the exit code is 1.",
    )
    verify.add_argument(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of RESULTS.md, trials.csv and the plots (default: results)",
    )
    verify.add_argument("--cache-dir", type=Path, metavar="DIR", help=CACHE_HELP)
    verify.add_argument(
        "--tracking-uri", metavar="URI", help="a tracking store to compare with (default: none)"
    )
    verify.set_defaults(handler=_verify)

    sync = commands.add_parser(
        "sync",
        help="deliver to the tracking store what it missed",
        description="Bring the runs of the tracking store up to the records of trials on the disk: "
        "after the store was away, or lost. The next start of a sweep does the same for its own "
        "trials.",
    )
    _add_store(sync)
    sync.set_defaults(handler=_sync)

    cache = commands.add_parser(
        "cache",
        help="show or free the folder of finished stages",
        description="Show what is in the folder of finished stages, or free some of it.",
    )
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("ls", help="show how many stages there are, and how large they are")
    show.add_argument("--cache-dir", type=Path, metavar="DIR", help=CACHE_HELP)
    free = actions.add_parser(
        "prune",
        help="remove stages",
        description="Remove stages: what is removed is made again where it is needed. Without "
        "names, only leftovers go: checkpoints, half-made and damaged stages. Trials go only where "
        "the tracking store has their results.",
    )
    free.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        default=["leftovers"],
        help="baselines, activations, scores, masks, retrained, trials, initial, or leftovers "
        "(default: leftovers)",
    )
    free.add_argument(
        "--unused-days",
        type=days,
        default=0.0,
        metavar="DAYS",
        help="only what was of no use for so many days (default: 0, all)",
    )
    free.add_argument(
        "--dry-run", action="store_true", help="say what would go, and remove nothing"
    )
    _add_store(free)
    cache.set_defaults(handler=_cache)

    complete = commands.add_parser(
        "completion",
        help="print a script that completes mint in a shell",
        description="Print a script that makes a shell complete commands, options and names: eval "
        '"$(mint completion bash)" in ~/.bashrc, or mint completion zsh > _mint in a folder of '
        "$fpath.",
    )
    complete.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), metavar="SHELL", help="bash, zsh or tcsh"
    )
    complete.set_defaults(handler=_complete)
    return program


def _add_trial(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    trial = parser.add_argument_group("trial")
    trial.add_argument(
        "--criterion",
        type=criterion,
        default=DEFAULT_CRITERION,
        metavar="NAME",
        help=f"what scores the blocks: {', '.join(CRITERIA)} (default: {DEFAULT_CRITERION})",
    )
    trial.add_argument(
        "--groups",
        type=positive,
        metavar="N",
        help="groups of filters in each layer (default: the experiment's)",
    )
    trial.add_argument(
        "--samples-per-class",
        type=positive,
        metavar="N",
        help="training images of every class that the scores are estimated from "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--upper-limit",
        metavar="LIMIT",
        help="largest share of a layer's weights that may be pruned: none, or 0 to 1 "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--bootstraps",
        type=positive,
        metavar="N",
        help="estimates that the scores are the mean of; with --reliability, the most of them "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--fraction",
        type=fraction,
        metavar="SHARE",
        help="prune this share of the counted weights, 0 to 1, instead of searching "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="of everything that is drawn (default: 0)",
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to train and estimate (default: auto, a GPU where there is one)",
    )
    add_folders(running)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help=CACHE_HELP)
    parser.add_argument("--tracking-uri", metavar="URI", help=STORE_HELP)


def _planned(options: argparse.Namespace) -> "TrialPipeline":
    """Return the stages of the trial that the options describe, checked before any is made."""
    return _planned_trial(options).pipeline


def _planned_trial(options: argparse.Namespace) -> "PlannedTrial":
    check_how_much(options, options.fraction, "--fraction")
    file = chosen_experiment(options)

    import torch

    from mint.trial.pipeline import TrialCallbacks
    from mint.trial.setup import TrialPaths, plan_trial

    progress = _Progress()
    planned = plan_trial(
        file,
        {axis: getattr(options, axis) for axis in _AXES},
        TrialPaths(options.init, options.cache_dir, options.data_dir),
        options.device,
        ["mint", *options.words],
        callbacks=TrialCallbacks(
            on_epoch=progress.epoch,
            on_layer_scores=progress.layer,
            on_search_step=progress.search_step,
        ),
    )
    stages, experiment = planned.pipeline, file.experiment
    on_gpu = stages.device.type == "cuda"
    print(
        f"{experiment.name} {stages.config.name} on {'a GPU' if on_gpu else 'the CPU'}", flush=True
    )
    emulated = not (on_gpu or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if emulated and "bfloat16" in (
        experiment.training.precision,
        experiment.retraining_settings.precision,
    ):
        print("note: this CPU only emulates bfloat16, slowly; precision: float32 is faster here")
    return planned


class _Progress:
    """Prints a line for everything that takes long."""

    def __init__(self) -> None:
        from mint.orchestration.display import TimeLeft

        self._left = TimeLeft()

    def epoch(self, stage: str, epoch: "Epoch", epochs: int) -> None:
        left = self._left.after(stage, epoch, epochs)
        from mint.trial.forecast import format_duration

        print(
            f"{stage} epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.4f}  validation "
            f"{epoch.validation_accuracy:.2f}%  {format_duration(epoch.seconds)}, "
            f"about {format_duration(left)} left",
            flush=True,
        )

    def layer(self, scoring: "LayerScoring") -> None:
        reliable = "" if scoring.reliability is None else f"  reliability {scoring.reliability:.2f}"
        drawn = f"{scoring.bootstraps} bootstraps, " if scoring.bootstraps else ""
        print(
            f"scores {scoring.parent} -> {scoring.child}: {scoring.blocks} blocks, {drawn}"
            f"{scoring.seconds:.1f} s{reliable}",
            flush=True,
        )

    def search_step(self, probe: "SearchStep") -> None:
        verdict = {True: "passed", False: "too much", None: "as asked"}[probe.passed]
        print(
            f"pruned {probe.params_pruned:.2f}%: validation "
            f"{probe.retraining.validation_accuracy:.2f}%, {verdict}",
            flush=True,
        )


def _train(options: argparse.Namespace) -> int:
    stages = _planned(options)

    from mint.training.determinism import reproducible
    from mint.trial.result import Baseline

    with reproducible(stages.experiment.threads, stages.device):
        folder = stages.baseline
    print(f"baseline: validation accuracy {Baseline.load(folder).validation_accuracy:.2f}%")
    print(f"weights:  {folder}")
    return 0


def _estimate(options: argparse.Namespace) -> int:
    stages = _planned(options)

    from mint.training.determinism import reproducible
    from mint.trial.forecast import format_duration

    _need(stages.is_done("baselines"), "train")
    start = time.monotonic()
    with reproducible(stages.experiment.threads, stages.device):
        folders = stages.all_scores
    print(f"scores of {len(folders)} layers, {format_duration(time.monotonic() - start)}")
    print(f"scores: {next(iter(folders.values())).parent}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    stages = _planned(options)
    if stages.config.search.fraction is None:
        raise InputError(
            f"--fraction: must be given, for {stages.experiment.name} searches how much to "
            "prune; mint run does that"
        )

    from mint.reporting.layer_text import layer_lines

    _need(stages.is_done("baselines"), "train")
    _need(stages.is_done("scores"), "estimate")
    folder = stages.pruned
    masks = stages.masks
    print("\n".join(layer_lines(stages.layer_counts(masks))))
    share = 100 * masks.pruned / stages.counted
    print(f"pruned: {masks.pruned} of {stages.counted} counted weights, {share:.2f}%")
    print(f"masks:  {folder}")
    return 0


def _retrain(options: argparse.Namespace) -> int:
    check_results(options.output)
    stages = _planned(options)
    _need(stages.is_done("baselines"), "train")
    _need(stages.is_done("scores"), "estimate")
    if stages.config.search.fraction is not None:
        _need(stages.is_done("masks"), "prune")
    return _finish(stages, options)


def _run(options: argparse.Namespace) -> int:
    check_results(options.output)
    tracking_uri(options.tracking_uri)
    planned = _planned_trial(options)
    return _forecast(planned) if options.dry_run else _finish(planned.pipeline, options)


def _forecast(planned: "PlannedTrial") -> int:
    from mint.trial.forecast import forecast

    pipeline = planned.pipeline
    if planned.traced is None:
        print("finished already")
        return 0
    lines = forecast(
        [pipeline.config],
        pipeline.source,
        planned.traced,
        pipeline.cache,
        1,
    )
    print("\n".join(lines))
    return 0


def _finish(stages: "TrialPipeline", options: argparse.Namespace) -> int:
    from mint.reporting.trial_table import trial_table
    from mint.store.locks import locked
    from mint.tracking.mlflow_store import MlflowStore
    from mint.tracking.writer import RunWriter
    from mint.trial.result import TrialResult

    store = MlflowStore(tracking_uri(options.tracking_uri))
    experiment_id = store.prepare(stages.experiment.name)
    finished_runs = store.finished_runs(stages.experiment.name)
    say = partial(print, flush=True)
    with (
        locked(
            stages.cache,
            f"{stages.config.experiment.name}-{stages.config.key}",
            stages.provenance.command,
        ),
        RunWriter(
            store, stages.cache, stages.provenance, finished_runs, say, STOP_SECONDS
        ) as writer,
    ):
        result = TrialResult.load(_ran(stages, writer))
        behind = writer.close()
    page = write_trial_page(options.output, result)
    print(
        f"pruned {result.params_pruned:.2f}%: test accuracy {result.accuracy:.2f}%, the "
        f"baseline's {result.baseline_accuracy:.2f}%"
    )
    print(f"trial:  {stages.cache.folder('trials', stages.config.key)}")
    print(f"page:   {page}")
    of_store = None
    try:
        of_store = None if behind else trial_table(store.results())
    except InputError as error:
        print(f"the tables are made without the store: {error}", file=sys.stderr)
    rebuild_report(
        options.output,
        of_disk=trial_table([("", result)]),
        of_store=of_store,
    )
    if behind:
        print(
            f"its run is behind, for the tracking store could not be written to "
            f"({writer.trouble}); mint sync delivers it",
            file=sys.stderr,
        )
        return EXIT_FAILED
    show_runs(store, experiment_id)
    return 0


def _ran(stages: "TrialPipeline", writer: "RunWriter") -> Path:
    """Run a trial with its run kept up to date, and return its folder."""
    from mint.errors import error_line, without_secrets
    from mint.trial.failed_trials import FailedTrial, FailedTrials
    from mint.trial.pipeline import run_trial
    from mint.trial.result import TrialKeys

    config, callbacks = stages.config, stages.callbacks
    probes: list[SearchStep] = []

    def on_search_step(probe: "SearchStep") -> None:
        probes.append(probe)
        writer.running(config, probes)
        callbacks.on_search_step(probe)

    stages.callbacks = replace(callbacks, on_search_step=on_search_step)
    writer.running(config)
    try:
        folder = run_trial(stages)
    except KeyboardInterrupt:
        writer.interrupted(config, STOPPED)
        writer.close(STOP_SECONDS)
        raise
    except Exception as error:
        gap = FailedTrial(
            keys=TrialKeys.of(config),
            config=config,
            status="failed",
            reason=error_line(error),
            details=without_secrets(traceback.format_exc()),
            provenance=stages.provenance,
        )
        FailedTrials(stages.cache).write(gap)
        writer.failed(gap)
        raise
    FailedTrials(stages.cache).forget(config.key)
    writer.finished(config.key)
    return folder


def _need(done: bool, stage: str) -> None:
    if not done:
        raise InputError(
            f"this trial has no result of mint {stage} yet; run it first, with the same options"
        )


def _sweep(options: argparse.Namespace) -> int:
    return run_sweep_command(options, bundled_sweeps()[options.sweep], ["mint", *options.words])


def _layers(options: argparse.Namespace) -> int:
    from mint.pruning.layer_table import count_layers
    from mint.reporting.layer_text import layer_lines

    if options.trial:
        print("\n".join(layer_lines(_finished(options.trial).result.layers)))
        return 0
    experiment = chosen_experiment(options).experiment

    import torch

    from mint.models import build_network, chosen_pairs, trace

    shape = _shape(experiment, options)
    traced = trace(build_network(experiment.network), torch.zeros(1, *shape))
    print("\n".join(layer_lines(count_layers(traced, chosen_pairs(traced, experiment)))))
    return 0


def _export(options: argparse.Namespace) -> int:
    trial = _finished(options.trial)
    check_writable("--output", options.output)

    import torch

    from mint.pruning.export import export

    example = torch.zeros(1, *trial.result.image_shape)
    exported = export(trial.network, trial.masks, example, options.output, onnx=options.onnx)
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
    from mint.data.datasets import load_source
    from mint.trial.preflight import image_shape

    known = image_shape(experiment.data, None)
    if known is None:
        source = load_source(experiment.data, data_folder(options.data_dir))
        known = image_shape(experiment.data, source)
    assert known is not None
    return known


def _finished(folder: Path) -> "FinishedTrial":
    from mint.trial.api import FinishedTrial

    try:
        return FinishedTrial(folder)
    except InputError as error:
        raise InputError(f"--trial {error}") from None


def _report(options: argparse.Namespace) -> int:
    check_writable("--output", options.output)
    if options.trials:
        from mint.reporting.pages import write_report
        from mint.reporting.reference import copied_references
        from mint.reporting.trial_table import read_trials

        references = copied_references(options.trials.parent)
        write_report(options.output, read_trials(options.trials), references)
        print(f"tables: {options.output / 'RESULTS.md'}")
        return 0

    from mint.reporting.trial_table import trial_table
    from mint.tracking.mlflow_store import MlflowStore

    store = MlflowStore(tracking_uri(options.tracking_uri))
    if not store.exists:
        raise InputError(
            f"--tracking-uri {store.shown}: there is no such store; run a sweep first, or "
            "give --trials FILE"
        )
    rebuild_report(options.output, of_store=trial_table(store.results()))
    return 0


def _verify(options: argparse.Namespace) -> int:
    cache_dir = cache_folder(options.cache_dir)

    from mint.reporting.verify import verify
    from mint.store.stage_cache import StageCache

    of_store = None
    if options.tracking_uri:
        from mint.reporting.trial_table import trial_table
        from mint.tracking.mlflow_store import MlflowStore

        store = MlflowStore(tracking_uri(options.tracking_uri))
        if not store.exists:
            raise InputError(f"--tracking-uri {store.shown}: there is no such store")
        of_store = trial_table(store.results())
    found = verify(options.output, StageCache(cache_dir), of_store)
    for difference in found.differences[:_MOST_DIFFERENCES]:
        print(difference)
    if len(found.differences) > _MOST_DIFFERENCES:
        print(f"and {len(found.differences) - _MOST_DIFFERENCES} more")
    print(
        f"compared: {found.cells} cells of tables, {found.trials} "
        f"trials with results and masks, {found.runs} with runs; "
        f"differences: {len(found.differences)}"
    )
    return EXIT_FAILED if found.differences else 0


def _ui(options: argparse.Namespace) -> int:
    from mint.tracking.ui import Server, free_port, links

    uri, number = tracking_uri(options.tracking_uri), free_port(options.port)

    from mint.tracking.mlflow_store import MlflowStore

    store = MlflowStore(uri)
    if not store.exists:
        raise InputError(
            f"--tracking-uri {store.shown}: there is no such store; run a trial or a sweep first"
        )
    if store.uri.startswith("http"):  # a server is there already
        print("\n".join(links(store, store.shown)))
        return 0
    with Server(store.uri, number) as server:
        shown = links(store, server.address)  # takes seconds, as the server's start does
        server.wait_until_ready()
        print("\n".join([*shown, "Ctrl-C ends it"]), flush=True)
        reason = server.wait()
    print(f"mint ui: failed: {reason}", file=sys.stderr)
    return EXIT_FAILED


def _sync(options: argparse.Namespace) -> int:
    from mint.store.locks import locked_exclusively
    from mint.store.stage_cache import StageCache
    from mint.tracking.mlflow_store import MlflowStore

    store = MlflowStore(tracking_uri(options.tracking_uri))
    cache = StageCache(cache_folder(options.cache_dir))
    with locked_exclusively(cache, "mint sync"):
        return _synced(store, cache, options)


def _synced(store: "MlflowStore", cache: "StageCache", options: argparse.Namespace) -> int:
    from mint.tracking.writer import RunWriter, write_ended
    from mint.trial.failed_trials import FailedTrials
    from mint.trial.provenance import Provenance
    from mint.trial.result import TrialResult

    found = (cache.find("trials", key) for key in cache.keys("trials"))
    trials = [TrialResult.load(folder) for folder in found if folder]
    ended = {trial.keys.key: trial.config.experiment.name for trial in trials}
    ended |= {each.keys.key: each.config.experiment.name for each in FailedTrials(cache).all()}
    delivered: dict[str, str] = {}
    for experiment in sorted(set(ended.values())):
        store.prepare(experiment)
        delivered |= store.finished_runs(experiment)
        store.close_orphans(experiment, cache.identity, "what ran it died")
    missing = [key for key in ended if key not in delivered]
    provenance = Provenance.of_this_process(None, ["mint", *options.words])
    say = partial(print, flush=True)
    with RunWriter(store, cache, provenance, delivered, say, STOP_SECONDS) as writer:
        write_ended(writer, cache, missing)
        behind = writer.close()
    print(f"{len(ended)} trials on the disk, {len(missing) - behind} delivered to the store")
    if behind:
        print(f"{behind} could not be delivered: {writer.trouble}", file=sys.stderr)
    return EXIT_FAILED if behind else 0


def _cache(options: argparse.Namespace) -> int:
    from mint.cli.cache import listing
    from mint.store.cleanup import LEFTOVERS, STAGES, prune
    from mint.store.stage_cache import StageCache

    root = cache_folder(options.cache_dir)
    if not root.is_dir():
        raise InputError(f"--cache-dir {root}: there is no such folder; nothing was kept there yet")
    cache = StageCache(root)
    if options.action == "ls":
        print("\n".join(listing(cache)))
        return 0
    known = (*STAGES, LEFTOVERS)
    for stage in options.stages:
        if stage not in known:
            raise InputError(f"STAGE {stage}: {allowed(stage, known)}")

    from mint.store.locks import locked_exclusively

    delivered: frozenset[str] = frozenset()
    if "trials" in options.stages:
        from mint.tracking.mlflow_store import MlflowStore

        store = MlflowStore(tracking_uri(options.tracking_uri))
        if store.exists:
            names = store.experiments()
            delivered = frozenset(key for name in names for key in store.finished_runs(name))
    with locked_exclusively(cache, "mint cache prune"):
        removed, kept = prune(
            cache,
            tuple(options.stages),
            unused_days=options.unused_days,
            delivered=delivered,
            dry_run=options.dry_run,
        )
    size = sum(entry.size for entry in removed) / 1e6
    would = "would remove" if options.dry_run else "removed"
    print(f"{would} {len(removed)} of {', '.join(options.stages)}: {size:.1f} MB")
    if kept:
        print(f"kept {len(kept)} trials that the tracking store has no results of: see mint sync")
    return 0


def _complete(options: argparse.Namespace) -> int:
    from mint.cli.completion import completion

    print(completion(command_line(), options.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
