"""The command line of a sweep: mint sweep NAME, or the sweep's own script."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number, mutually_exclusive

from mint.cli.app import EXIT_FAILED, EXIT_INTERRUPTED, SETTINGS, run_program
from mint.cli.options import (
    AXES,
    EXPERIMENT,
    MY_RESULTS,
    RUNNING,
    SEARCH,
    Criterion,
    ExperimentName,
    ExperimentOptions,
    Flag,
    Output,
    Positive,
    Seed,
    Several,
    Share,
    TrackingUri,
    Words,
    criterion_names,
    read_chosen_experiment,
    show_runs,
    store_uri,
)
from mint.config.axes import Compensate, Grouping, Retraining
from mint.config.grid import Grid, SweepDefinition, bundled_sweeps, union_of
from mint.config.locations import cache_folder, data_folder
from mint.errors import InputError

# Ray, MLflow and torch take seconds to import: each is imported when a sweep runs.
if TYPE_CHECKING:
    from mint.config.schema import Experiment
    from mint.orchestration.display import Lines
    from mint.orchestration.sweep_settings import SweepOutcome, SweepRequest, SweepSettings
    from mint.store.stage_cache import StageCache

_DISPLAY = Group.create_ordered("Display", validator=mutually_exclusive)
Gpus = Annotated[float, Parameter(validator=Number(gte=0, lte=1024), metavar="SHARE")]
_EPILOGUE = """The same command again runs only what is missing. Exit codes: 0 all trials are
finished, 1 some failed, 2 bad input, 130 stopped by Ctrl-C."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SweepOptions(ExperimentOptions):
    """The axes of a sweep, and how its trials run. Each axis replaces that of the sweep's grid.

    An axis without values is (), not None: cyclopts takes the word none for None.
    """

    criteria: Annotated[
        tuple[Criterion, ...],
        Several,
        Parameter(name="--criterion", group=AXES, completer=criterion_names),
    ] = ()
    """Score the blocks: see mint run --help. One trial stands for all values of an axis that a
    criterion does not use (default: the sweep's)."""

    groups: Annotated[tuple[Positive, ...], Several, Parameter(group=AXES)] = ()
    """Groups of filters in each layer, such as 5 10 20 (default: the sweep's)."""

    grouping: Annotated[tuple[Grouping, ...], Several, Parameter(group=AXES)] = ()
    """Filters of a group: neighbours, random ones, or clustered by their weights, so that few
    blocks are heavy (default: the sweep's)."""

    samples_per_class: Annotated[tuple[Positive, ...], Several, Parameter(group=AXES)] = ()
    """Training images of each class for the scores (default: the sweep's)."""

    upper_limits: Annotated[
        tuple[str, ...], Several, Parameter(group=AXES, metavar="LIMIT...")
    ] = ()
    """Largest pruned share of a layer: none, 0 to 1, or g/N and (g/N)^2 with g the groups
    (default: the sweep's)."""

    fractions: Annotated[tuple[Share, ...], Several, Parameter(group=AXES)] = ()
    """Shares of the counted weights to prune, instead of a search; for --search optuna the least
    and the most (default: the sweep's, else the experiment's)."""

    retraining: Annotated[tuple[Retraining, ...], Several, Parameter(group=AXES)] = ()
    """Retrain the pruned networks not at all, lightly or in full (default: the sweep's)."""

    compensate: Annotated[tuple[Compensate, ...], Several, Parameter(group=AXES)] = ()
    """Refit the kept weights to the dense network by least squares before retraining: no, yes or
    both (default: the sweep's)."""

    bootstraps: Annotated[tuple[Positive, ...], Several, Parameter(group=AXES)] = ()
    """Estimates that are averaged to a score; with estimate.reliability set, their largest number
    (default: the experiment's)."""

    search: Annotated[Literal["grid", "asha", "optuna"], Parameter(group=SEARCH)] = "grid"
    """grid runs every trial of the axes. asha stops those whose retraining falls behind the best
    third; it needs one of --fractions. optuna draws trials with high accuracy and few weights."""

    trials: Annotated[Positive | None, Parameter(group=SEARCH)] = None
    """Number of trials that --search optuna draws (default: 30)."""

    max_concurrent: Annotated[Positive | None, Parameter(group=RUNNING)] = None
    """Trials that run at the same time (default: as many as there are cores for)."""

    gpus_per_trial: Annotated[Gpus, Parameter(group=RUNNING)] = 0
    """GPUs of one trial; with 0.5 two trials share a GPU, with 0 they run on the CPU."""

    ray_address: Annotated[str | None, Parameter(group=RUNNING, metavar="ADDRESS")] = None
    """A running Ray cluster: HOST:PORT of its head, auto for this machine's, or local for none
    (default: RAY_ADDRESS, else local: this machine alone)."""

    storage: Annotated[str | None, Parameter(group=RUNNING, metavar="URI")] = None
    """Folder or URI that fsspec knows, such as s3://BUCKET/FOLDER, where the nodes of a cluster
    share finished stages (default: none, for one machine)."""

    dry_run: Annotated[Flag, Parameter(group=RUNNING)] = False
    """Print the trials, their time and their memory, and run nothing."""

    watch: Annotated[Flag, Parameter(group=_DISPLAY)] = False
    """Show a live table of the running trials."""

    quiet: Annotated[Flag, Parameter(group=_DISPLAY)] = False
    """Print only errors and a last line."""

    log: Annotated[Literal["json"] | None, Parameter(group=_DISPLAY)] = None
    """json prints an object per line for scripts (default: lines for a reader)."""

    output: Output = MY_RESULTS

    tracking_uri: TrackingUri = None


