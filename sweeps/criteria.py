"""MINT against the control criteria: at the same pruned fraction, and where accuracy drops."""

from typing import Any

from mint.config.grid import Grid, SweepDefinition
from mint.config.schema import CRITERIA

AXES = Grid(
    groups=(20,),
    samples_per_class=(250,),
    upper_limits=("none",),
    # Up to 0.96 the accuracies of these networks hardly differ; above it they do.
    fractions=(0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995),
    # The MLPs have no batch norm, whose scale is the criterion bn-scale.
    criteria=tuple(name for name in CRITERIA if name != "bn-scale"),
)
# The share at the margin, for the criteria that score the same blocks.
SEARCHED = Grid(
    groups=(5, 10, 20, 30, 40, 50),
    samples_per_class=(250,),
    upper_limits=("none",),
    criteria=("mint", "mint-unconditional", "random", "block-magnitude"),
    retraining=("none", "light", "full"),
)
FINE: dict[str, Any] = {"groups": (250,), "samples_per_class": (50,)}
RESNET56_AXES = Grid(
    groups=(64,),  # one filter per group
    samples_per_class=(500,),
    upper_limits=("none",),
    # At most 0.925 of all weights can be pruned, because some layers are kept whole.
    fractions=(0.3, 0.5, 0.7, 0.8, 0.9),
    criteria=tuple(CRITERIA),
)
SWEEP = SweepDefinition(
    name="criteria",
    question="At the same pruned fraction, how accurate are networks pruned by MINT, by magnitude, "
    "by other criteria and at random?",
    grids={
        # The rarest class of digits has fewer training images than 250.
        "digits_mlp": [
            AXES.model_copy(update={"samples_per_class": (100,), "retraining": ("light",)})
        ],
        "mnist_mlp": [AXES.model_copy(update={"retraining": SEARCHED.retraining}), SEARCHED],
        "mnist_mlp_fine": [
            AXES.model_copy(
                update={**FINE, "retraining": SEARCHED.retraining, "criteria": SEARCHED.criteria}
            ),
            SEARCHED.model_copy(update=FINE),
        ],
        "mnist_mlp_input": [
            AXES.model_copy(update={"groups": (196,), "samples_per_class": (100,)})
        ],
        "resnet56_cifar10_short": [RESNET56_AXES],
    },
    seeds=(0, 1, 2, 3, 4),
)

if __name__ == "__main__":
    from mint.cli.sweep import sweep_main

    raise SystemExit(sweep_main(SWEEP))
