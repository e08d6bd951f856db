"""The command line of a sweep: mint sweep NAME, or a script of its own."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mint.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Parser,
    add_experiment,
    add_folders,
    add_results,
    check_how_much,
    chosen_experiment,
    criterion,
    fraction,
    gpu_share,
    guarded,
    natural,
    positive,
    show_runs,
    tracking_uri,
)
from mint.config.grid import Grid, SweepDefinition
from mint.config.locations import cache_folder, data_folder
from mint.config.schema import CRITERIA, Experiment
from mint.errors import InputError
from mint.reporting.folder import check_results

# Ray, MLflow and torch take seconds to import: each is left until it is needed.
if TYPE_CHECKING:
    from mint.orchestration.display import Lines
    from mint.orchestration.settings import SweepOutcome, SweepRequest
    from mint.store.stage_cache import StageCache
    from mint.trial.setup import PlannedTrials

EPILOG = (
    "The same command again runs only what is missing. Exit codes: 0 all trials are finished, 1 "
    "some failed, 2 bad input, 130 stopped by Ctrl-C."
)
_SEARCHED_TRIALS = 30


def sweep_main(sweep: SweepDefinition, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a script for a sweep and return its exit code.

    Args:
        sweep: that it is for.
        arguments: of the command line.
    """
    parser = Parser(prog=f"{sweep.name}.py", description=sweep.question, epilog=EPILOG)
    add_sweep(parser, sweep)
    options = parser.parse_args(arguments)
    words = ["python", *sys.argv] if arguments is None else [parser.prog, *arguments]
    return guarded(parser.prog, lambda: run_sweep_command(options, sweep, words))


def add_sweep(parser: argparse.ArgumentParser, sweep: SweepDefinition) -> None:
    """Add the options of a sweep."""
    add_experiment(parser, default=next(iter(sweep.grids)))
    axes = parser.add_argument_group(
        "axes", "Each replaces that axis of the sweep's own grid, which --dry-run shows."
    )
    axes.add_argument(
        "--criterion",
        type=criterion,
        nargs="+",
        dest="criteria",
        metavar="NAME",
        help=f"what scores the blocks: {', '.join(CRITERIA)}; a criterion has one trial for all "
        "values of an axis that its scores do not depend on (default: the sweep's own)",
    )
    axes.add_argument(
        "--groups",
        type=positive,
        nargs="+",
        metavar="N",
        help="groups of filters in each layer (default: the sweep's own)",
    )
    axes.add_argument(
        "--samples-per-class",
        type=positive,
        nargs="+",
        metavar="N",
        help="training images of every class that the scores are estimated from "
        "(default: the sweep's own)",
    )
    axes.add_argument(
        "--upper-limits",
        nargs="+",
        metavar="LIMIT",
        help="largest share of a layer's weights that may be pruned: none, 0 to 1, or g/N and "
        "(g/N)^2 with g the groups (default: the sweep's own)",
    )
    axes.add_argument(
        "--fractions",
        type=fraction,
        nargs="+",
        metavar="SHARE",
        help="shares of the counted weights to prune, 0 to 1, instead of searching for the most "
        "that keeps the accuracy; with --search optuna the least and the most (default: the "
        "sweep's own, else the experiment's)",
    )
    axes.add_argument(
        "--bootstraps",
        type=positive,
        nargs="+",
        metavar="N",
        help="estimates that the scores are the mean of; with --reliability, the most of them "
        "(default: the experiment's)",
    )
    axes.add_argument(
        "--seeds",
        type=natural,
        nargs="+",
        metavar="N",
        default=list(sweep.seeds),
        help="of everything that is drawn; a trial each "
        f"(default: {' '.join(map(str, sweep.seeds))})",
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--search",
        choices=("grid", "asha", "optuna"),
        default="grid",
        help="grid: every trial of the axes. asha: likewise, but a trial whose retraining falls "
        "behind the best third is stopped (needs one of --fractions). optuna: look among the axes "
        "for high validation accuracy and many params pruned (default: grid)",
    )
    search.add_argument(
        "--trials",
        type=positive,
        metavar="N",
        help=f"how many --search optuna runs (default: {_SEARCHED_TRIALS})",
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
    running.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="run on a Ray cluster that is there: HOST:PORT of its head, or auto for that of this "
        "machine (default: RAY_ADDRESS, else this machine alone)",
    )
    running.add_argument(
        "--storage",
        metavar="URI",
        help="folder where the nodes of a cluster share finished stages: one that all see, or "
        "s3://BUCKET/FOLDER and what else fsspec knows (default: none, for one machine)",
    )
    showing = running.add_mutually_exclusive_group()
    showing.add_argument(
        "--watch",
        action="store_true",
        help="show a table of the running trials: stage, epoch, accuracy, params pruned, time left",
    )
    showing.add_argument(
        "--quiet", action="store_true", help="print nothing but errors and a last line"
    )
    showing.add_argument(
        "--log",
        choices=("lines", "json"),
        default="lines",
        help="json: an object a line, for scripts: its event (plan, started, search_step, ended, "
        "note, end) and the facts of it (default: lines)",
    )
    add_folders(running)
    running.add_argument(
        "--dry-run",
        action="store_true",
        help="print the trials, how long they take and how much memory, and run nothing",
    )
    add_results(parser)


