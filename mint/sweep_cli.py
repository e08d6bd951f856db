"""The command line that the scripts of sweeps/ share."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mint.config import Grid, TrialConfig
from mint.errors import InputError
from mint.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Parser,
    add_experiment,
    add_folders,
    add_results,
    cache_folder,
    check_results,
    chosen_experiment,
    data_folder,
    duration,
    gpu_share,
    guarded,
    initial_weights,
    natural,
    positive,
    rebuild_report,
    show_runs,
)

# Ray, MLflow and torch take seconds to import: each is left until it is needed.
if TYPE_CHECKING:
    from mint.results import TrialResult


def sweep_main(
    question: str,
    name: str,
    grids: Mapping[str, Sequence[Grid]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a sweep's command line and return its exit code.

    Args:
        question: what the sweep is for, in a sentence or two.
        name: of the sweep.
        grids: for every experiment, the blocks of trials that run where no option says otherwise;
            the first experiment is the default.
        arguments: of the command line.
    """
    parser = _sweep_parser(question, name, grids)
    options = parser.parse_args(arguments)
    return guarded(parser.prog, lambda: _sweep(options, name, grids))


def _sweep_parser(
    question: str, name: str, grids: Mapping[str, Sequence[Grid]]
) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{name}.py",
        description=question,
        epilog="The same command again runs only what is missing. Exit codes: 0 all trials are "
        "finished, 1 some failed, 2 bad input, 130 stopped by Ctrl-C.",
    )
    add_experiment(parser, default=next(iter(grids)))
    axes = parser.add_argument_group(
        "axes", "Each replaces that axis of the experiment's own grid, which --dry-run shows."
    )
    axes.add_argument(
        "--groups", type=positive, nargs="+", metavar="N", help="groups of filters in each layer"
    )
    axes.add_argument(
        "--samples-per-class",
        type=positive,
        nargs="+",
        metavar="N",
        help="training images of every class that the scores are estimated from",
    )
    axes.add_argument(
        "--upper-limits",
        nargs="+",
        metavar="LIMIT",
        help="largest share of a layer's weights that may be pruned: none, 0 to 1, or g/N and "
        "(g/N)^2 with g the groups",
    )
    axes.add_argument(
        "--bootstraps",
        type=positive,
        nargs="+",
        metavar="N",
        help="estimates that the scores are the mean of; with --reliability, the most of them",
    )
    axes.add_argument(
        "--seeds", type=natural, nargs="+", metavar="N", default=[0], help="(default: 0)"
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--max-concurrent",
        type=positive,
        metavar="N",
        help="trials side by side (default: as many as there are cores for)",
    )
    running.add_argument(
        "--gpus-per-trial",
        type=gpu_share,
        default=0.0,
        metavar="SHARE",
        help="GPUs of one trial; 0.5 lets two share a card (default: 0, the CPU)",
    )
    add_folders(running)
    running.add_argument("--dry-run", action="store_true", help="print the trials and run nothing")
    add_results(parser)
    return parser


