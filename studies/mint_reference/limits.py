"""What the original's limit prunes, beside an exact one.

Run as: uv run python benchmarks/limits.py [--data-dir DIR] [--seeds 0 1 2 3 4]

The original prunes the scores below a quantile of their unique values. One bootstrap counts edges,
so its scores have few values, of which the lower are shared by many blocks. Draws one bootstrap of
the scores of mnist_mlp's fc1 -> fc2, 20 x 20 groups and 250 samples a class, as the paper estimates
them, for every seed's baseline; writes what both rules prune of 400 blocks of one size into
limits.csv, which PUZZLES.md is made from.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from mnist_stages import CPU, command_line, mnist_stages

from mint.config.loading import load_experiment
from mint.config.schema import EstimateConfig
from mint.data.datasets import load_source
from mint.reporting.measured import LIMITS
from mint.store.atomic import write_atomic
from mint.training.determinism import reproducible

ASKED = (0.0, 0.25, 0.5, 0.75, 0.8, 0.9, 0.99)


def main() -> int:
    """Draw, print, write."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    experiment = load_experiment("mnist_mlp")
    estimate = EstimateConfig(bootstraps=1, paper=True)
    experiment = experiment.model_copy(update={"estimate": estimate})
    source = load_source(experiment.data, options.data_dir)
    rows = []
    for seed in options.seeds:
        with reproducible(experiment.threads, CPU):
            stages = mnist_stages(experiment, source, options.cache_dir, seed=seed)
            (scores,) = stages.block_scores.values()
        value = scores.value.ravel()
        unique = np.unique(value)
        for asked in ASKED:
            threshold = np.quantile(unique, asked)
            rows.append(
                {
                    "seed": seed,
                    "asked": asked,
                    "distinct": len(unique),
                    "by_quantile": 100 * float(np.mean(value <= threshold)),
                    "exactly": 100
                    * float(stages.ranking.blocks_within(asked, 150000))
                    / value.size,
                }
            )
    table = pd.DataFrame(rows)
    print(table.groupby("asked").mean().round(2).to_string())
    write_atomic(options.output / LIMITS, table.to_csv(index=False, lineterminator="\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
