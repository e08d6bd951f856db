"""The command lines: mint, and what the scripts of sweeps/ share."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mint.config import Grid, TrialConfig, experiment_names, load_experiment
from mint.errors import InputError

# Ray, MLflow and torch take seconds to import: each is left until a command needs it.
if TYPE_CHECKING:
    import pandas as pd

    from mint.tracking import Tracker
    from mint.trial import TrialResult

_LARGEST = 2**31 - 1
EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `mint` and return its exit code."""
    parser = _Parser(prog="mint", description="Mutual-information-based neuron trimming.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    _add_places(report)
    options = parser.parse_args(arguments)
    return _guarded(parser.prog, lambda: _report(options))


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
    return _guarded(parser.prog, lambda: _sweep(options, name, grids))


def _sweep_parser(
    question: str, name: str, grids: Mapping[str, Sequence[Grid]]
) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"{name}.py",
        description=question,
        epilog="The same command again runs only what is missing. Exit codes: 0 all trials are "
        "finished, 1 some failed, 2 bad input, 130 stopped by Ctrl-C.",
    )
    default = next(iter(grids))
    parser.add_argument(
        "--experiment",
        default=default,
        metavar="NAME",
        help=f"one of {', '.join(experiment_names())}, or a YAML file (default: {default})",
    )
    axes = parser.add_argument_group(
        "axes", "Each replaces that axis of the experiment's own grid, which --dry-run shows."
    )
    axes.add_argument(
        "--groups", type=_positive, nargs="+", metavar="N", help="groups of filters in each layer"
    )
    axes.add_argument(
        "--samples-per-class",
        type=_positive,
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
        type=_positive,
        nargs="+",
        metavar="N",
        help="estimates that the scores are the mean of; with --reliability, the most of them",
    )
    axes.add_argument(
        "--seeds", type=_natural, nargs="+", metavar="N", default=[0], help="(default: 0)"
    )
    trial = parser.add_argument_group("trial")
    trial.add_argument(
        "--epochs",
        type=_positive,
        metavar="N",
        help="epochs of the baseline and of each retraining, the schedule stretched to fit "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--max-drop",
        type=_percent,
        metavar="POINTS",
        help="percentage points of validation accuracy that pruning may cost "
        "(default: the experiment's)",
    )
    trial.add_argument(
        "--reliability",
        type=_correlation,
        metavar="R",
        help="make no more bootstraps once the scores are this reliable: the rank correlation, "
        "0 to 1, to expect with scores of as many others (default: the experiment's)",
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--max-concurrent",
        type=_positive,
        metavar="N",
        help="trials side by side (default: as many as there are cores for)",
    )
    running.add_argument(
        "--gpus-per-trial",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="GPUs of one trial; 0.5 lets two share a card (default: 0, the CPU)",
    )
    running.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of the data sets (default: MINT_DATA_DIR, else ./data)",
    )
    running.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="folder of baselines, scores and checkpoints (default: MINT_CACHE_DIR, else ./.mint)",
    )
    running.add_argument("--dry-run", action="store_true", help="print the trials and run nothing")
    _add_places(parser)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    places = parser.add_argument_group("results")
    places.add_argument(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of RESULTS.md, records.csv and the plots (default: results)",
    )
    places.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)",
    )


