"""The benchmark of criteria; docs/benchmark.md has its rules."""

from mint.config.grid import Grid, SweepDefinition

SHARES = (0.9, 0.95, 0.98, 0.99, 0.995)
CRITERIA = (
    *("random", "block-magnitude", "activation-magnitude", "taylor"),
    *("mint", "mint-unconditional", "mint-gaussian", "mint-gaussian-unconditional"),
)


def _network(groups: int, samples: int) -> list[Grid]:
    light = Grid(
        groups=(groups,),
        grouping=("contiguous", "clustered"),
        samples_per_class=(samples,),
        upper_limits=("none",),
        fractions=SHARES,
        retraining=("light",),
        criteria=CRITERIA,
    )
    none = light.model_copy(update={"retraining": ("none",), "compensate": ("no", "yes")})
    return [none, light]


SWEEP = SweepDefinition(
    name="benchmark",
    question="Which criterion keeps most accuracy at the same share, groups and retraining?",
    grids={
        "digits_mlp_connected": _network(20, 100),
        "mnist_mlp_connected": _network(20, 250),
        "lenet5_mnist": _network(20, 250),
        "resnet8_cifar10": _network(16, 250),
    },
    # Other seeds chose the criteria, their settings and the margins.
    seeds=(1000, 1001, 1002, 1003, 1004),
)

if __name__ == "__main__":
    from mint.cli.sweep import sweep_main

    raise SystemExit(sweep_main(SWEEP))
