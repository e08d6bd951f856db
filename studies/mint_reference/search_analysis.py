"""Questions about searches without an upper limit: groups, samples per class, bootstraps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from conclusions import (
    ACCURACY,
    PRUNED,
    against_line,
    by_seed,
    compare_deviations,
    describe,
    outcomes,
    paired,
    section,
)

from mint.config.schema import DEFAULT_CRITERION
from mint.reporting.aggregate import NOT_RUN, SeedGroup, format_axis, format_count
from mint.reporting.comparison import CONTROL
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.reference import ReferenceResults, Variation
from mint.reporting.statistics import Cell, Difference, marked

_MAGNITUDE = "block-magnitude"
_EVEN_AND_UNEVEN = (20, 30, 40, 50)
_Published = Mapping[tuple[int, int], float | None]


def search_questions(protocols: Sequence[Protocol], reference: ReferenceResults) -> list[str]:
    """Return the sections on groups, samples per class, bootstraps and uneven groups.

    Args:
        protocols: of all trials.
        reference: results of the authors' experiment on MNIST.
    """
    # MNIST first: the reference results are of it.
    ordered = sorted(protocols, key=lambda protocol: protocol.experiment != "mnist_mlp")
    return [
        *_more_groups(ordered, _unlimited(reference.groups)),
        *_more_samples(ordered, _unlimited(reference.samples)),
        *_averaging(ordered),
        *_uneven_groups(ordered),
    ]


def _unlimited(rows: Iterable[Variation]) -> _Published:
    return {
        (row.groups, row.samples_per_class): row.params_pruned
        for row in rows
        if row.upper_limit == "none"
    }


def _searches(protocol: Protocol, axis: str, criterion: str = DEFAULT_CRITERION) -> list[SeedGroup]:
    """Return a criterion's searches without a limit, in the order of an axis."""
    own = [
        group
        for group in protocol.groups
        if (group.upper_limit, group.fraction, group.criterion) == ("none", "none", criterion)
        and group.finished
    ]
    return sorted(own, key=lambda group: getattr(group, axis))


def _more_groups(protocols: Iterable[Protocol], published: _Published) -> list[str]:
    text: list[str] = []
    for protocol in protocols:
        mint = _one_sample_size(_searches(protocol, "groups"))
        if len(mint) < 3:
            continue
        others = {
            name: {group.groups: group for group in _searches(protocol, "groups", name)}
            for name in (CONTROL, _MAGNITUDE)
        }
        header = ["Groups", "Blocks", "MINT pruned (%)", "Seeds"]
        header += [f"{name} pruned (%)" for name in others] + ["MINT - random", "Reference (%)"]
        rows: list[list[Cell]] = []
        differences: list[Difference | None] = []
        for group in mint:
            rest = [own.get(group.groups) for own in others.values()]
            differences.append(paired(group, others[CONTROL].get(group.groups), PRUNED))
            rows.append(
                [
                    str(group.groups),
                    str(group.groups**2),
                    group.mean(PRUNED),
                    group.seeds,
                    *(other.mean(PRUNED) if other else NOT_RUN for other in rest),
                    differences[-1],
                    _reference_cell(published, protocol, group),
                ]
            )
        text += ["", f"### {protocol.title}", "", *table(header, marked(rows, NOT_RUN)), ""]
        text += _more_groups_verdict(mint, others[CONTROL], differences)
    return section(
        "Why do more groups not prune linearly more?",
        "The reference results are 86.27, 88.23, 88.48 and 91.87% at 5, 10, 20 and 50 groups.",
        text,
    )


