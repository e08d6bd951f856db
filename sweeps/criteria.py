"""MINT beside the controls that any claim of it has to be held against."""

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition
from mint.config.schema import CRITERIA

_AXES = Grid(
    groups=(20,),
    samples_per_class=(250,),
    upper_limits=("none",),
    # Up to 96%, masks of these networks hardly differ in accuracy; beyond it they do.
    fractions=(0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995),
    # The MLPs have no batch norm, whose scale bn-scale takes.
    criteria=tuple(name for name in CRITERIA if name != "bn-scale"),
)
SWEEP = SweepDefinition(
    name="criteria",
    question="At the same budget, how accurate are networks pruned by MINT, by magnitude, by other "
    "criteria and at random?",
    grids={
        # Its rarest class has fewer training images.
        "digits_mlp": [_AXES.model_copy(update={"samples_per_class": (100,)})],
        "mnist_mlp": [_AXES],
        "mnist_mlp_fine": [_AXES.model_copy(update={"groups": (250,), "samples_per_class": (50,)})],
        "mnist_mlp_input": [
            _AXES.model_copy(update={"groups": (196,), "samples_per_class": (100,)})
        ],
        "resnet56_cifar10_short": [
            # One filter a group. Of all its weights 92.5% may go, for some layers stay untouched.
            _AXES.model_copy(
                update={
                    "groups": (64,),
                    "samples_per_class": (500,),
                    "fractions": (0.3, 0.5, 0.7, 0.8, 0.9),
                    "criteria": tuple(CRITERIA),
                }
            )
        ],
    },
    seeds=(0, 1, 2),
)

if __name__ == "__main__":
    raise SystemExit(sweep_main(SWEEP))
