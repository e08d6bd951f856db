"""The record's group and sample variations."""

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition

SWEEP = SweepDefinition(
    name="groups_vs_samples",
    question="How do the groups of filters, the samples per class and an upper limit change how "
    "much can be pruned at no loss of accuracy?",
    grids={
        "digits_mlp": [
            Grid(
                groups=(5, 10, 20, 50),
                samples_per_class=(50, 100),
                upper_limits=("none", "0.8"),
            ),
        ],
        # The record's own variations.
        "mnist_mlp": [
            Grid(
                groups=(5, 10, 20, 50),
                samples_per_class=(250,),
                upper_limits=("none", "0.8", "g/50", "(g/50)^2"),
            ),
            Grid(
                groups=(20,),
                samples_per_class=(150, 250, 350, 450, 550, 650),
                upper_limits=("none",),
            ),
        ],
    },
)

if __name__ == "__main__":
    raise SystemExit(sweep_main(SWEEP))