def _more_groups_verdict(
    mint: Sequence[SeedGroup],
    random: Mapping[int, SeedGroup],
    differences: Sequence[Difference | None],
) -> list[str]:
    first, last = mint[0], mint[-1]
    change = describe(paired(last, first, PRUNED))
    text = [f"From {first.groups} to {last.groups} groups MINT prunes {change}."]
    if first.groups in random and last.groups in random:
        change = describe(paired(random[last.groups], random[first.groups], PRUNED))
        known = [difference for difference in differences if difference]
        more = outcomes(known).count("better")
        text.append(
            f"Random blocks prune {change}. MINT prunes more than random blocks, after Holm's "
            f"correction, at {more} of {len(known)} numbers of groups."
        )
    return [
        *text,
        "With g x g groups, one block is 1/g² of the weights, and to disconnect a group takes g "
        "blocks. Finer groups let the search stop nearer to the largest possible fraction, and "
        "leave more filters connected. Neither effect is linear in the number of groups.",
    ]


def _more_samples(protocols: Iterable[Protocol], published: _Published) -> list[str]:
    header = ["Samples per class", "Pruned (%)", "Test accuracy (%)", "Reliability", "Seeds"]
    header += ["Reference (%)"]
    text: list[str] = []
    for protocol in protocols:
        lines = _by("bootstraps", _searches(protocol, "samples_per_class"))
        found = False
        for bootstraps, line in sorted(lines.items()):
            own = _longest(_by("groups", line).values())
            if len(own) < 3:
                continue
            found = True
            rows = [
                [
                    str(group.samples_per_class),
                    group.mean(PRUNED),
                    group.mean(ACCURACY),
                    group.reliability,
                    group.seeds,
                    _reference_cell(published, protocol, group),
                ]
                for group in own
            ]
            counted = format_count(bootstraps, "bootstrap")
            title = f"{protocol.title}, {own[0].groups} groups, {counted}"
            text += ["", f"### {title}", "", *table(header, rows), ""]
            text += [_slope(own), *_dip(own)]
        deviations = [
            np.std(group.values(PRUNED), ddof=1)
            for line in lines.values()
            for group in line
            if len(group.finished) > 2
        ]
        if found and deviations:
            text += [
                "Trials that differ only in the seed have a standard deviation of "
                f"{np.median(deviations):.1f} points (median over these rows): compare the "
                "distance of a single run from its neighbours with that."
            ]
    return section(
        "Why do more samples seem to prune less, and what is the dip at 550?",
        "The reference results are 85.35, 88.48, 88.48, 88.72, 79.41 and 89.70% at 150 to 650 "
        "samples per class: one run each, with one bootstrap.",
        text,
    )


def _slope(line: Sequence[SeedGroup]) -> str:
    """Return how much more is pruned with 100 samples more: the mean of the seeds' slopes."""
    most = max(len(group.finished) for group in line)
    full = [group for group in line if len(group.finished) == most]
    samples = np.array([group.samples_per_class for group in full], np.float64)
    centred = samples - samples.mean()
    values = [by_seed(group, PRUNED) for group in full]
    everywhere = sorted(set.intersection(*(set(seeds) for seeds in values)))
    slopes = [
        100 * float(centred @ [seeds[seed] for seeds in values] / (centred @ centred))
        for seed in everywhere
    ]
    return (
        f"With every hundred samples more, MINT prunes {describe(Difference.of(slopes))} (slopes "
        f"of {format_count(len(slopes), 'seed')})."
    )


def _dip(line: Sequence[SeedGroup]) -> list[str]:
    own = {group.samples_per_class: group for group in line}
    if not {450, 550, 650} <= set(own):
        return []
    dip = describe(against_line(own[550], own[450], own[650], 0.5), "than the mean of 450 and 650")
    return [f"At 550 it prunes {dip}; in the reference results 9.8 less."]


def _averaging(protocols: Iterable[Protocol]) -> list[str]:
    header = ["Bootstraps", "Reliability", "Pruned (%)", "Test accuracy (%)", "Seeds"]
    text: list[str] = []
    for protocol in protocols:
        for title, line in _over_bootstraps(protocol).items():
            if len(line) < 3:
                continue
            rows = [
                [
                    str(group.bootstraps),
                    group.reliability,
                    group.mean(PRUNED),
                    group.mean(ACCURACY),
                    group.seeds,
                ]
                for group in line
            ]
            first, last = line[0], line[-1]
            text += ["", f"### {protocol.title}, {title}", "", *table(header, rows), ""]
            text += [
                f"With {last.bootstraps} bootstraps instead of {first.bootstraps} the reliability "
                f"changes from {_mean_reliability(first)} to {_mean_reliability(last)}. Test "
                f"accuracy is {describe(paired(last, first, ACCURACY))}.",
                *compare_deviations(last, first),
            ]
    return section(
        "Does averaging the estimates steady the result?",
        "The authors suggest it: average the estimates over several runs.",
        text,
    )


