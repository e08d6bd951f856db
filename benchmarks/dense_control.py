"""The dense control by learning rate: which one an experiment states, and which margin it can see.

For every seed, the dense network is retrained lightly and in full at each learning rate. A row has
the validation accuracy less that of the baseline. Its standard deviation over seeds is `search.sd`:
the margin must be three times as large. No test image is read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mint.config.loading import read_experiment
from mint.reporting.markdown import table
from mint.training.determinism import reproducible
from mint.trial.result import Baseline, Retraining
from mint.trial.setup import TrialPaths, plan_trial

AXES = {"criterion": "random", "groups": 5, "samples_per_class": None, "upper_limit": "none"}


def gain(
    experiment: str, retraining: str, lr: float, seed: int, cache_dir: Path | None
) -> tuple[float, float]:
    """Return the baseline's validation accuracy, and what retraining adds to it (points)."""
    section = {"light": "light", "full": "retraining"}[retraining]
    known = read_experiment(experiment).experiment.retraining_settings(retraining)  # type: ignore[arg-type]
    stated = known.model_copy(update={"lr": lr}).model_dump(mode="json")
    file = read_experiment(experiment, changes={section: stated})
    axes = {**AXES, "fraction": 0.0, "bootstraps": None, "retraining": retraining, "seed": seed}
    planned = plan_trial(file, axes, TrialPaths(cache_dir=cache_dir), "cpu", sys.argv)
    pipeline = planned.pipeline
    with reproducible(pipeline.experiment.threads, pipeline.device):
        before = Baseline.load(pipeline.baseline).validation_accuracy
        return before, Retraining.load(pipeline.dense).validation_accuracy - before


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for every way of retraining and learning rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="digits_mlp")
    parser.add_argument("--retraining", nargs="+", default=["light", "full"])
    parser.add_argument("--lr", nargs="+", type=float, default=[0.1, 0.03, 0.01, 0.003, 0.001])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(100, 108)))
    parser.add_argument("--cache-dir", type=Path)
    options = parser.parse_args(arguments)
    header = ["Retraining", "Learning rate", "Baseline", "Gain", "SD of the gain", "Seeds"]
    print("\n".join(table(header, [], left=(0,))), flush=True)
    for retraining in options.retraining:
        for lr in options.lr:
            found = [
                gain(options.experiment, retraining, lr, seed, options.cache_dir)
                for seed in options.seeds
            ]
            before, gains = np.array(found).T
            cells = [f"{before.mean():.2f}", f"{gains.mean():+.3f}", f"{gains.std(ddof=1):.3f}"]
            row = [retraining, f"{lr:g}", *cells, str(len(found))]
            print(table(header, [row], left=(0,))[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