def sweep_main(sweep: SweepDefinition, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a sweep's script and return its exit code."""
    name = f"{sweep.name}.py"
    program = App(name, help_epilogue=_EPILOGUE, **SETTINGS)
    program.default(sweep_command(sweep))
    if arguments is None:
        return run_program(program, sys.argv[1:], ["python", *sys.argv])
    return run_program(program, arguments, [name, *arguments])


def sweep_command(sweep: SweepDefinition) -> Callable[..., int]:
    """Return the command that runs a sweep."""
    seeds_help = "Seeds of every random draw; a trial for each."
    own_seeds = Parameter(
        group=AXES, help=seeds_help, show_default=lambda seeds: " ".join(map(str, seeds))
    )
    first = next(iter(sweep.grids))

    def run(
        options: SweepOptions = SweepOptions(),
        *,
        experiment: ExperimentName = first,
        seeds: Annotated[tuple[Seed, ...], Several, own_seeds] = tuple(sweep.seeds),
        words: Words,
    ) -> int:
        display = _display(options)
        request = sweep_request(sweep, experiment, seeds, options, words, display)

        from mint.orchestration.sweep_driver import run_sweep, show_plan

        if options.dry_run:
            show_plan(request, display)
            return 0
        return _exit_code(run_sweep(request, display), request, display)

    run.__doc__ = f"{sweep.question}\n\nExample: mint sweep {sweep.name} --groups 5 20 --dry-run"
    return run


def sweep_request(
    sweep: SweepDefinition,
    name: str,
    seeds: Sequence[int],
    options: SweepOptions,
    words: Sequence[str],
    display: "Lines",
) -> "SweepRequest":
    """Return the sweep that the options describe, checked before anything runs.

    Args:
        sweep: its grids and its name.
        name: of the experiment, or its YAML file.
        seeds: of the trials.
        options: of the command.
        words: of the command line, which resume the sweep.
        display: shows the progress of the checks.
    """
    file = read_chosen_experiment(name, options, fractions=options.fractions or None)
    experiment = file.experiment
    _check_search(options, seeds, experiment)
    uri = store_uri(options.tracking_uri)
    grids = _grids(sweep, options, experiment.name)

    from mint.orchestration.display import check_progress

    display.say(f"planning {sweep.name} on {experiment.name}")

    from mint.orchestration.sweep_settings import SweepRequest
    from mint.reporting.folder import check_results
    from mint.store.remote import RemoteStore
    from mint.store.stage_cache import StageCache
    from mint.trial.setup import plan_trials

    check_results(options.output, file.references)
    storage = RemoteStore(options.storage) if options.storage else None
    if storage:
        storage.check()
    cache = StageCache(cache_folder(options.cache_dir), storage)
    data_dir = data_folder(options.data_dir)
    criteria = [name for grid in grids for name in grid.criteria]
    settings = _settings(sweep, experiment, criteria, options, cache, data_dir, words)
    plan = partial(
        plan_trials,
        experiment,
        [{**point, "seed": seed} for seed in seeds for grid in grids for point in grid.points()],
        init=options.init,
        device="cuda" if options.gpus_per_trial else "cpu",
        data_dir=data_dir,
        cache_root=cache.root,
        on_check=check_progress(display),
        is_finished=lambda key: cache.find("trials", key) is not None,
        download=not options.dry_run,
        at_once=settings.sharing_memory(options.max_concurrent),
    )
    planned = plan(recalling=True)
    if planned.layers and planned.is_recalled and not options.dry_run:
        planned = plan()  # before any work, the checks look at the data and the network themselves
    if planned.facts is None:
        print(f"{experiment.data.name} is not in {data_dir} yet; the sweep would download it")
    return SweepRequest(
        settings=settings,
        planned=planned,
        tracking_uri=uri,
        cache=cache,
        output=options.output,
        references=file.references,
        space=grids[0],
        draws=options.trials or 30,
        init=options.init,
        max_concurrent_trials=options.max_concurrent,
    )


def _settings(
    sweep: SweepDefinition,
    experiment: "Experiment",
    criteria: Sequence[str],
    options: SweepOptions,
    cache: "StageCache",
    data_dir: Path,
    words: Sequence[str],
) -> "SweepSettings":
    """Return the settings of the workers, checked."""
    from mint.orchestration.resources import check_resources
    from mint.orchestration.sweep_settings import SweepSettings
    from mint.trial.provenance import Provenance

    named = options.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    ray_address = None if named == "local" else named  # Ray's word for this machine alone
    check_resources(options.gpus_per_trial, ray_address)
    device = "cuda" if options.gpus_per_trial else "cpu"
    return SweepSettings(
        name=f"{sweep.name}-{experiment.name}",
        provenance=Provenance.of_this_process(sweep.name, words, device),
        data_dir=data_dir.absolute(),
        cache_root=cache.root,
        storage=cache.storage.uri if cache.storage else None,
        threads=experiment.threads,
        own_code=_own_code(experiment, criteria),
        gpus_per_trial=options.gpus_per_trial,
        search=options.search,
        live=options.watch,
        ray_address=ray_address,
    )


def _own_code(experiment: "Experiment", criteria: Sequence[str]) -> list[str]:
    """Return the user's files and packages that a network and criteria depend on."""
    from mint.models.own_code import own_modules

    found = own_modules(experiment.network.name)
    if any(":" in name for name in criteria):
        from mint.pruning.own_criteria import criterion_modules

        found += [path for name in criteria for path in criterion_modules(name)]
    return sorted({str(path) for path in found})


def _grids(sweep: SweepDefinition, options: SweepOptions, experiment: str) -> list[Grid]:
    """Return the sweep's grids with the axes of the options; one grid for Optuna."""
    axes = {axis: getattr(options, axis) for axis in Grid.model_fields}
    if any(change.startswith("search.") for change in options.changes or ()):
        axes["fractions"] = (None,)  # the experiment's search replaces the grid's fractions
    axes["criteria"] = resolved_criteria(options.criteria)
    grids = sweep.grids_of(experiment, axes)
    return [union_of(grids)] if options.search == "optuna" else grids


def resolved_criteria(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of criteria, a user's own with the digest of its source."""
    if not any(":" in name for name in names):
        return tuple(names)
    from mint.pruning.own_criteria import resolved_criterion

    return tuple(map(resolved_criterion, names))


def _check_search(options: SweepOptions, seeds: Sequence[int], experiment: "Experiment") -> None:
    """Raise InputError for options that do not fit the search."""
    fractions = set(options.fractions)
    if options.trials and options.search != "optuna":
        problem = f"is for --search optuna; the axes give the trials of --search {options.search}"
        raise InputError(problem, parameter="trials", value=options.trials)
    given = len(fractions) == 1 or (not fractions and experiment.search.fraction is not None)
    if options.search == "asha" and not given:
        problem = "compares accuracies, so all trials must prune the same: give one of --fractions"
        raise InputError(problem, parameter="search", value="asha")
    if options.search == "optuna" and (len(fractions) != 2 or len(set(seeds)) > 1):
        problem = "draws the pruned fraction between two --fractions, for one of --seeds"
        raise InputError(problem, parameter="search", value="optuna")


def _display(options: SweepOptions) -> "Lines":
    from mint.orchestration.display import JsonLines, Lines, Quiet, Watch

    if options.watch:
        return Watch()
    if options.quiet:
        return Quiet()
    return JsonLines() if options.log else Lines()


def _exit_code(outcome: "SweepOutcome", request: "SweepRequest", display: "Lines") -> int:
    """Print how a sweep ended and how it goes on, and return the exit code."""
    for problem in outcome.problems:
        print(problem, file=sys.stderr)
    if outcome.interrupted:
        display.say(f"this resumes it:\n  {request.settings.provenance.command}")
        return EXIT_INTERRUPTED
    show_runs(request.tracking_uri, outcome.experiment_id, display.say)
    return EXIT_FAILED if outcome.problems else 0


def benchmark(
    options: SweepOptions = SweepOptions(),
    *,
    networks: Annotated[
        tuple[str, ...],
        Several,
        Parameter(group=EXPERIMENT, metavar="NAME...", help="Experiments (default: all of it)."),
    ] = (),
    words: Words,
) -> int:
    """Run the sweep benchmark for each network; mint.cli.app has its help."""
    definition = bundled_sweeps()["benchmark"]
    run = sweep_command(definition)
    worst = 0
    for name in networks or definition.grids:
        code = run(options, experiment=name, words=words)
        if code == EXIT_INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


app = App("sweep", help_epilogue=_EPILOGUE, group_commands="Sweeps")
for _name, _definition in bundled_sweeps().items():
    app.command(sweep_command(_definition), name=_name)
