"""What it would save, and cost, to stop the retraining of a probe that will not pass.

A rule that depends on nothing but other seeds: a probe is stopped after an epoch at which it is
further below what it must reach than MARGIN times the furthest that a passing probe of another
seed ever was after that epoch. Of the trials of a folder of stages; nothing is trained.
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
class Tried:
    """A probe.

    Attributes:
        seed: of its trial.
        short: after every epoch, by how many percentage points of validation accuracy it fell
            short of what it had to reach in the end.
        passed: whether it reached that.
    """

    seed: int
    short: tuple[float, ...]
    passed: bool


def tried(cache: StageCache, experiment: str) -> list[Tried]:
    """Return the probes of an experiment's searches, of equally many epochs, each once."""
    found: dict[tuple[object, ...], Tried] = {}
    for key in cache.keys("trials"):
        folder = cache.find("trials", key)
        if folder is None:
            continue
        result = TrialResult.load(folder)
        search, config = result.config.search, result.config
        if config.experiment.name != experiment or search.max_drop is None:
            continue
        needed = result.baseline_validation_accuracy - search.max_drop
        for probe in result.search_steps:
            history = probe.retraining.training
            short = tuple(needed - epoch.validation_accuracy for epoch in history)
            found[config.seed, short] = Tried(config.seed, short, bool(probe.passed))
    most = max((len(probe.short) for probe in found.values()), default=0)
    return [probe for probe in found.values() if len(probe.short) == most]


def stopped_after(probe: Tried, others: Sequence[Tried], margin: float) -> int:
    """Return the epoch after which a probe is stopped; its last where it is not."""
    for epoch, short in enumerate(probe.short[:-1]):
        furthest = max(other.short[epoch] for other in others)
        if short > margin * max(furthest, 0.0):
            return epoch + 1
    return len(probe.short)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="mnist_mlp", help="(default: mnist_mlp)")
    parser.add_argument(
        "--cache-dir", type=Path, default=Path(".mint"), help="folder of stages (default: .mint)"
    )
    options = parser.parse_args()
    probes = tried(StageCache(options.cache_dir), options.experiment)
    passed = [probe for probe in probes if probe.passed]
    if len({probe.seed for probe in passed}) < 2:
        parser.error("--cache-dir: needs passing probes of two seeds at least")
    rows = []
    for margin in MARGINS:
        ends = [
            (probe, stopped_after(probe, [p for p in passed if p.seed != probe.seed], margin))
            for probe in probes
        ]
        epochs = sum(len(probe.short) for probe in probes)
        saved = sum(len(probe.short) - end for probe, end in ends)
        wrong = sum(probe.passed and end < len(probe.short) for probe, end in ends)
        rows.append([f"{margin:g}", f"{100 * saved / epochs:.1f}", f"{wrong} of {len(passed)}"])
    print(f"{len(probes)} probes, {len(passed)} of them passed")
    print("\n".join(table(["Margin", "Epochs saved (%)", "Stopped that would have passed"], rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