def _sweep(options: argparse.Namespace, name: str, grids: Mapping[str, Sequence[Grid]]) -> int:
    trials = _planned_trials(options, grids)
    check_results(options.output)

    from mint.cache import Cache
    from mint.tracking import Tracker, tracking_uri

    tracker = Tracker(tracking_uri(options.tracking_uri))
    cache = Cache(cache_folder(options.cache_dir))
    experiment = trials[0].experiment
    concurrent = options.max_concurrent or max(1, (os.cpu_count() or 1) // experiment.threads)
    delivered = tracker.finished_keys(experiment.name)
    missing = [trial for trial in trials if trial.key not in delivered]
    to_run = [trial for trial in missing if not cache.folder("trials", trial.key).exists()]
    waiting = {trial.key for trial in to_run}
    print(
        f"{name} of {experiment.name}: {len(trials)} trials, {len(trials) - len(to_run)} already "
        f"finished, {len(to_run)} to run, {min(concurrent, max(1, len(to_run)))} at a time",
        flush=True,
    )
    if options.dry_run:
        for trial in trials:
            print(f"  {trial.name}{'' if trial.key in waiting else '  (finished)'}")
        return 0

    experiment_id = tracker.prepare(experiment.name)
    failed = reached = 0
    if missing:
        from mint.sweep import SweepSettings, deliver, run_sweep

        settings = SweepSettings(
            name=name,
            data_dir=data_folder(options.data_dir).absolute(),
            cache=cache,
            tracking_uri=tracker.uri,
            max_concurrent=concurrent,
            gpus_per_trial=options.gpus_per_trial,
            init=options.init and options.init.absolute(),
        )
        deliver([trial for trial in missing if trial.key not in waiting], settings)
        if to_run:
            outcome = run_sweep(to_run, settings, on_trial=_Progress(len(to_run)))
            failed, reached = len(outcome.failed), len(outcome.done) + len(outcome.failed)
    rebuild_report(options.output, tracker)
    show_runs(tracker, experiment_id)
    if reached < len(to_run):
        print(
            f"stopped with {len(to_run) - reached} trials to run; the same command carries on",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    if failed:
        print(f"{failed} of {len(to_run)} trials failed", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _planned_trials(
    options: argparse.Namespace, grids: Mapping[str, Sequence[Grid]]
) -> list[TrialConfig]:
    experiment = chosen_experiment(options)
    axes = {
        "groups": options.groups,
        "samples_per_class": options.samples_per_class,
        "upper_limits": options.upper_limits,
    }
    given = {axis: tuple(values) for axis, values in axes.items() if values}
    if options.bootstraps:
        given["bootstraps"] = tuple(options.bootstraps)
    blocks = [grid.model_copy(update=given) for grid in grids.get(experiment.name, ())]
    if not blocks:
        absent = [f"--{axis.replace('_', '-')}" for axis in axes if axis not in given]
        if absent:
            raise InputError(
                f"--experiment {options.experiment}: this sweep has no grid of its own for it, so "
                f"{', '.join(absent)} must be given"
            )
        blocks = [Grid.model_validate(given)]
    points = [point for block in blocks for point in block.points()]
    distinct = [point for i, point in enumerate(points) if point not in points[:i]]

    from mint.networks import source_digest
    from mint.sources import is_absent, load_source
    from mint.trial import check_trials

    data_dir = data_folder(options.data_dir)
    network_digest = source_digest(experiment.network)
    init = initial_weights(options.init, experiment)
    trials = [
        TrialConfig(
            experiment=experiment,
            **point,
            seed=seed,
            data_digest="unknown",
            network_digest=network_digest,
            init=init,
        )
        for seed in dict.fromkeys(options.seeds)
        for point in distinct
    ]
    check_trials(trials, None, options.init)
    _check_gpus(options.gpus_per_trial)
    if options.dry_run and is_absent(experiment.data, data_dir):
        print(f"{experiment.data.name} is not in {data_dir} yet; the sweep would download it")
        return trials
    source = load_source(experiment.data, data_dir)
    trials = [trial.model_copy(update={"data_digest": source.digest}) for trial in trials]
    check_trials(trials, source)
    return trials


def _check_gpus(share: float) -> None:
    if share == 0:
        return

    import torch

    cards = torch.cuda.device_count()
    if share > cards or (share > 1 and share != int(share)):
        raise InputError(
            f"--gpus-per-trial {share:g}: this machine has {cards} GPUs; allowed are 0 for the "
            "CPU, a share of a card up to 1, and whole numbers of cards"
        )


class _Progress:
    """Prints a line for every trial that ends."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._start = time.monotonic()
        self._ended = 0

    def __call__(self, config: TrialConfig, result: "TrialResult | str", seconds: float) -> None:
        self._ended += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self._ended * (self._trials - self._ended)
        width = len(str(self._trials))
        if isinstance(result, str):
            what = f"FAILED: {result}"
        else:
            what = (
                f"pruned {result.params_pruned:6.2f}%  accuracy {result.accuracy:.2f}%  "
                f"(baseline {result.baseline_accuracy:.2f}%)"
            )
        print(
            f"[{self._ended:{width}}/{self._trials}] {config.name:<24} {what}  "
            f"{duration(seconds)}, about {duration(left)} left",
            flush=True,
        )
