"""Questions about the share at the margin without an upper limit: groups, samples, bootstraps."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from conclusions import Answer, answer, contrast, deviation_ratio, format_contrasts

from mint.config.schema import DEFAULT_CRITERION
from mint.reporting.aggregate import REGIMES, SHARE, SeedGroup
from mint.reporting.comparison import CONTROL, CONTROLS
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.reference import ReferenceResults, Variation
from mint.reporting.statistics import Cell, Difference, marked

_FEWEST_POINTS = 3  # of a line
_AXES = ("groups", "samples_per_class", "bootstraps")


class Line(NamedTuple):
    """Searches of one criterion that differ in one axis: seed groups by its value, ascending."""

    setting: str
    criterion: str
    groups: Mapping[int, SeedGroup]

    def contrast(self, weights: Mapping[int, float]) -> Difference | None:
        """Return a weighted sum of the shares at the margin; None if a value was not run."""
        if weights.keys() - self.groups.keys():
            return None
        return contrast([(weight, self.groups[value]) for value, weight in weights.items()])

    @property
    def change(self) -> dict[int, float]:
        """The weights of the difference between the last value and the first."""
        first, *_, last = self.groups
        return {last: 1.0, first: -1.0}

    @property
    def slope(self) -> dict[int, float]:
        """The weights of the slope for a hundred more: that of least squares."""
        values = np.array(list(self.groups), np.float64)
        centred = values - values.mean()
        weights = 100 * centred / (centred @ centred)
        return dict(zip(self.groups, map(float, weights), strict=True))


def search_questions(protocols: Sequence[Protocol], reference: ReferenceResults) -> list[Answer]:
    """Return the answers on groups, samples per class, bootstraps and uneven groups.

    Args:
        protocols: of all trials; those of the reference's experiments count.
        reference: results of the authors' experiment on MNIST.
    """
    own = [each for each in protocols if each.experiment in reference.experiments]
    return [
        _more_groups(own, reference.groups),
        _more_samples(own, reference.samples),
        _averaging(own),
        _uneven_groups(own),
    ]


def _lines(
    protocols: Iterable[Protocol], axis: str, criterion: str = DEFAULT_CRITERION
) -> list[Line]:
    """Return a criterion's lines along an axis: the longest of each protocol and regime.

    Of samples per class, one for each number of bootstraps.
    """
    found: dict[tuple[str, object], list[Line]] = defaultdict(list)
    for protocol in protocols:
        by_key: dict[tuple[object, ...], dict[int, SeedGroup]] = defaultdict(dict)
        for group in protocol.groups:
            unlimited = (group.upper_limit, group.fraction, group.criterion)
            if unlimited == ("none", "none", criterion) and group.margin is not None:
                others = [getattr(group, name) for name in _AXES if name != axis]
                by_key[group.retraining, group.margin, *others][getattr(group, axis)] = group
        for (regime, _, _, bootstraps), groups in by_key.items():
            setting = f"{protocol.experiment}, {protocol.under(str(regime))}"
            apart = bootstraps if axis == "samples_per_class" else None
            if apart:
                setting += f", {bootstraps} bootstraps"
            ordered = dict(sorted(groups.items()))
            found[str(regime), (protocol.title, apart)].append(Line(setting, criterion, ordered))
    longest = {key: max(lines, key=lambda line: len(line.groups)) for key, lines in found.items()}
    order = sorted(longest, key=lambda key: REGIMES.index(key[0]))
    return [longest[key] for key in order if len(longest[key].groups) >= _FEWEST_POINTS]


Contrasts = Mapping[str, Callable[[Line], Difference | str | None]]
"""By column title, a figure of a line."""


def _table(
    axis: str,
    lines: Sequence[Line],
    contrasts: Contrasts,
    published: Iterable[Variation] = (),
) -> tuple[list[str], list[list[Cell]]]:
    """Return a table with a row for each line, and its contrasts."""
    values = sorted({value for line in lines for value in line.groups})
    header = ["Retraining", "Criterion", *map(str, values), *contrasts, "Seeds"]
    drawn: list[list[Cell]] = [[of(line) for of in contrasts.values()] for line in lines]
    rows: list[list[Cell]] = []
    for line, own in zip(lines, drawn, strict=True):
        groups = [line.groups.get(value) for value in values]
        shares = [group.mean(SHARE) if group else None for group in groups]
        seeds = max((len(group.finished) for group in line.groups.values()), default=0)
        rows.append([line.setting, line.criterion, *shares, *own, str(seeds)])
    known = {
        getattr(row, axis): f"{row.params_pruned:.2f}"
        for row in published
        if row.upper_limit == "none" and row.params_pruned is not None
    }
    if known:
        figures = [known.get(value, "N/A") for value in values]
        rows.append(["reference results", "mint", *figures, *["N/A"] * len(contrasts), "1"])
    return table(header, marked(rows, "not run"), left=(0, 1)), drawn


def _more_groups(protocols: Sequence[Protocol], published: Iterable[Variation]) -> Answer:
    mint = _lines(protocols, "groups")
    controls = [line for name in CONTROLS for line in _lines(protocols, "groups", name)]
    random = {line.setting: line for line in controls if line.criterion == CONTROL}

    def beyond_random(line: Line) -> Difference | str | None:
        if line.criterion == CONTROL:
            return "N/A"
        if not (control := random.get(line.setting)):
            return None
        weights = line.change
        if weights.keys() - control.groups.keys():
            return None
        own = [(weight, line.groups[value]) for value, weight in weights.items()]
        return contrast(
            own + [(-weight, control.groups[value]) for value, weight in weights.items()]
        )

    contrasts = {
        "Last less first": lambda line: line.contrast(line.change),
        "Beyond random's": beyond_random,
    }
    lines, drawn = _table("groups", [*mint, *controls], contrasts, published)
    settings = [line.setting for line in mint]
    ends = [min(mint[0].groups), max(mint[0].groups)] if mint else [0, 0]
    return answer(
        "Do more groups prune more, and why not linearly?",
        "The reference results are 86.27, 88.23, 88.48 and 91.87% at 5, 10, 20 and 50 groups. With "
        "g x g groups one block is 1/g² of the weights.",
        [
            f"From {ends[0]} to {ends[1]} groups MINT's share at the margin changes by "
            + format_contrasts(settings, [own[0] for own in drawn]),
            "Beyond what random blocks gain from finer groups, MINT gains "
            + format_contrasts(settings, [own[1] for own in drawn]),
        ],
        lines if mint else [],
    )


def _more_samples(protocols: Sequence[Protocol], published: Iterable[Variation]) -> Answer:
    mint = _lines(protocols, "samples_per_class")
    contrasts = {
        "For 100 more": lambda line: line.contrast(line.slope),
        "550 less mean of 450 and 650": lambda line: line.contrast({550: 1, 450: -0.5, 650: -0.5}),
        "SD over seeds": _median_deviation,
    }
    lines, drawn = _table("samples_per_class", mint, contrasts, published)
    settings = [line.setting for line in mint]
    return answer(
        "Why do more samples seem to prune less, and what is the dip at 550?",
        "The reference results are 85.35, 88.48, 88.48, 88.72, 79.41 and 89.70% at 150 to 650 "
        "samples per class: one run each, with one bootstrap. SD is the median over the row.",
        [
            "With every hundred samples more, the share at the margin changes by "
            + format_contrasts(settings, [own[0] for own in drawn]),
            "At 550 it differs from the mean of 450 and 650, where the reference results differ by "
            "-9.80, by " + format_contrasts(settings, [own[1] for own in drawn]),
        ],
        lines if mint else [],
    )


def _median_deviation(line: Line) -> str:
    values = [group.values(SHARE) for group in line.groups.values()]
    known = [float(np.std(each, ddof=1)) for each in values if len(each) > 1]
    return f"{np.median(known):.2f}" if known else "N/A"


def _averaging(protocols: Sequence[Protocol]) -> Answer:
    mint = _lines(protocols, "bootstraps")

    def ratio(line: Line) -> str:
        first, *_, last = line.groups
        return deviation_ratio(line.groups[last], line.groups[first])

    contrasts = {
        "Last less first": lambda line: line.contrast(line.change),
        "Ratio of SDs": ratio,
        "Reliability": lambda line: ", ".join(each.reliability for each in line.groups.values()),
    }
    lines, drawn = _table("bootstraps", mint, contrasts)
    settings = [line.setting for line in mint]
    return answer(
        "Does averaging the estimates steady the result?",
        "The authors suggest it: average the estimates over several runs. The columns are numbers "
        "of bootstraps; the ratio is of the standard deviations over seeds, last to first.",
        [
            "With the most bootstraps instead of the fewest the share at the margin changes by "
            + format_contrasts(settings, [own[0] for own in drawn]),
            "Its standard deviation over seeds is multiplied by "
            + "; ".join(
                f"{own[1]} ({line.setting})" for own, line in zip(drawn, mint, strict=True)
            ),
        ],
        lines if mint else [],
    )


def _uneven_groups(protocols: Sequence[Protocol]) -> Answer:
    mint = [line for line in _lines(protocols, "groups") if {20, 30, 40, 50} <= line.groups.keys()]
    contrasts = {
        "30 less line": lambda line: line.contrast({30: 1, 20: -2 / 3, 50: -1 / 3}),
        "40 less line": lambda line: line.contrast({40: 1, 20: -1 / 3, 50: -2 / 3}),
    }
    lines, drawn = _table("groups", mint, contrasts)
    settings = [line.setting for line in mint]
    return answer(
        "What do uneven groups, 30 and 40, do?",
        "The original does not score the filters that remain after an even division, and its "
        "authors discount both. Here groups differ in size by at most one filter, and all are "
        "scored. The line is the straight one between 20 and 50 groups with the same seed.",
        [
            f"{groups} groups differ from the line by "
            + format_contrasts(settings, [own[at] for own in drawn])
            for at, groups in enumerate((30, 40))
        ],
        lines if mint else [],
    )
