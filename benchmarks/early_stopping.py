"""What it would save, and cost, to stop the retraining of a search step that will not pass.

The rule uses only other seeds. It stops a step after an epoch if its accuracy is further below the
required one than MARGIN times the furthest that a passing step of another seed was after that
epoch. The steps are those of finished trials in a folder of stages; nothing is trained.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mint.reporting.markdown import table
from mint.store.stage_cache import StageCache
from mint.trial.result import TrialResult

MARGINS = (1.0, 1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Step:
    """A search step.

    Attributes:
        seed: of its trial.
        short: after every epoch, the required validation accuracy minus its own (percentage
            points).
        passed: whether it reached the required accuracy.
    """

    seed: int
    short: tuple[float, ...]
    passed: bool


def search_steps(cache: StageCache, experiment: str) -> list[Step]:
    """Return the steps of an experiment's searches, those with most epochs, each once."""
    found: dict[tuple[object, ...], Step] = {}
    for key in cache.keys("trials"):
        folder = cache.find("trials", key)
        if folder is None:
            continue
        result = TrialResult.load(folder)
        search, config = result.config.search, result.config
        if config.experiment.name != experiment or search.max_drop is None:
            continue
        needed = result.baseline_validation_accuracy - search.max_drop
        for step in result.search_steps:
            history = step.retraining.training
            short = tuple(needed - epoch.validation_accuracy for epoch in history)
            found[config.seed, short] = Step(config.seed, short, bool(step.passed))
    most = max((len(step.short) for step in found.values()), default=0)
    return [step for step in found.values() if len(step.short) == most]


def stopped_after(step: Step, others: Sequence[Step], margin: float) -> int:
    """Return the epoch after which a step is stopped; its last if it is not."""
    for epoch, short in enumerate(step.short[:-1]):
        furthest = max(other.short[epoch] for other in others)
        if short > margin * max(furthest, 0.0):
            return epoch + 1
    return len(step.short)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="mnist_mlp", help="(default: mnist_mlp)")
    parser.add_argument(
        "--cache-dir", type=Path, default=Path(".mint"), help="folder of stages (default: .mint)"
    )
    options = parser.parse_args()
    steps = search_steps(StageCache(options.cache_dir), options.experiment)
    passed = [step for step in steps if step.passed]
    if len({step.seed for step in passed}) < 2:
        parser.error("--cache-dir: needs passing steps of at least two seeds")
    rows = []
    for margin in MARGINS:
        ends = []
        for step in steps:
            others = [other for other in passed if other.seed != step.seed]
            ends.append((step, stopped_after(step, others, margin)))
        epochs = sum(len(step.short) for step in steps)
        saved = sum(len(step.short) - end for step, end in ends)
        wrong = sum(step.passed and end < len(step.short) for step, end in ends)
        rows.append([f"{margin:g}", f"{100 * saved / epochs:.1f}", f"{wrong} of {len(passed)}"])
    print(f"{len(steps)} steps, {len(passed)} of them passed")
    print("\n".join(table(["Margin", "Epochs saved (%)", "Stopped that would have passed"], rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