def _over_bootstraps(protocol: Protocol) -> dict[str, list[SeedGroup]]:
    """Return MINT's seed groups that differ only in bootstraps, by what they share."""
    found: dict[str, list[SeedGroup]] = {}
    own = [
        group
        for group in protocol.groups
        if group.criterion == DEFAULT_CRITERION and group.finished
    ]
    for group in sorted(own, key=lambda group: group.bootstraps):
        limit = "no limit" if group.upper_limit == "none" else f"limit {group.upper_limit}"
        searched = group.fraction == "none"
        pruned = "searched" if searched else f"{100 * float(group.fraction):g}% pruned"
        axes = f"{format_axis(group.groups)} groups, {group.samples_per_class} samples"
        found.setdefault(f"{axes}, {limit}, {pruned}", []).append(group)
    return found


def _mean_reliability(group: SeedGroup) -> str:
    values = group.values("reliability")
    known = values[~np.isnan(values)]
    return f"{known.mean():.2f}" if len(known) else "none"


def _uneven_groups(protocols: Iterable[Protocol]) -> list[str]:
    header = ["Groups", "Pruned (%)", "Test accuracy (%)", "Seeds", "Against the line"]
    text: list[str] = []
    for protocol in protocols:
        line = _one_sample_size(_searches(protocol, "groups"))
        own = {group.groups: group for group in line}
        if not set(_EVEN_AND_UNEVEN) <= set(own):
            continue
        rows: list[list[Cell]] = []
        verdicts = []
        for groups in _EVEN_AND_UNEVEN:
            group = own[groups]
            difference = None
            if groups in (30, 40):
                difference = against_line(group, own[20], own[50], (groups - 20) / 30)
                verdict = describe(difference, "than the line")
                verdicts.append(f"{groups} groups prune {verdict}")
            figures = [group.mean(PRUNED), group.mean(ACCURACY), group.seeds]
            against = difference or (NOT_RUN if groups in (30, 40) else "N/A")
            rows.append([str(groups), *figures, against])
        text += ["", f"### {protocol.title}", "", *table(header, marked(rows, NOT_RUN)), ""]
        text += [
            "The line is the straight one between 20 and 50 groups with the same seed; the "
            f"difference is in percentage points. {'; '.join(verdicts)}."
        ]
    return section(
        "What do uneven groups, 30 and 40, do?",
        "The original does not score the filters that remain after an even division, and its "
        "authors discount both. Here groups differ in size by at most one filter, and all are "
        "scored.",
        text,
    )


def _reference_cell(published: _Published, protocol: Protocol, group: SeedGroup) -> str:
    """Return the reference result; there are some for MNIST only."""
    of_mnist = protocol.experiment.startswith("mnist_mlp")
    found = published.get((group.groups, group.samples_per_class)) if of_mnist else None
    return "none" if found is None else f"{found:.2f}"


def _by(axis: str, groups: Iterable[SeedGroup]) -> dict[Any, list[SeedGroup]]:
    found: dict[Any, list[SeedGroup]] = {}
    for group in groups:
        found.setdefault(getattr(group, axis), []).append(group)
    return found


def _longest(lines: Iterable[list[SeedGroup]]) -> list[SeedGroup]:
    return max(lines, key=len, default=[])


def _one_sample_size(line: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return the groups with the samples per class and bootstraps that most of them share."""
    return _longest(_by("bootstraps", _longest(_by("samples_per_class", line).values())).values())