def run_sweep_command(
    options: argparse.Namespace, sweep: SweepDefinition, words: Sequence[str]
) -> int:
    """Run what the options of a sweep ask for, and return the exit code.

    Args:
        options: that add_sweep has added.
        sweep: that they are of.
        words: of the command line, the program first.

    Raises:
        InputError: it cannot be done.
    """
    file = chosen_experiment(options)
    experiment = file.experiment
    references = [file.reference] if file.reference else []
    _check_search(options, experiment)
    store = tracking_uri(options.tracking_uri)
    address = _ray_address(options)
    blocks = _blocks(options, experiment, sweep.grids)
    check_results(options.output, references)

    from mint.orchestration.driver import run_sweep, show_plan
    from mint.orchestration.resources import check_resources
    from mint.orchestration.settings import SweepRequest
    from mint.store.remote import RemoteStore
    from mint.store.stage_cache import StageCache

    check_resources(options.gpus_per_trial, address)
    storage = RemoteStore(options.storage) if options.storage else None
    cache = StageCache(cache_folder(options.cache_dir), storage)
    request = SweepRequest(
        name=sweep.name,
        command=words,
        experiment=experiment,
        planned=_checked_trials(options, experiment, blocks, cache),
        tracking_uri=store,
        cache=cache,
        data_dir=data_folder(options.data_dir),
        output=options.output,
        references=references,
        search=options.search,
        space=blocks[0] if options.search == "optuna" else None,
        draws=options.trials or _SEARCHED_TRIALS,
        init=options.init,
        gpus_per_trial=options.gpus_per_trial,
        max_concurrent_trials=options.max_concurrent,
        ray_address=address,
        live=options.watch,
    )
    display = _display(options)
    if options.dry_run:
        show_plan(request, display)
        return 0
    return _report_outcome(request, run_sweep(request, display), display)


def _report_outcome(request: "SweepRequest", outcome: "SweepOutcome", display: "Lines") -> int:
    """Print what the user has to know of an outcome, and return the exit code."""
    from mint.tracking.mlflow_store import MlflowStore
    from mint.trial.provenance import Provenance

    if outcome.interrupted:
        command = Provenance.of_this_process(request.name, request.command).command
        display.say(f"this carries on:\n  {command}")
        return EXIT_INTERRUPTED
    if outcome.unwritten:
        print(
            f"the runs of {outcome.unwritten} trials are behind, for the tracking store could not "
            f"be written to ({outcome.store_error}); mint sync delivers them",
            file=sys.stderr,
        )
    elif outcome.store_error:
        print(f"the tables are made without the store: {outcome.store_error}", file=sys.stderr)
    if outcome.failed:
        print(f"{outcome.failed} of {outcome.to_run} trials failed", file=sys.stderr)
    show_runs(MlflowStore(request.tracking_uri), outcome.experiment_id, display.say)
    return 0 if outcome.complete else EXIT_FAILED


