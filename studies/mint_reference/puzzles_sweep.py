"""Trials for the questions that the reference results leave open; puzzles.py answers them.

Run as: python studies/mint_reference/puzzles_sweep.py [--experiment mnist_mlp], with the options
of mint sweep.
"""

from mint.cli.sweep import sweep_main
from mint.config.axes import Retraining
from mint.config.grid import Grid, SweepDefinition

_REGIMES: tuple[Retraining, ...] = ("none", "light")
SWEEP = SweepDefinition(
    name="puzzles",
    question="Do more samples or bootstraps change the share at the margin by more than another "
    "seed does? The sweeps groups_vs_samples and criteria have the numbers of groups.",
    grids={
        "mnist_mlp": [
            Grid(
                groups=(20,),
                samples_per_class=(150, 250, 350, 450, 550, 650),
                upper_limits=("none",),
                bootstraps=(1,),  # as in the reference results
                retraining=_REGIMES,
            ),
            Grid(
                groups=(20,),
                samples_per_class=(250,),
                upper_limits=("none",),
                bootstraps=(1, 10, 50, 200),
                retraining=_REGIMES,
            ),
        ],
    },
    seeds=(0, 1, 2, 3, 4, 5, 6, 7),
)

if __name__ == "__main__":
    raise SystemExit(sweep_main(SWEEP))
