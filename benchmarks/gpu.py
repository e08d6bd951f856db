"""Run on a GPU what has run on CPUs only: `uv run python benchmarks/gpu.py --minutes 10`.

The first minutes tell most: tests of the GPU, timings, trials that share a card; then experiments 2
and 3 at their full length. The same command goes on where the last one stopped, in the middle of a
training, too. Everything is in the output folder: a log of each step, the trials, the tracking
store and the tables.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mint.store.atomic import write_atomic

ROOT = Path(__file__).resolve().parents[1]
DONE_FILE = "steps.json"
_STOP_SECONDS = 30  # that a sweep gets to close its runs
_SWEEP = "sweeps/criteria.py"
_SHRUNK = "--smoke --max-concurrent 1 --seeds 0"


class Step(NamedTuple):
    """Arguments of Python, on a GPU and in a rehearsal on a CPU; None if it needs a GPU."""

    name: str
    words: str
    rehearsal: str | None


def _rows(name: str, experiment: str, criteria: str, fractions: str) -> Step:
    """Return the step of a sweep at given shares of an experiment."""
    limit = "0.85" if experiment.startswith("vgg16") else "none"  # as in the experiments' files
    axes = (
        f"{_SWEEP} --experiment {experiment} --criterion {criteria} --fractions {fractions} "
        f"--upper-limits {limit}"
    )
    full = "--groups 64 --samples-per-class 500 --seeds 0"
    return Step(
        name,
        f"{axes} {full} --gpus-per-trial 0.25 --set estimate.device=cuda",
        f"{axes} --groups 4 --samples-per-class 10 {_SHRUNK}",
    )


# What matters most comes first.
STEPS = (
    Step("tests", "-m pytest -q tests/gmi/test_gpu.py", "-m pytest -q tests/gmi/test_gpu.py"),
    Step("estimator", "-m benchmarks.cuda", None),
    Step("training", "benchmarks/training.py --device cuda --repeats 3", None),
    Step(
        "four trials on a card",
        f"{_SWEEP} --experiment digits_mlp --criterion mint random --groups 10 20 "
        "--samples-per-class 100 --fractions 0.9 --seeds 0 --gpus-per-trial 0.25 "
        "--set estimate.device=cuda",
        f"{_SWEEP} --experiment digits_mlp --criterion mint random --groups 5 "
        f"--samples-per-class 20 --fractions 0.9 {_SHRUNK}",
    ),
    _rows("resnet56 at 52.41%", "resnet56_cifar10", "mint random", "0.5241"),
    _rows("vgg16 at 83.43%", "vgg16_cifar10", "mint random", "0.8343"),
    _rows(
        "resnet56, other criteria",
        "resnet56_cifar10",
        "mint mint-unconditional random block-magnitude l1-filters",
        "0.5241 0.5539",
    ),
    _rows("resnet56, other rows", "resnet56_cifar10", "mint l1-filters", "0.141 0.424 0.435"),
    _rows("vgg16 at 65.24%", "vgg16_cifar10", "mint random block-magnitude", "0.6524"),
    _rows(
        "vgg16, other criteria",
        "vgg16_cifar10",
        "block-magnitude bn-scale l1-filters",
        "0.8343",
    ),
)


def run_step(words: str, log: Path, output: Path, seconds: float) -> int | None:
    """Run a step within its time; return its exit code, None if the time was over."""
    settings = {
        "MINT_CACHE_DIR": str(output / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{output / 'mlflow.db'}",
    }
    command = [sys.executable, *words.split()]
    if words.startswith("sweeps/"):
        command += ["--output", str(output / "results")]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings}, stdout=file, stderr=file
        )
        try:
            return process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            if isinstance(stop, KeyboardInterrupt):
                raise
            return None


def main() -> int:
    """Run the steps that are left; return 1 if any has failed so far, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10, help="of this call (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--rehearse", action="store_true", help="shrunk, on the CPU")
    options = parser.parse_args()
    if not options.rehearse:
        import torch

        if not torch.cuda.is_available():
            print("torch finds no GPU; --rehearse runs the steps shrunk on the CPU")
            return 2
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    end = time.monotonic() + 60 * options.minutes - _STOP_SECONDS
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    record = output / DONE_FILE
    done: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
    for number, step in enumerate(STEPS, start=1):
        words = step.rehearsal if options.rehearse else step.words
        if words is None or step.name in done:
            print(f"{step.name}: {'needs a GPU' if words is None else 'done before'}")
            continue
        start = time.monotonic()
        log = output / f"{number:02}-{step.name.replace(' ', '-')}.log"
        code = run_step(words, log, output, max(1.0, end - start)) if start < end else None
        if code is None:
            print(f"{step.name}: not finished, the time is over; the same command goes on")
            break
        seconds = time.monotonic() - start
        done[step.name] = {"seconds": round(seconds, 1), "code": code}
        write_atomic(record, json.dumps(done, indent=1).encode())
        print(f"{step.name}: {'done' if code == 0 else 'failed'} in {seconds:.0f} s, {log}")
    return int(any(step["code"] for step in done.values()))


if __name__ == "__main__":
    sys.exit(main())
