"""The command mint study: one question about one network, answered within a budget of time."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from mint.cli.app import EXIT_FAILED
from mint.cli.options import (
    AXES,
    EXPERIMENT,
    RUNNING,
    Criterion,
    ExperimentName,
    ExperimentOptions,
    Output,
    Several,
    TrackingUri,
    Words,
    criterion_names,
    read_chosen_experiment,
)
from mint.cli.sweep import Gpus, SweepOptions, resolved_criteria, sweep_request
from mint.config.grid import Grid, SweepDefinition
from mint.config.locations import cache_folder, data_folder
from mint.errors import InputError

if TYPE_CHECKING:
    from mint.config.loading import TrialDefaults
    from mint.config.schema import DataConfig, Experiment
    from mint.data.facts import DataFacts
    from mint.orchestration.sweep_settings import SweepRequest

_QUESTION = "How much of a network can be pruned at a stated loss of accuracy?"
_EXPERIMENT_HELP = """Settings of training and scores: an experiment that comes with mint, or a YAML
file (default: own_network with --model, else digits_mlp)."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_MOST_VALIDATION_IMAGES = 5000


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StudyOptions(ExperimentOptions):
    """What is studied, and for how long."""

    data: Annotated[str | None, Parameter(group=EXPERIMENT, metavar="DATA")] = None
    """Your own data: imagefolder:FOLDER, parquet:FOLDER, or mnist, cifar10 or digits. A fifth of
    the training images is held out (default: the experiment's)."""

    loss: Annotated[
        float, Parameter(group=AXES, validator=Number(gt=0, lte=100), metavar="POINTS")
    ] = 1.0
    """Accuracy that may be lost, in percentage points."""

    budget: Annotated[str, Parameter(group=RUNNING, metavar="TIME")] = "3m"
    """Time that seeds, shares and retraining are planned for, such as 90s, 30m or 2h."""

    criteria: Annotated[
        tuple[Criterion, ...],
        Several,
        Parameter(name="--criterion", group=AXES, completer=criterion_names, show_default=" ".join),
    ] = ("mint-gaussian", "block-magnitude", "random")
    """Score the blocks: see mint run --help."""

    gpus_per_trial: Annotated[Gpus, Parameter(group=RUNNING)] = 0
    """GPUs of one trial; with 0 it runs on the CPU."""

    output: Output = Path("my-study")

    tracking_uri: TrackingUri = None


_NO_OPTIONS = StudyOptions()


def study(
    options: StudyOptions = _NO_OPTIONS,
    *,
    experiment: Annotated[
        ExperimentName | None, Parameter(group=EXPERIMENT, help=_EXPERIMENT_HELP)
    ] = None,
    words: Words,
) -> int:
    """Run a study; mint.cli.app has its help."""
    name = str(experiment or ("own_network" if options.model or options.data else "digits_mlp"))
    for given, needed in (("model", "data"), ("data", "model")):
        if getattr(options, given) and not (getattr(options, needed) or experiment):
            problem = f"must be given with --{given}, or an experiment that has it"
            raise InputError(problem, parameter=needed)
    budget = _seconds(options.budget)
    if searched := [change for change in options.changes or () if change.startswith("search.")]:
        problem = "cannot be set: a study prunes at shares of its own"
        raise InputError(problem, parameter="set", value=searched[0])
    options, grid, chosen = _described(name, options)

    from mint.orchestration.display import Lines

    display = Lines()

    def sweep_of(grid: Grid, seeds: Sequence[int]) -> "SweepRequest":
        definition = SweepDefinition("study", _QUESTION, {chosen.name: [grid]})
        return sweep_request(definition, name, seeds, _sweep_options(options), words, display)

    from mint.orchestration.study import StudyRequest, run_study

    # As in mint run, whoever names the experiment names its network.
    request = StudyRequest(sweep_of, grid, budget, options.loss, chosen.network.name)
    problems = run_study(request, display)
    for problem in problems:
        print(problem, file=sys.stderr)
    return EXIT_FAILED if problems else 0


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 90s, 30m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]):
        raise InputError("must be a time, such as 90s, 30m or 2h", parameter="budget", value=text)
    return float(found[1]) * _UNITS[found[2]]


def _described(name: str, options: StudyOptions) -> tuple[StudyOptions, Grid, "Experiment"]:
    """Return the options with --data and --init as changes, the axes, and the experiment."""
    experiment, defaults = _read(name, options)
    added: dict[str, object] = {}
    if options.data:
        read = _changed(options, {"data.name": options.data, "data.validation_size": 1})
        facts = _facts(_read(name, read)[0].data, options)
        held_out = max(facts.classes, min(facts.images // 5, _MOST_VALIDATION_IMAGES))
        added = {"data.name": options.data, "data.validation_size": held_out}
    if options.init:
        epochs = experiment.retraining_settings("full").epochs
        added |= {"training.epochs": 0, "retraining.epochs": epochs}
    options = _changed(options, added)
    experiment, samples = _read(name, options)[0], defaults.samples_per_class
    if options.data:
        samples = min(samples, facts.smallest_class(experiment.data.validation_size))
    grid = Grid(
        groups=(defaults.groups,),
        grouping=("clustered",),
        samples_per_class=(samples,),
        upper_limits=(defaults.upper_limit,),
        criteria=resolved_criteria(options.criteria),
    )
    return options, grid, experiment


def _read(name: str, options: StudyOptions) -> tuple["Experiment", "TrialDefaults"]:
    file = read_chosen_experiment(name, options)
    if file.defaults is None:
        problem = f"{name} has no section trial with groups and samples_per_class"
        raise InputError(problem, parameter="experiment")
    return file.experiment, file.defaults


def _changed(options: StudyOptions, added: Mapping[str, object]) -> StudyOptions:
    """Return the options with changes of the experiment besides those that the user gave."""
    given = options.changes or ()
    keys = {change.partition("=")[0] for change in given}
    # JSON is YAML, too, whatever characters a folder's name has.
    new = [f"{key}={json.dumps(value)}" for key, value in added.items() if key not in keys]
    return replace(options, changes=(*given, *new))


def _facts(data: "DataConfig", options: StudyOptions) -> "DataFacts":
    """Return the facts of a data set, recalled while none of its files has changed."""
    from mint.data.facts import recall_facts, remember_facts

    cache, folder = cache_folder(options.cache_dir), data_folder(options.data_dir)
    if known := recall_facts(data, folder):
        return known

    from mint.data.datasets import load_source
    from mint.orchestration.display import Lines, check_progress

    print(f"reading {data.name}", flush=True)
    facts = load_source(data, folder, cache=cache, on_check=check_progress(Lines())).facts
    remember_facts(facts, data, folder)
    return facts


def _sweep_options(options: StudyOptions) -> SweepOptions:
    shared = {field.name for field in fields(SweepOptions)} - {"criteria"}
    given = {name: value for name, value in vars(options).items() if name in shared}
    return SweepOptions(**given)
