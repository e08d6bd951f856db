"""Groups of filters, samples per class and upper limits, as the MINT paper varies them."""

from mint.config.grid import Grid, SweepDefinition

DIGITS = Grid(
    groups=(5, 10, 20, 50),
    samples_per_class=(50, 100),
    upper_limits=("none", "0.8"),
)
# The variations of the MINT paper; in a limit, g is the number of groups.
MNIST_GROUPS = Grid(
    groups=(5, 10, 20, 30, 40, 50),
    samples_per_class=(250,),
    upper_limits=("none", "0.8", "g/50", "(g/50)^2"),
    retraining=("none", "light", "full"),
)
MNIST_SAMPLES = Grid(
    groups=(20,),
    samples_per_class=(150, 250, 350, 450, 550, 650),
    upper_limits=("none",),
    retraining=("none", "light", "full"),
)
SWEEP = SweepDefinition(
    name="groups_vs_samples",
    question="How do the groups of filters, the samples per class and an upper limit change how "
    "much can be pruned until accuracy drops by the margin?",
    grids={"digits_mlp": [DIGITS], "mnist_mlp": [MNIST_GROUPS, MNIST_SAMPLES]},
    seeds=(0,),
)

if __name__ == "__main__":
    from mint.cli.sweep import sweep_main

    raise SystemExit(sweep_main(SWEEP))
