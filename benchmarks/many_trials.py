"""Run sweeps of many trials that only sleep, to see how far one driver and one store reach.

Run as: uv run python benchmarks/many_trials.py [--trials 100 1000 10000] [--tracking-uri URI]

Driver, Ray, stage cache, tracking store and report are real; a trial sleeps for 10 ms and copies
the result of one that was run. Every size has a process and an empty folder of its own. Seconds
count from Ray's start to the last write to the store; driver and report are seconds of processors.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

SLEEP = 0.01
TEMPLATE = "template"


def sleeping_trial(parameters: dict[str, Any], settings: Any, at_once: int) -> None:
    """Take the place of mint.orchestration.tune._run_one in a worker."""
    from ray import tune

    from mint.orchestration.search_spaces import trial_config
    from mint.store.manifest import MANIFEST
    from mint.store.stage_cache import StageCache
    from mint.trial.result import RESULT_FILE, TrialKeys, TrialResult

    time.sleep(SLEEP)
    config = trial_config(parameters)
    template = settings.cache_root / TEMPLATE

    def make(folder: Path) -> None:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        made = {"config": config, "keys": TrialKeys.of(config), "provenance": settings.provenance}
        TrialResult.load(template).model_copy(update=made).save(folder)
        assert (folder / RESULT_FILE).is_file()

    StageCache(settings.cache_root).produce("trials", config.key, make)
    tune.report({"end": {"status": "finished", "seconds": SLEEP}})


def run(trials: int, uri: str | None) -> None:
    """Run a sweep in the current folder, and print its line."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from mint import run_experiment
    from mint.cli.app import main as mint
    from mint.config.loading import read_experiment
    from mint.orchestration import sweep_driver, tune
    from mint.trial.result import SCORES_FILE

    settings = ["--smoke", "--set", "training.epochs=1"]

    file = read_experiment("digits_mlp", smoke=True, changes={"training.epochs": 1})
    axes = {"groups": 5, "samples_per_class": 10, "upper_limit": "none", "criterion": "random"}
    folder = run_experiment(file.experiment, fraction=0.5, **axes).folder  # type: ignore[arg-type]
    shutil.copytree(folder, Path(".mint") / TEMPLATE)
    (Path(".mint") / TEMPLATE / SCORES_FILE).unlink(missing_ok=True)  # drawing them takes longest
    tune._run_one = sleeping_trial
    words = ["sweep", "groups_vs_samples", *settings, "--quiet", "--criterion", "random"]
    words += ["--groups", "5", "--samples-per-class", "10", "--upper-limits", "none"]
    words += ["--fractions", "0.6", "--seeds", *map(str, range(trials))]
    before, after, writes = clocks(tune, "run_trials"), clocks(sweep_driver, "_rebuild_report"), [0]

    @event.listens_for(Engine, "before_cursor_execute")
    def count_writes(_: Any, __: Any, statement: str, *___: Any) -> None:
        writes[0] += statement.startswith(("INSERT", "UPDATE"))

    if mint([*words, *(["--tracking-uri", uri] if uri else [])]):
        raise SystemExit("the sweep failed")
    (start, used), (end, used_by_then) = before[0], after[0]
    report = time.process_time() - used_by_then
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = sum(path.is_file() for path in Path().rglob("*"))
    print(
        f"{trials:7}{end - start:9.1f}{trials / (end - start):12.1f}"
        f"{1000 * (used_by_then - used) / trials:14.1f}{memory:12.0f}"
        f"{writes[0] / (end - start):12.0f}{files / trials:12.1f}{report:10.1f}",
        flush=True,
    )


def clocks(module: ModuleType, name: str) -> list[tuple[float, float]]:
    """Note seconds on the clock and of this process before every call of a function."""
    function, noted = getattr(module, name), []

    def noting(*arguments: Any) -> Any:
        noted.append((time.perf_counter(), time.process_time()))
        return function(*arguments)

    setattr(module, name, noting)
    return noted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--tracking-uri", help="of an empty store; one size at a time")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run(options.trials[0], options.tracking_uri)
        return
    print(f"{'':7}{'':9}{'':12}{'driver ms':>14}{'':12}{'':12}{'files':>12}{'report':>10}")
    print(
        f"{'trials':>7}{'s':>9}{'trials a s':>12}{'a trial':>14}{'driver MB':>12}"
        f"{'writes a s':>12}{'a trial':>12}{'s':>10}"
    )
    for trials in options.trials:
        uri = ["--tracking-uri", options.tracking_uri] if options.tracking_uri else []
        command = [sys.executable, __file__, "--here", "--trials", str(trials), *uri]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
            )
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
