"""Sweeps: the values that each axis takes, and the sweeps that come with mint."""

import re
import runpy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict

from mint.config.axes import Compensate, Grouping, Retraining
from mint.config.locations import bundled
from mint.config.schema import DEFAULT_CRITERION
from mint.errors import InputError

_LIMIT_RULE = re.compile(r"(\()?g/(\d+)(?(1)\)\^2)")


class Grid(BaseModel):
    """A product of axes; limits may depend on the groups, as g/50 or (g/50)^2 do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[int, ...]
    grouping: tuple[Grouping, ...] = ("contiguous",)
    samples_per_class: tuple[int, ...]
    upper_limits: tuple[str, ...]
    fractions: tuple[float | None, ...] = (None,)
    bootstraps: tuple[int | None, ...] = (None,)
    retraining: tuple[Retraining, ...] = ("full",)
    compensate: tuple[Compensate, ...] = ("no",)
    criteria: tuple[str, ...] = (DEFAULT_CRITERION,)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the axes of every trial as fields of TrialConfig.

        Limits vary slowest: trials that run side by side then seldom wait for the same scores.
        """
        axes: dict[str, tuple[Any, ...]] = {
            "upper_limit": self.upper_limits,
            "fraction": self.fractions,
            "groups": self.groups,
            "grouping": self.grouping,
            "samples_per_class": self.samples_per_class,
            "bootstraps": self.bootstraps,
            "criterion": self.criteria,
            "retraining": self.retraining,
            "compensate": self.compensate,
        }
        for values in product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            yield point | {"upper_limit": parse_limit(point["upper_limit"], point["groups"])}


@dataclass(frozen=True)
class SweepDefinition:
    """A question, and for each experiment the trials that answer it; the first is the default."""

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
    paths = sorted(bundled("sweeps").glob("*.py"))
    return {path.stem: runpy.run_path(str(path))["SWEEP"] for path in paths}


def parse_limit(text: str, groups: int) -> float | None:
    """Return an upper limit from its text: none, a number from 0 to 1, g/N or (g/N)^2.

    Raises:
        InputError: the text is none of these, or the limit is not between 0 and 1.
    """
    if text == "none":
        return None
    rule, limit = _LIMIT_RULE.fullmatch(text), None
    with suppress(ValueError, ZeroDivisionError):
        limit = Fraction(groups, int(rule[2])) ** (2 if rule[1] else 1) if rule else Fraction(text)
    if limit is None or not 0 <= limit <= 1:
        at = "" if rule is None or limit is None else f" at {groups} groups is {float(limit):g}"
        problem = "allowed are none, a number from 0 to 1, and g/N or (g/N)^2 with g the groups"
        raise InputError(problem, parameter="upper_limit", value=f"{text}{at}")
    return float(limit)
