"""Options that several commands share: their types, ranges, groups and help."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

from mint.config.axes import Compensate, Grouping, Retraining
from mint.errors import InputError, allowed, without_secrets

# Ray, MLflow, torch and pydantic take long to import: a command imports them when it runs.
if TYPE_CHECKING:
    from mint.config.loading import ExperimentFile

EXPERIMENT = Group.create_ordered("Experiment")
AXES = Group.create_ordered("Axes of the trials")
SEARCH = Group.create_ordered("Search")
RUNNING = Group.create_ordered("Running")
RESULTS = Group.create_ordered("Results")
_EXPERIMENT_HELP = "Name of an experiment that comes with mint, or a YAML file."
_STORE_HELP = "MLflow's store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)."
_LARGEST = 2**31 - 1


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value}: must be a whole number") from None


def _whole_numbers(least: int, most: int) -> Parameter:
    """Return the parameter of a whole number; cyclopts itself would round 2.5."""
    return Parameter(converter=_whole_number, validator=Number(gte=least, lte=most), metavar="N")


def _experiment_names(_: object) -> list[str]:
    from mint.config.loading import experiment_names

    return experiment_names()


def criterion_names(_: object) -> list[str]:
    """Return the names of all criteria, for completion and checks."""
    from mint.config.schema import CRITERIA

    return list(CRITERIA)


def _check_criterion(_: object, name: str) -> None:
    from mint.config.schema import is_criterion

    if not is_criterion(name):
        known = allowed(name, criterion_names(_))
        raise ValueError(f"{known}, or MODULE:FUNCTION of your own")


Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Positive = Annotated[int, _whole_numbers(1, _LARGEST)]
Seed = Annotated[int, _whole_numbers(0, _LARGEST)]
Port = Annotated[int, _whole_numbers(1, 65535)]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1), metavar="SHARE")]
Folder = Annotated[Path, Parameter(metavar="DIR")]
ExperimentName = Annotated[
    str,
    Parameter(group=EXPERIMENT, metavar="NAME", completer=_experiment_names, help=_EXPERIMENT_HELP),
]
Criterion = Annotated[
    str, Parameter(metavar="NAME", completer=criterion_names, validator=_check_criterion)
]
# Several values after one option, as in --groups 5 10 20.
Several = Parameter(consume_multiple=(1, None), negative=(), show_default=False)
Changes = Parameter(name="--set", metavar="KEY=VALUE", negative=())
# Words of the command line, program first: not an option, see mint.cli.app.run_program.
Words = Annotated[Sequence[str], Parameter(parse=False)]
CacheDir = Annotated[
    Folder | None,
    Parameter(group=RUNNING, help="Finished stages (default: MINT_CACHE_DIR, else ./.mint)."),
]
TrackingUri = Annotated[str | None, Parameter(group=RESULTS, metavar="URI", help=_STORE_HELP)]
Output = Annotated[
    Folder, Parameter(group=RESULTS, help="Results: RESULTS.md, trials.csv and the figures.")
]
# Not results/: in a clone that is the project's committed record, which no trial changes by chance.
MY_RESULTS = Path("my-results")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """What differs from the experiment's file, and where its data and stages are."""

    smoke: Annotated[Flag, Parameter(group=EXPERIMENT)] = False
    """Shrink the experiment to run in under a minute on a CPU, to see that everything works."""

    model: Annotated[str | None, Parameter(group=EXPERIMENT, metavar="MODULE:FUNCTION")] = None
    """Your own network, all of whose layer pairs are pruned: a function annotated to return an
    nn.Module, or a class of it (default: the experiment's network)."""

    changes: Annotated[tuple[str, ...] | None, Changes, Parameter(group=EXPERIMENT)] = None
    """Set a value by its key in the experiment's file, such as training.epochs=3 or
    search.margin=0.5. Repeat it for several values (default: the experiment's values)."""

    init: Annotated[Path | None, Parameter(group=EXPERIMENT, metavar="FILE")] = None
    """Initial weights of the baseline: safetensors, or a state_dict that torch saved (default:
    random weights)."""

    data_dir: Annotated[Folder | None, Parameter(group=RUNNING)] = None
    """Folder of the data sets (default: MINT_DATA_DIR, else ./data)."""

    cache_dir: CacheDir = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrialOptions(ExperimentOptions):
    """One trial of an experiment."""

    experiment: ExperimentName

    criterion: Annotated[Criterion, Parameter(group=AXES)] = "mint"
    """Scores the blocks: mint, mint-unconditional, mint-gaussian, mint-gaussian-unconditional,
    random, block-magnitude, magnitude, l1-filters, bn-scale, taylor, activation-magnitude, or
    MODULE:FUNCTION of your own."""

    groups: Annotated[Positive | None, Parameter(group=AXES)] = None
    """Groups of filters in each layer (default: the experiment's)."""

    grouping: Annotated[Grouping, Parameter(group=AXES)] = "contiguous"
    """Filters of a group: neighbours, random ones, or clustered by their weights, so that few
    blocks are heavy."""

    samples_per_class: Annotated[Positive | None, Parameter(group=AXES)] = None
    """Training images of each class for the scores (default: the experiment's)."""

    upper_limit: Annotated[str | None, Parameter(group=AXES, metavar="LIMIT")] = None
    """Largest pruned share of a layer: none, or 0 to 1 (default: the experiment's)."""

    bootstraps: Annotated[Positive | None, Parameter(group=AXES)] = None
    """Estimates that are averaged to a score; with estimate.reliability set, their largest
    number (default: the experiment's)."""

    retraining: Annotated[Retraining, Parameter(group=AXES)] = "full"
    """Retrain the pruned network not at all, lightly (by default three epochs at a learning rate of
    0.01) or in full."""

    compensate: Annotated[Compensate, Parameter(group=AXES)] = "no"
    """Refit the kept weights to the dense network by least squares before retraining: no or yes."""

    fraction: Annotated[Share | None, Parameter(group=AXES)] = None
    """Share of the counted weights to prune, instead of a search (default: the experiment's)."""

    seed: Annotated[Seed, Parameter(group=AXES)] = 0
    """Seeds every random draw."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=RUNNING)] = "auto"
    """Device that trains; auto takes a GPU if there is one. Scores are estimated on the CPU, unless
    the experiment sets estimate.device to cuda."""


def _read_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Return the values of --set by their dotted keys."""
    import yaml

    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not (key and equals):
            problem = "must be KEY=VALUE with a YAML value, such as training.epochs=3"
            raise InputError(problem, parameter="set", value=change)
    return values


def read_chosen_experiment(
    name: str, options: ExperimentOptions, **axes: object
) -> "ExperimentFile":
    """Return the experiment with the changes of the options; they exclude axes of the search."""
    from mint.config.loading import read_experiment

    changes = _read_changes(options.changes or ())
    search = [change for change in options.changes or () if change.startswith("search.")]
    for axis, value in axes.items():
        if search and value is not None:
            problem = f"cannot be combined with --set {search[0]}: both say how much is pruned"
            raise InputError(problem, parameter=axis)
    return read_experiment(name, smoke=options.smoke, model=options.model, changes=changes)


def store_uri(chosen: str | None) -> str:
    """Return the URI of the store: the option's, the environment's or the default; check it."""
    from mint.tracking.preflight import reach_store

    uri = chosen or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    reach_store(uri)
    return uri


def show_runs(uri: str, experiment_id: str, say: Callable[[str], None] = print) -> None:
    """Print where the runs of an experiment can be seen."""
    from mint.tracking.ui import paths

    page = paths(experiment_id)["runs"] if uri.startswith("http") else None
    shown = without_secrets(uri)
    say(f"runs:   {shown}{page}" if page else f"runs:   mint ui --tracking-uri {shown}")
