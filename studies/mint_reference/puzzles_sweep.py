"""Trials for the questions that the reference results leave open; puzzles.py answers them.

Run as: python studies/mint_reference/puzzles_sweep.py [--experiment mnist_mlp], with the options
of mint sweep.
"""

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition

_LIMITS = ("none",)
_GROUPS = (5, 10, 20, 30, 40, 50)  # 30 and 40 do not divide the filters evenly
_GRIDS = {
    "digits_mlp": [
        Grid(
            groups=_GROUPS,
            samples_per_class=(100,),
            upper_limits=_LIMITS,
            criteria=("mint", "random", "block-magnitude"),
        ),
        Grid(
            groups=(20,),
            samples_per_class=(20, 40, 60, 80, 100),
            upper_limits=_LIMITS,
            bootstraps=(1, 10),
        ),
        Grid(
            groups=(20,),
            samples_per_class=(100,),
            upper_limits=_LIMITS,
            fractions=(0.98,),
            bootstraps=(1, 3, 10, 30, 100),
        ),
    ],
    "mnist_mlp": [
        Grid(
            groups=_GROUPS,
            samples_per_class=(250,),
            upper_limits=_LIMITS,
            criteria=("mint", "random"),
        ),
        Grid(
            groups=(20,),
            samples_per_class=(150, 250, 350, 450, 550, 650),
            upper_limits=_LIMITS,
            bootstraps=(None, 1),
        ),
        Grid(
            groups=(20,),
            samples_per_class=(250,),
            upper_limits=_LIMITS,
            fractions=(0.97,),
            bootstraps=(1, 10, 50, 200),
        ),
    ],
}
SWEEP = SweepDefinition(
    name="puzzles",
    question="Do more groups, samples or bootstraps change the pruned fraction by more than "
    "another seed does?",
    grids=_GRIDS,
    seeds=(0, 1, 2),
)

if __name__ == "__main__":
    raise SystemExit(sweep_main(SWEEP))
