"""MINT beside the controls that any claim of it has to be held against."""

from mint.config import CRITERIA, Grid
from mint.sweep_cli import sweep_main

QUESTION = (
    "At the same budget, how accurate are networks pruned by MINT, by magnitude, by other criteria "
    "and at random?"
)
# The MLPs have no batch norm, whose scale bn-scale takes.
_CRITERIA = tuple(name for name in CRITERIA if name != "bn-scale")
_AXES = Grid(
    groups=(20,),
    samples_per_class=(250,),
    upper_limits=("none",),
    # Up to 96%, masks of these networks hardly differ in accuracy; beyond it they do.
    fractions=(0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995),
    criteria=_CRITERIA,
)
GRIDS = {
    # Its rarest class has fewer training images.
    "digits_mlp": [_AXES.model_copy(update={"samples_per_class": (100,)})],
    "mnist_mlp": [_AXES],
}

if __name__ == "__main__":
    raise SystemExit(sweep_main(QUESTION, "criteria", GRIDS, seeds=(0, 1, 2)))
