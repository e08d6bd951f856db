"""What the original's upper limit prunes, and what an exact limit prunes.

Run as: uv run python studies/mint_reference/limits.py [--data-dir DIR] [--seeds 0 1 2 3 4]

The original prunes the scores below a quantile of their unique values. One bootstrap counts edges,
so there are few different scores, and many blocks share the lowest. For each seed's baseline, this
draws one bootstrap of the scores of mnist_mlp's fc1 -> fc2, as the paper estimates them: 20 x 20
groups, 250 samples per class. It writes the shares that both rules prune, of 400 blocks of equal
size, to limits.csv for PUZZLES.md.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from benchmark_tables import LIMITS
from mnist_stages import CPU, argument_parser, mnist_stages

from mint.config.estimate import EstimateConfig
from mint.config.loading import load_experiment
from mint.data.datasets import load_source
from mint.store.atomic import write_atomic
from mint.training.determinism import reproducible

UPPER_LIMITS = (0.0, 0.25, 0.5, 0.75, 0.8, 0.9, 0.99)


def main() -> int:
    """Draw the scores; print and write the table."""
    parser = argument_parser(__doc__, seeds=[0, 1, 2])
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
        for limit in UPPER_LIMITS:
            threshold = np.quantile(unique, limit)
            rows.append(
                {
                    "seed": seed,
                    "limit": limit,
                    "distinct": len(unique),
                    "by_quantile": 100 * float(np.mean(value <= threshold)),
                    "exactly": 100
                    * float(stages.ranking.blocks_within(limit, 150000))
                    / value.size,
                }
            )
    table = pd.DataFrame(rows)
    print(table.groupby("limit").mean().round(2).to_string())
    write_atomic(options.output / LIMITS, table.to_csv(index=False, lineterminator="\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