def _sweep(options: argparse.Namespace, name: str, grids: Mapping[str, Sequence[Grid]]) -> int:
    trials = _planned_trials(options, grids)
    _check_folder("--output", options.output)
    _kept_records(options.output)  # what cannot be added to is told before hours of work

    from mint.cache import Cache
    from mint.tracking import Tracker, tracking_uri

    tracker = Tracker(tracking_uri(options.tracking_uri))
    cache = Cache(options.cache_dir or Path(os.environ.get("MINT_CACHE_DIR") or ".mint"))
    _check_folder("--cache-dir", cache.root)
    experiment = trials[0].experiment
    concurrent = options.max_concurrent or max(1, (os.cpu_count() or 1) // experiment.threads)
    delivered = tracker.finished_keys(experiment.name)
    missing = [trial for trial in trials if trial.key not in delivered]
    to_run = [trial for trial in missing if not cache.folder("trials", trial.key).exists()]
    print(
        f"{name} of {experiment.name}: {len(trials)} trials, {len(trials) - len(to_run)} already "
        f"finished, {len(to_run)} to run, {min(concurrent, max(1, len(to_run)))} at a time",
        flush=True,
    )
    if options.dry_run:
        waiting = set(to_run)
        for trial in trials:
            print(f"  {trial.name}{'' if trial in waiting else '  (finished)'}")
        return 0

    experiment_id = tracker.prepare(experiment.name)
    failed = reached = 0
    if missing:
        from mint.sweep import SweepSettings, deliver, run_sweep

        settings = SweepSettings(
            name=name,
            data_dir=_data_dir(options.data_dir).absolute(),
            cache=cache,
            tracking_uri=tracker.uri,
            max_concurrent=concurrent,
            gpus_per_trial=options.gpus_per_trial,
        )
        deliver([trial for trial in missing if trial not in set(to_run)], settings)
        if to_run:
            outcome = run_sweep(to_run, settings, on_trial=_Progress(len(to_run)))
            failed, reached = len(outcome.failed), len(outcome.done) + len(outcome.failed)
    _write_report(options.output, tracker)
    print(f"tables: {options.output / 'RESULTS.md'}")
    if tracker.shown.startswith("http"):
        print(f"runs:   {tracker.shown}{tracker.view(experiment_id)}")
    else:
        print(
            f"runs:   uv run mlflow ui --backend-store-uri {tracker.shown}, then open "
            f"http://127.0.0.1:5000{tracker.view(experiment_id)}"
        )
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
    experiment = load_experiment(options.experiment)
    if options.epochs:
        training = experiment.training.with_epochs(options.epochs)
        experiment = experiment.model_copy(update={"training": training})
    if options.max_drop is not None:
        search = experiment.search.model_copy(update={"max_drop": options.max_drop})
        experiment = experiment.model_copy(update={"search": search})
    if options.reliability is not None:
        estimate = experiment.estimate.model_copy(update={"reliability": options.reliability})
        experiment = experiment.model_copy(update={"estimate": estimate})
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

    from mint.data import is_absent, load_source
    from mint.trial import check_data, check_network

    data_dir = _data_dir(options.data_dir)
    trials = [
        TrialConfig(experiment=experiment, **point, seed=seed, data_digest="unknown")
        for seed in dict.fromkeys(options.seeds)
        for point in distinct
    ]
    for trial in trials:
        check_network(trial)
    _check_gpus(options.gpus_per_trial)
    if options.dry_run and is_absent(experiment.data.name, data_dir):
        print(f"{experiment.data.name} is not in {data_dir} yet; the sweep would download it")
        return trials
    source = load_source(experiment.data.name, data_dir)
    trials = [trial.model_copy(update={"data_digest": source.digest}) for trial in trials]
    for trial in trials:
        check_data(trial, source)
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
            f"{_duration(seconds)}, about {_duration(left)} left",
            flush=True,
        )


def _report(options: argparse.Namespace) -> int:
    _check_folder("--output", options.output)
    if options.records:
        from mint.records import read_records
        from mint.report import write_report

        write_report(options.output, read_records(options.records))
    else:
        from mint.tracking import Tracker, tracking_uri

        tracker = Tracker(tracking_uri(options.tracking_uri))
        if not tracker.exists:
            raise InputError(
                f"--tracking-uri {tracker.shown}: there is no such store; run a sweep first, or "
                "give --records FILE"
            )
        _write_report(options.output, tracker)
    print(f"tables: {options.output / 'RESULTS.md'}")
    return 0


def _write_report(output: Path, tracker: "Tracker") -> None:
    from mint.records import merge_records
    from mint.report import write_report

    write_report(output, merge_records(_kept_records(output), tracker.records()))


def _kept_records(output: Path) -> "pd.DataFrame":
    from mint.records import COLUMNS, read_records, sort_records

    path = output / "records.csv"
    if path.exists():
        return read_records(path, option=f"--output {output}:")

    import pandas as pd

    return sort_records(pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS))


def _guarded(prog: str, command: Callable[[], int]) -> int:
    try:
        return command()
    except InputError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print(f"{prog}: stopped; the same command carries on", file=sys.stderr)
        return EXIT_INTERRUPTED


def _data_dir(chosen: Path | None) -> Path:
    named = chosen or (
        Path(os.environ["MINT_DATA_DIR"]) if os.environ.get("MINT_DATA_DIR") else None
    )
    if named is None:
        return Path("data")
    if not named.is_dir():
        origin = "--data-dir" if chosen else "MINT_DATA_DIR"
        raise InputError(f"{origin} {named}: must be a folder that exists")
    return named


def _check_folder(option: str, folder: Path) -> None:
    existing = folder
    while not existing.exists():
        existing = existing.absolute().parent
    if not existing.is_dir():
        raise InputError(f"{option} {folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{option} {folder}: {existing} is not writable")


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= _LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text}: allowed are whole numbers from {least} to {_LARGEST}"
        )
    return number


def _percent(text: str) -> float:
    return _between(text, 0, 100)


def _correlation(text: str) -> float:
    number = _between(text, 0, 1)
    if number in (0, 1):
        raise argparse.ArgumentTypeError(f"{text}: allowed are numbers between 0 and 1")
    return number


def _share(text: str) -> float:
    return _between(text, 0, 1024)


def _between(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text}: allowed are numbers from {least} to {most}")
    return number


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
