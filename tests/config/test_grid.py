"""Limits as text, and the product of the axes of a sweep."""

import pytest

from mint.config.grid import Grid, bundled_sweeps, parse_limit
from mint.config.loading import load_experiment
from mint.config.schema import format_share
from mint.errors import InputError


@pytest.mark.parametrize(
    ("word", "groups", "limit"),
    [
        ("none", 5, None),
        ("0.8", 5, 0.8),
        ("0", 5, 0.0),
        ("1", 5, 1.0),
        ("g/50", 5, 0.1),
        ("g/50", 50, 1.0),
        ("(g/50)^2", 20, 0.16),
        ("(g/50)^2", 5, 0.01),
    ],
)
def test_limits(word: str, groups: int, limit: float | None) -> None:
    assert parse_limit(word, groups) == limit
    assert parse_limit(format_share(limit), groups) == limit


@pytest.mark.parametrize("word", ["1.1", "-0.1", "nan", "inf", "half", "g/0", "g/2", "", "1/0"])
def test_limit_out_of_range_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="upper_limit"):
        parse_limit(word, 5)


def test_grid_rules_meet_in_one_point() -> None:
    grid = Grid(groups=(50,), samples_per_class=(250,), upper_limits=("g/50", "(g/50)^2", "1"))
    points = list(grid.points())
    assert len(points) == 3
    assert all(point == points[0] for point in points)
    assert points[0]["upper_limit"] == 1.0


def test_bundled_sweeps_name_experiments_that_exist() -> None:
    sweeps = bundled_sweeps()
    assert {"groups_vs_samples", "criteria"} <= sweeps.keys()
    for name, sweep in sweeps.items():
        assert sweep.name == name
        for experiment, grids in sweep.grids.items():
            load_experiment(experiment)
            assert all(list(grid.points()) for grid in grids)
