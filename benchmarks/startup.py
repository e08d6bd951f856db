"""Time what a user waits for at a terminal, beside a bare import of torch and of mlflow.

Run as: uv run python benchmarks/startup.py [--repeats N] [--first]

Commands take turns, so that they share whatever else the machine does; figures are medians of
whole processes, in a folder of their own. With --first, the first sweep and `mint run --smoke`
run once each, in empty folders and without compiled kernels.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWEEP = ["sweep", "groups_vs_samples", "--smoke"]
AXES = (
    "--groups 5 10 20 50 --samples-per-class 10 20 --upper-limits none 0.8 --seeds 0"  # 16 trials
)


def mint(*words: str) -> list[str]:
    """Return the command line of mint."""
    return [sys.executable, "-c", "from mint.cli import main; raise SystemExit(main())", *words]


def seconds(command: Sequence[str], folder: Path, **settings: str) -> float:
    """Return the seconds of a process."""
    start = time.perf_counter()
    environment = {**os.environ, **settings}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def one_trial_less(table: Path, less: Path) -> None:
    """Copy a trial table without its last row."""
    less.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))


def print_table(measured: Mapping[str, Sequence[float]]) -> None:
    """Print medians in seconds, and their ratios to both imports."""
    medians = {name: statistics.median(values) for name, values in measured.items()}
    yardsticks = ["import torch", "import mlflow"]
    print(f"{'':44}{'s':>8}" + "".join(f"{'x ' + name:>16}" for name in yardsticks))
    for name, median in medians.items():
        ratios = "".join(f"{median / medians[yardstick]:16.2f}" for yardstick in yardsticks)
        print(f"{name:44}{median:8.2f}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="time first commands, too")
    options = parser.parse_args()
    table = ROOT / "results" / "trials.csv"
    committed = ["report", "--trials", str(table), "--output", "report"]
    before = ["report", "--trials", "less.csv", "--output", "report"]
    sweep = [*SWEEP, *AXES.split()]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "import mlflow": [sys.executable, "-c", "import mlflow"],
        "mint --help": mint("--help"),
        "mint sweep --help": mint("sweep", "--help"),
        "mint sweep --dry-run": mint(*sweep, "--dry-run"),
        "finished sweep again, 16 trials": mint(*sweep),
        "mint report, nothing new": mint("report"),
        "mint report, committed trials, nothing new": mint(*committed),
        "mint report, committed trials, one new": mint(*committed),
    }
    measured: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.first:
            for title, words in {
                "first sweep, 16 trials, nothing compiled": sweep,
                "mint run --smoke, nothing compiled": ["run", "--experiment", "digits_mlp"],
            }.items():
                empty = folder / "first"
                empty.mkdir()
                words = words if words is sweep else [*words, "--smoke", "--device", "cpu"]
                measured[title] = [seconds(mint(*words), empty, XDG_CACHE_HOME=str(empty / "c"))]
                shutil.rmtree(empty)
        for _ in range(2):  # what is then remembered, and the store's last writes
            seconds(mint(*sweep), folder)
        one_trial_less(table, folder / "less.csv")
        seconds(mint(*committed), folder)
        for _ in range(options.repeats):
            for title, command in commands.items():
                if title.endswith("one new"):
                    seconds(mint(*before), folder)
                measured[title].append(seconds(command, folder))
    print_table(measured)


if __name__ == "__main__":
    main()
