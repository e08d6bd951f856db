"""MINT at exactly the shares that the reference results of its authors state."""

from mint.config.axes import Retraining
from mint.config.grid import Grid, SweepDefinition

RETRAINING: tuple[Retraining, ...] = ("none", "light", "full")


COMPARED = ("mint-unconditional", "random", "block-magnitude")


def _cell(groups: int, samples: int, limit: str, *shares: float) -> Grid:
    return Grid(
        groups=(groups,),
        samples_per_class=(samples,),
        upper_limits=(limit,),
        fractions=shares,
        retraining=RETRAINING,
    )


# The group and sample tables. A share above its limit cannot be pruned: such cells are left out.
CELLS = [
    _cell(5, 250, "none", 0.8627),
    _cell(10, 250, "none", 0.8823),
    # With the three rows of the comparison, the last of them by the other criteria, too.
    _cell(20, 250, "none", 0.8848, 0.9061, 0.9568, 0.9601),
    _cell(20, 250, "none", 0.9601).model_copy(update={"criteria": COMPARED}),
    _cell(50, 250, "none", 0.9187),
    _cell(20, 250, "0.8", 0.7696),
    _cell(50, 250, "0.8", 0.7732),
    _cell(50, 250, "1", 0.7732),
    _cell(20, 150, "none", 0.8535),
    _cell(20, 350, "none", 0.8848),
    _cell(20, 450, "none", 0.8872),
    _cell(20, 550, "none", 0.7941),
    _cell(20, 650, "none", 0.897),
]
SWEEP = SweepDefinition(
    name="published_shares",
    question="How accurate are our networks at the shares that the reference results state?",
    grids={
        "mnist_mlp": CELLS,
        "mnist_mlp_fine": [
            _cell(250, 50, "none", 0.9601).model_copy(update={"criteria": ("mint", *COMPARED)})
        ],
    },
    seeds=(0, 1, 2, 3, 4),
)

if __name__ == "__main__":
    from mint.cli.sweep import sweep_main

    raise SystemExit(sweep_main(SWEEP))