def _display(options: argparse.Namespace) -> "Lines":
    from mint.orchestration.display import JsonLines, Lines, Quiet, Watch

    if options.watch:
        return Watch()
    if options.quiet:
        return Quiet()
    return JsonLines() if options.log == "json" else Lines()


def _ray_address(options: argparse.Namespace) -> str | None:
    return options.ray_address or os.environ.get("RAY_ADDRESS") or None


def _check_search(options: argparse.Namespace, experiment: Experiment) -> None:
    """Refuse options that make no sense together."""
    given = options.fractions or ()
    check_how_much(options, options.fractions, "--fractions")
    if options.trials and options.search != "optuna":
        raise InputError(
            f"--trials {options.trials}: is for --search optuna; the axes say how many trials "
            f"--search {options.search} has"
        )
    if options.search == "asha" and (
        len(set(given)) > 1 or (not given and experiment.search.fraction is None)
    ):
        raise InputError(
            "--search asha: compares accuracies, so all trials must prune the same; allowed is "
            "exactly one of --fractions"
        )
    if options.search == "optuna" and (len(set(given)) != 2 or len(set(options.seeds)) > 1):
        raise InputError(
            "--search optuna: draws shares to prune between two --fractions, the least and the "
            "most, for one of --seeds"
        )


def _blocks(
    options: argparse.Namespace, experiment: Experiment, grids: Mapping[str, Sequence[Grid]]
) -> list[Grid]:
    """Return the axes: those of the sweep's own grid, with the options' in their place."""
    axes = {
        "groups": options.groups,
        "samples_per_class": options.samples_per_class,
        "upper_limits": options.upper_limits,
    }
    given = {axis: tuple(values) for axis, values in axes.items() if values}
    for axis in ("fractions", "bootstraps", "criteria"):
        if getattr(options, axis):
            given[axis] = tuple(getattr(options, axis))
    if options.max_drop is not None:  # a search, whatever shares the sweep's own grid has
        given["fractions"] = (None,)
    blocks = [grid.model_copy(update=given) for grid in grids.get(experiment.name, ())]
    if not blocks:
        absent = [f"--{axis.replace('_', '-')}" for axis in axes if axis not in given]
        if absent:
            raise InputError(
                f"--experiment {options.experiment}: this sweep has no grid of its own for it, so "
                f"{', '.join(absent)} must be given"
            )
        criteria = next(iter(grids.values()))[0].criteria  # that the sweep compares
        blocks = [Grid.model_validate({"criteria": criteria} | given)]
    if options.search != "optuna":
        return blocks
    everything = {
        axis: tuple(dict.fromkeys(value for block in blocks for value in getattr(block, axis)))
        for axis in Grid.model_fields
    }
    return [Grid.model_validate(everything)]


def _checked_trials(
    options: argparse.Namespace, experiment: Experiment, blocks: Sequence[Grid], cache: "StageCache"
) -> "PlannedTrials":
    """Return all trials of the axes; the unfinished ones were checked."""
    from mint.trial.setup import plan_trials

    planned = plan_trials(
        experiment,
        [
            {**point, "seed": seed}
            for seed in options.seeds
            for block in blocks
            for point in block.points()
        ],
        init=options.init,
        device="cuda" if options.gpus_per_trial else "cpu",
        data_dir=data_folder(options.data_dir),
        is_finished=lambda key: cache.find("trials", key) is not None,
        download=not options.dry_run,
    )
    if planned.source is None:
        print(
            f"{experiment.data.name} is not in {data_folder(options.data_dir)} yet; the sweep "
            "would download it"
        )
    return planned
