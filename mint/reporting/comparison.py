"""Differences that are paired by seed: between criteria, and along an axis of a sweep."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from mint.config.schema import DEFAULT_CRITERION
from mint.reporting.aggregate import (
    ACCURACY,
    GROUPINGS,
    REGIMES,
    SHARE,
    SeedGroup,
    order_of_criteria,
)
from mint.reporting.statistics import MARGIN_OF_ACCURACY, MARGIN_OF_SHARE, Difference

CONTROL = "random"
CONTROLS = (CONTROL, "block-magnitude")
VARIED_AXES = ("groups", "samples_per_class", "bootstraps")
_EQUAL = (
    *("experiment", "protocol", "margin", "retraining", "compensate", "upper_limit", "fraction"),
    "criterion",
)
_MARGINS = {SHARE: MARGIN_OF_SHARE, ACCURACY: MARGIN_OF_ACCURACY}


class Differences(NamedTuple):
    """Differences of two sides of a comparison; None where no pair has the figure."""

    share: Difference | None
    accuracy: Difference | None


def paired_groups(
    first: Iterable[SeedGroup], second: Iterable[SeedGroup], but: Collection[str]
) -> Iterator[tuple[SeedGroup, SeedGroup]]:
    """Yield the pairs of seed groups that agree in everything but some columns.

    A criterion that does not use an axis agrees with all values of the axis.
    """
    equal = [column for column in _EQUAL if column not in but]
    axes = [axis for axis in VARIED_AXES if axis not in but]
    found = defaultdict(list)
    for group in second:
        found[tuple(getattr(group, column) for column in equal)].append(group)
    for group in first:
        for other in found[tuple(getattr(group, column) for column in equal)]:
            grouped = group.groups and other.groups and "grouping" not in but
            if grouped and group.grouping != other.grouping:
                continue
            values = ((getattr(group, axis), getattr(other, axis)) for axis in axes)
            if all(own == theirs or 0 in (own, theirs) for own, theirs in values):
                yield group, other


def differences(pairs: Iterable[tuple[SeedGroup, SeedGroup]]) -> Differences:
    """Return the mean differences of pairs of seed groups: one value a seed, over all pairs."""
    by_seed: dict[str, dict[int, list[float]]] = {
        SHARE: defaultdict(list),
        ACCURACY: defaultdict(list),
    }
    resolution = 0.0
    for one, other in pairs:
        resolution = max(resolution, one.resolution, other.resolution)
        for (column, seed), value in one.comparable.items():
            if (column, seed) in other.comparable:
                by_seed[column][seed].append(value - other.comparable[column, seed])

    def difference(column: str) -> Difference | None:
        means = [float(np.mean(values)) for _, values in sorted(by_seed[column].items())]
        floor = resolution if column == ACCURACY else 0.0
        return Difference.of(means, floor, _MARGINS[column])

    return Differences(difference(SHARE), difference(ACCURACY))


class Effect(NamedTuple):
    """What one value of an axis changes against another, over all settings that share the rest."""

    retraining: str
    axis: str
    low: str
    high: str
    of: Differences


def effects_of_criteria(groups: Sequence[SeedGroup]) -> list[Effect]:
    """Return what each criterion of one protocol changes against the controls."""
    found = []
    for retraining, own in _by_retraining(groups):
        names = sorted(own, key=order_of_criteria)
        for control, name in product(CONTROLS, names):
            if control in own and name not in (control, CONTROL):
                pairs = paired_groups(own[name], own[control], {"criterion"})
                found.append(Effect(retraining, "criterion", control, name, differences(pairs)))
    return [effect for effect in found if any(effect.of)]


def effects_of_axes(groups: Sequence[SeedGroup]) -> list[Effect]:
    """Return what each value of an axis changes against the lowest, for MINT in one protocol."""
    found = []
    for (retraining, by_criterion), axis in product(_by_retraining(groups), VARIED_AXES):
        own: dict[int, list[SeedGroup]] = defaultdict(list)
        for group in by_criterion.get(DEFAULT_CRITERION, ()):
            own[getattr(group, axis)].append(group)
        low, *others = sorted(own) or [0]
        for value in others:
            pairs = paired_groups(own[value], own[low], {axis})
            found.append(Effect(retraining, axis, str(low), str(value), differences(pairs)))
    return [effect for effect in found if any(effect.of)]


def _by_retraining(
    groups: Iterable[SeedGroup],
) -> list[tuple[str, Mapping[str, list[SeedGroup]]]]:
    """Return the seed groups to compare by criterion, for each regime of retraining."""
    found: dict[str, dict[str, list[SeedGroup]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        if group.comparable:
            found[group.retraining][group.criterion].append(group)
    return [(regime, found[regime]) for regime in REGIMES if regime in found]


class SharedAxes(NamedTuple):
    """The axes that compared criteria share; 0 for an axis that none of them uses."""

    retraining: str
    upper_limit: str
    groups: int
    samples_per_class: int
    bootstraps: int
    grouping: str
    compensate: str


@dataclass(frozen=True)
class ComparedCriterion:
    """The trials of a criterion at one fraction or margin, among those that share axes with them.

    against has the differences to the controls at these axes.
    """

    axes: SharedAxes
    trials: SeedGroup
    against: Mapping[str, Difference | None]


def compare_criteria(groups: Iterable[SeedGroup]) -> list[ComparedCriterion]:
    """Compare the criteria of one protocol at every fraction and margin; nothing for one criterion.

    A criterion that does not use an axis is compared at all values of the axis.
    """
    known = [group for group in groups if group.comparable]
    if len({group.criterion for group in known}) < 2:
        return []
    compared = []
    for axes, own in _sharing_axes(known):
        for group in sorted(own, key=lambda group: order_of_criteria(group.criterion)):
            against = {}
            for name in CONTROLS:
                # Random blocks are the control of block magnitude, and not the other way round.
                controlled = group.criterion not in (name, CONTROL)
                control = [other for other in own if controlled and other.criterion == name]
                of = differences(paired_groups([group], control, {"criterion"}))
                against[name] = of.share or of.accuracy
            compared.append(ComparedCriterion(axes, group, against))
    return compared


def _sharing_axes(groups: Iterable[SeedGroup]) -> Iterator[tuple[SharedAxes, list[SeedGroup]]]:
    """Yield shared axes with the seed groups of one fraction or margin, comparable at them."""
    budgets: dict[tuple[int, str, float, bool, float], list[SeedGroup]] = defaultdict(list)
    for group in groups:
        limit = float(group.upper_limit.replace("none", "-inf"))
        regime = REGIMES.index(group.retraining)
        searched = group.margin is not None
        share = group.margin if group.margin is not None else float(group.fraction)
        budgets[regime, group.compensate, limit, searched, share].append(group)
    for _, of_budget in sorted(budgets.items()):
        by_point: dict[tuple[int, ...], list[SeedGroup]] = defaultdict(list)
        for group in of_budget:
            grouping = GROUPINGS.index(group.grouping) + 1 if group.groups else 0
            axes = (group.groups, group.samples_per_class, group.bootstraps, grouping)
            by_point[axes].append(group)
        points = sorted(by_point)
        for point in points:
            # The axes that random blocks use are some of MINT's: no comparison of their own.
            if any(wider != point and point in _narrowed(wider) for wider in points):
                continue
            sharing = _narrowed(point)
            own = [group for other in points if other in sharing for group in by_point[other]]
            first = of_budget[0]
            number, samples, bootstraps, grouping = point
            used = number, samples, bootstraps, GROUPINGS[max(grouping - 1, 0)]
            shared = (first.retraining, first.upper_limit, *used, first.compensate)
            yield SharedAxes(*shared), own


def _narrowed(point: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Return the point, and those at which some of its axes are not used."""
    return set(product(*({value, 0} for value in point)))
