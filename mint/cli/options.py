"""What the command lines share: option types, groups of options, and what they stand for."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mint.config.loading import ExperimentFile, experiment_names, read_experiment
from mint.config.schema import (
    check_criterion,
)
from mint.errors import InputError, WorkFailedError, allowed, nearest
from mint.orchestration.interruption import interruptible
from mint.tracking.preflight import reach_store
from mint.tracking.ui import paths

# Ray, MLflow and torch take seconds to import: each is left until a command needs it.
if TYPE_CHECKING:
    from mint.tracking.mlflow_store import MlflowStore

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130
_EXIT_UNREAD = 141  # of a program that SIGPIPE ends
CACHE_HELP = "folder of finished stages (default: MINT_CACHE_DIR, else ./.mint)"
STORE_HELP = "MLflow's store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)"
# What a full, read-only or broken disk says: no fault of the program's.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_LARGEST = 2**31 - 1
_NO_OPTIONS = ("MINT_DATA_DIR",)


class Parser(argparse.ArgumentParser):
    """Complains in one line, and says which name is near to one that is not known."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse an option that is not known before one that is missing: it may be the same."""
        words = list(sys.argv[1:] if args is None else args)
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in words[: words.index("--") if "--" in words else None]:
            if not word.startswith("-") and self._subparsers:
                break  # what follows is for the command of that name
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                self.error(f"{name}: there is no such option; {nearest(name, known)}".rstrip("; "))
        return super().parse_known_args(words, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            of_a_command = isinstance(action, argparse._SubParsersAction)
            what = f"{action.metavar} {value}" if of_a_command else str(value)
            problem = f"{what}: {allowed(str(value), [*action.choices])}"
            raise argparse.ArgumentError(None if of_a_command else action, problem)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def guarded(prog: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code; what the user did wrong is told in one line.

    SIGTERM, as a batch system sends it, ends a command as Ctrl-C does.
    """
    try:
        with interruptible():
            code = command()
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # as of mint ... | head: what Python would still write is let go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_UNREAD
    except InputError as error:
        option = error.parameter and (
            error.parameter
            if error.parameter in _NO_OPTIONS or "." in error.parameter
            else "--" + error.parameter.replace("_", "-")
        )
        print(f"{prog}: error: {error.describe(option)}", file=sys.stderr)
        return EXIT_INPUT
    except WorkFailedError as error:
        print(f"{prog}: failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(
            f"{prog}: failed: {error.strerror}{where}; what is finished is kept, and the same "
            "command carries on",
            file=sys.stderr,
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{prog}: stopped; the same command carries on", file=sys.stderr)
        return EXIT_INTERRUPTED


def add_experiment(
    parser: argparse.ArgumentParser,
    default: str | None = None,
    alternatives: argparse._MutuallyExclusiveGroup | None = None,
) -> None:
    """Add the options that say which experiment, and what is different in it.

    Args:
        parser: to add them to.
        default: where none is named; None to demand one.
        alternatives: what may be named instead.
    """
    known = ", ".join(experiment_names())
    (alternatives or parser).add_argument(
        "--experiment",
        default=default,
        required=default is None and alternatives is None,
        metavar="NAME",
        help=f"one of {known}, or a YAML file" + (f" (default: {default})" if default else ""),
    )
    group = parser.add_argument_group("experiment", "What is different from the experiment's file.")
    group.add_argument(
        "--smoke",
        action="store_true",
        help="the experiment shrunk to run in under a minute on a CPU: to see that all works",
    )
    group.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="a network of your own: a function that returns an nn.Module, such as "
        "my_package.my_module:build; all pairs of layers found in it are pruned, and all weights "
        "of convolutions and linear layers counted (default: the experiment's)",
    )
    group.add_argument(
        "--data",
        metavar="NAME",
        help="digits, mnist, cifar10, parquet:FOLDER or imagefolder:FOLDER, folders in the data "
        "folder (default: the experiment's)",
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights that the baseline's training starts from: safetensors, or a state_dict "
        "that torch saved (default: random ones)",
    )
    group.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="epochs of the baseline and of each retraining, the schedules stretched to fit "
        "(default: the experiment's)",
    )
    group.add_argument(
        "--retraining-epochs",
        type=positive,
        metavar="N",
        help="epochs of each retraining alone, its schedule stretched to fit (default: the "
        "experiment's)",
    )
    group.add_argument(
        "--max-drop",
        type=_percent,
        metavar="POINTS",
        help="search for the most that can be pruned at no more than so many percentage points "
        "of validation accuracy, 0 to 100 (default: the experiment's)",
    )
    group.add_argument(
        "--reliability",
        type=_correlation,
        metavar="R",
        help="make no more bootstraps once the scores are this reliable: the rank correlation, "
        "0 to 1, to expect with scores of as many others (default: the experiment's)",
    )
    group.add_argument(
        "--floor",
        action="store_true",
        help="every group of filters keeps a block as long as the share that is pruned allows: "
        "at high shares this keeps the accuracy of any criterion up",
    )
    group.add_argument(
        "--paper",
        action="store_true",
        help="estimate as the MINT paper does: one bootstrap, unscaled activations, nearest "
        "neighbours (mint.gmi.estimator tells what they cost)",
    )
    group.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads of one trial; results depend on it (default: the experiment's)",
    )


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    """Add where data are read."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of the data sets (default: MINT_DATA_DIR, else ./data)",
    )


def add_folders(parser: argparse._ArgumentGroup) -> None:
    """Add where data are read, and stages kept."""
    add_data_dir(parser)
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help=CACHE_HELP,
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add where results go."""
    places = parser.add_argument_group("results")
    places.add_argument(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of RESULTS.md, trials.csv and the plots (default: results)",
    )
    places.add_argument(
        "--tracking-uri",
        metavar="URI",
        help=STORE_HELP,
    )


def check_how_much(options: argparse.Namespace, given: object, option: str) -> None:
    """Refuse a share to prune beside --max-drop.

    Raises:
        InputError: both were given.
    """
    if given is not None and options.max_drop is not None:
        raise InputError(
            f"{option} and --max-drop: only one of them says how much is pruned; leave out the "
            "other"
        )


def chosen_experiment(options: argparse.Namespace) -> ExperimentFile:
    """Return the experiment with the changes that the options ask for.

    Raises:
        InputError: there is no such experiment, or a value is not allowed.
    """
    changes: dict[str, Any] = {}
    if options.epochs:
        changes |= {"training.epochs": options.epochs}
    if options.retraining_epochs:
        changes |= {"retraining.epochs": options.retraining_epochs}
    if options.data:
        changes |= {"data.name": options.data}
    if options.max_drop is not None:
        changes |= {"search": {"fraction": None, "max_drop": options.max_drop, "steps": 6}}
    if options.reliability is not None:
        changes |= {"estimate.reliability": options.reliability}
    if options.floor:
        changes |= {"keep_connected": True}
    if options.paper:
        changes |= {"estimate.bootstraps": 1, "estimate.paper": True}
    if options.threads:
        changes |= {"threads": options.threads}
    return read_experiment(
        options.experiment, smoke=options.smoke, model=options.model, changes=changes
    )


def tracking_uri(chosen: str | None) -> str:
    """Return the URI given, else that of MLFLOW_TRACKING_URI, else a database in this folder.

    Raises:
        InputError: nobody answers there.
    """
    uri = chosen or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    reach_store(uri)
    return uri


def data_folder(chosen: Path | None) -> Path:
    """Return the folder of the data sets: the option, else the environment's, else ./data.

    Raises:
        InputError: one that was named is no folder.
    """
    named = chosen or (
        Path(os.environ["MINT_DATA_DIR"]) if os.environ.get("MINT_DATA_DIR") else None
    )
    if named is None:
        return Path("data")
    if not named.is_dir():
        origin = "--data-dir" if chosen else "MINT_DATA_DIR"
        raise InputError(f"{origin} {named}: must be a folder that exists")
    return named


def cache_folder(chosen: Path | None) -> Path:
    """Return the folder of finished stages: the option, else the environment's, else ./.mint."""
    folder = chosen or Path(os.environ.get("MINT_CACHE_DIR") or ".mint")
    check_writable("--cache-dir", folder)
    return folder


def check_writable(option: str, folder: Path) -> None:
    """Refuse a folder that cannot be written to, or made.

    Raises:
        InputError: it is a file, or not writable.
    """
    existing = folder
    while not existing.exists():
        existing = existing.absolute().parent
    if not existing.is_dir():
        raise InputError(f"{option} {folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{option} {folder}: {existing} is not writable")


def show_runs(store: "MlflowStore", experiment_id: str, say: Callable[[str], None] = print) -> None:
    """Say where the runs are to be seen."""
    if store.shown.startswith("http"):
        say(f"runs:   {store.shown}{paths(experiment_id)['runs']}")
    else:
        say(f"runs:   mint ui --tracking-uri {store.shown}")


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    return _whole(text, 1)


def port(text: str) -> int:
    """Parse the number of a port."""
    return _whole(text, 1, 65535)


def natural(text: str) -> int:
    """Parse a whole number from 0."""
    return _whole(text, 0)


def gpu_share(text: str) -> float:
    """Parse a number of GPUs."""
    return _between(text, 0, 1024)


def _whole(text: str, least: int, most: int = _LARGEST) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(
            f"{text}: allowed are whole numbers from {least} to {most}"
        )
    return number


def days(text: str) -> float:
    """Parse a number of days."""
    return _between(text, 0, 36500)


def criterion(text: str) -> str:
    """Parse the name of a criterion."""
    try:
        return check_criterion(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def fraction(text: str) -> float:
    """Parse a share from 0 to 1."""
    return _between(text, 0, 1)


def _percent(text: str) -> float:
    return _between(text, 0, 100)


def _correlation(text: str) -> float:
    number = _between(text, 0, 1)
    if number in (0, 1):
        raise argparse.ArgumentTypeError(f"{text}: allowed are numbers between 0 and 1")
    return number


def _between(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text}: allowed are numbers from {least} to {most}")
    return number
