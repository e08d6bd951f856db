"""Sweeps: the values that each axis takes, and the sweeps that come with mint."""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict

from mint.config.locations import bundled
from mint.config.schema import DEFAULT_CRITERION
from mint.errors import InputError

_LIMIT_RULE = re.compile(r"g/(\d+)|\(g/(\d+)\)\^2")


class Grid(BaseModel):
    """A product of axes; limits may depend on the groups, as g/50 or (g/50)^2 do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[int, ...]
    samples_per_class: tuple[int, ...]
    upper_limits: tuple[str, ...]
    fractions: tuple[float | None, ...] = (None,)
    bootstraps: tuple[int | None, ...] = (None,)
    criteria: tuple[str, ...] = (DEFAULT_CRITERION,)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the axes of every trial as fields of TrialConfig.

        Limits vary slowest: trials that run side by side then seldom wait for the same scores.
        """
        for limit, fraction, groups, samples, bootstraps, criterion in product(
            self.upper_limits,
            self.fractions,
            self.groups,
            self.samples_per_class,
            self.bootstraps,
            self.criteria,
        ):
            yield {
                "groups": groups,
                "samples_per_class": samples,
                "upper_limit": parse_limit(limit, groups),
                "fraction": fraction,
                "bootstraps": bootstraps,
                "criterion": criterion,
            }


@dataclass(frozen=True)
class SweepDefinition:
    """A question, and the trials that answer it.

    Attributes:
        name: of the sweep.
        question: in one or two sentences.
        grids: for each experiment, its trials; the first experiment is the default.
        seeds: of every trial.
    """

    name: str
    question: str
    grids: Mapping[str, Sequence[Grid]]
    seeds: Sequence[int] = (0,)

    def grids_of(self, experiment: str, axes: Mapping[str, Any]) -> list[Grid]:
        """Return the grids of an experiment with other values of some axes.

        Args:
            experiment: name; one without a grid of its own needs values of all required axes.
            axes: values that replace those of the grids, by field of Grid; None keeps them.

        Raises:
            InputError: a required axis has no values.
        """
        given = {axis: values for axis, values in axes.items() if values}
        if own := self.grids.get(experiment):
            return [grid.model_copy(update=given) for grid in own]
        for axis, field in Grid.model_fields.items():
            if field.is_required() and axis not in given:
                problem = f"must be given: {self.name} has no grid of its own for {experiment}"
                raise InputError(problem, parameter=axis)
        criteria = next(iter(self.grids.values()))[0].criteria
        return [Grid.model_validate({"criteria": criteria} | given)]


def union_of(grids: Sequence[Grid]) -> Grid:
    """Return one grid with the values of several."""
    return Grid.model_validate(
        {
            axis: tuple(dict.fromkeys(value for grid in grids for value in getattr(grid, axis)))
            for axis in Grid.model_fields
        }
    )


def bundled_sweeps() -> dict[str, SweepDefinition]:
    """Return the sweeps that come with mint, by name: the SWEEP of every script in sweeps/."""
    found = {}
    for path in sorted(bundled("sweeps").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"mint_sweep_{path.stem}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.stem] = module.SWEEP
    return found


def parse_limit(text: str, groups: int) -> float | None:
    """Return an upper limit from its text: none, a number from 0 to 1, g/N or (g/N)^2.

    Raises:
        InputError: the text is none of these, or the limit is not between 0 and 1.
    """
    problem = "allowed are none, a number from 0 to 1, and g/N or (g/N)^2 with g the groups"
    if text == "none":
        return None
    rule = _LIMIT_RULE.fullmatch(text)
    try:
        if rule:
            linear, squared = rule.groups()
            limit = Fraction(groups, int(linear)) if linear else Fraction(groups, int(squared)) ** 2
        else:
            limit = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(problem, parameter="upper_limit", value=text) from None
    if not 0 <= limit <= 1:
        at = f" at {groups} groups is {float(limit):g}" if rule else ""
        raise InputError(problem, parameter="upper_limit", value=f"{text}{at}")
    return float(limit)
