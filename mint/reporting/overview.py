"""An experiment's section of RESULTS.md: what it says, and the tables of the reference results."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mint.config.schema import DEFAULT_CRITERION
from mint.reporting.aggregate import (
    ACCURACY,
    NOT_RUN,
    REGIMES,
    SHARE,
    SeedGroup,
    format_axis,
    format_count,
    format_mean,
    link,
    order_of_tables,
)
from mint.reporting.comparison import (
    CONTROLS,
    Effect,
    effects_of_axes,
    effects_of_criteria,
    paired_groups,
)
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.reference import Method, ReferenceResults, Variation
from mint.reporting.statistics import Difference, holm
from mint.reporting.tables import AXES, dense_control

_MOST_MEASURED_ROWS = 9
_COMPARED = (DEFAULT_CRITERION, *CONTROLS)
_DECIMALS = 6  # of percents that count as equal
_NAMES = {"full": "Full", "light": "Light", "none": "No"}
_UNITS = {SHARE: "share at the margin", ACCURACY: "accuracy at the same share"}
_CONTROL_NAMES = {"random": "random blocks", "block-magnitude": "block magnitude"}
_AXIS_NAMES = {"groups": "groups", "samples_per_class": "samples per class"}
_SHARES = [f"Share at the margin, {regime}" for regime in REGIMES]
_AT_SHARES = [f"Performance at that share, {regime}" for regime in REGIMES]
_ABOVE_LIMIT = "above the limit"
_PERFORMANCES = ["Performance", "Performance, light", "Performance, none"]


class Finding(NamedTuple):
    """What MINT, or an axis of it, changes in one protocol under one regime of retraining.

    differs is what Holm's correction among the findings of the experiment leaves.
    """

    protocol: Protocol
    effect: Effect
    difference: Difference
    unit: str
    differs: bool = False

    @property
    def verdict(self) -> str:
        of_criteria = self.effect.axis == "criterion"
        words = ("better", "worse") if of_criteria else ("more", "less")
        return self.difference.verdict(self.differs, words)

    @property
    def text(self) -> str:
        effect, seeds = self.effect, format_count(self.difference.seeds, "seed")
        axis = _AXIS_NAMES.get(effect.axis)
        step = f"from {effect.low} to {effect.high} {axis} " if axis else ""
        return f"{step}{self.short} points of {self.unit} ({self.place}; {seeds})"

    @property
    def short(self) -> str:
        return f"{self.verdict}, {self.difference}"

    def is_like(self, other: "Finding") -> bool:
        """Return whether another finding differs in its regime alone."""
        same = self.protocol is other.protocol and self.unit == other.unit
        return same and self.effect[1:4] == other.effect[1:4]

    @property
    def place(self) -> str:
        """The experiment and what its trials share under this regime."""
        return f"{self.protocol.experiment}, {self.protocol.under(self.effect.retraining)}"


def findings_of(protocols: Iterable[Protocol]) -> list[Finding]:
    """Return what MINT does against its controls, and with more groups and samples.

    Of each the difference in the share at the margin, or in the accuracy where no share is known.
    The finding with most seeds comes first.
    """
    found = []
    for protocol in protocols:
        effects = effects_of_criteria(protocol.grouped("contiguous"))
        own = [each for each in effects if each.high == DEFAULT_CRITERION]
        for effect in [*own, *_largest_steps(protocol)]:
            if effect.of.share:
                found.append(Finding(protocol, effect, effect.of.share, _UNITS[SHARE]))
            elif effect.of.accuracy:
                found.append(Finding(protocol, effect, effect.of.accuracy, _UNITS[ACCURACY]))
    kept = holm([finding.difference for finding in found])
    found = [each._replace(differs=differs) for each, differs in zip(found, kept, strict=True)]
    return sorted(found, key=lambda each: -each.difference.seeds)


def _largest_steps(protocol: Protocol) -> list[Effect]:
    """Return the effects of the most groups and the most samples."""
    effects = effects_of_axes(protocol.grouped("contiguous"))
    largest = {(each.retraining, each.axis): each for each in effects}
    return [effect for (_, axis), effect in largest.items() if axis in _AXIS_NAMES]


def sentences(findings: Sequence[Finding], experiment: str) -> list[str]:
    """Return three lines: MINT against each control, and what groups and samples do."""
    lines = []
    for control, name in _CONTROL_NAMES.items():
        own = [each for each in findings if each.effect.low == control]
        command = f"mint sweep criteria --experiment {experiment}"
        lines.append(f"- **MINT against {name}.** {by_regime(own, command)}")
    parts = []
    command = f"mint sweep groups_vs_samples --experiment {experiment}"
    for axis in _AXIS_NAMES:
        if own := [each for each in findings if each.effect.axis == axis]:
            parts.append(by_regime(own, command))
    return [*lines, f"- **Groups and samples.** {' '.join(parts) or by_regime([], command)}"]


def by_regime(findings: Sequence[Finding], command: str) -> str:
    """Return the finding with most seeds under each regime, and a count of the others."""
    if not findings:
        return f"Not run: `{command}` runs it."
    parts, missing = [], []
    first = min(findings, key=lambda each: REGIMES.index(each.effect.retraining))
    for regime, name in _NAMES.items():
        if not (own := [each for each in findings if each.effect.retraining == regime]):
            missing.append(name)
            continue
        brief = own[0] is not first and own[0].is_like(first)
        parts.append(f"{name} retraining: {own[0].short if brief else own[0].text}.")
        if rest := Counter(each.verdict for each in own[1:]):
            counted = (f"{number} {verdict}" for verdict, number in sorted(rest.items()))
            parts.append(f"Other settings: {', '.join(counted)}.")
    if missing:
        parts.append(f"{' and '.join(missing).capitalize()} retraining: {NOT_RUN}.")
    return " ".join(parts)


def fractions_of(methods: Iterable[Method]) -> set[str]:
    """Return the published shares of methods as the trial table writes them."""
    percents = (row.params_pruned for row in methods)
    return {f"{percent / 100:.4g}" for percent in percents if percent is not None}


def compared_groups(reference: ReferenceResults, groups: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return the seed groups at a share that MINT was published with, in the order of tables."""
    fractions = fractions_of(row for row in reference.methods if row.method == "MINT")
    own = [group for group in groups if group.fraction in fractions]
    own = [each for each in own if (each.grouping, each.compensate) == ("contiguous", "no")]
    return sorted(own, key=lambda group: (float(group.fraction), order_of_tables(group)))


def comparison_table(reference: ReferenceResults, protocols: Sequence[Protocol]) -> list[str]:
    """Return published rows and the measured ones at the same shares, by params pruned."""
    header = ["Method", "Params pruned", *_PERFORMANCES, *_SHARES, "Seeds", "Setting"]
    width = len(header)
    published = reference.baseline
    rows = [(-1.0, ["Baseline", "N/A", _figure(published.accuracy)], published.source)]
    for method in reference.methods:
        pruned = math.inf if method.params_pruned is None else method.params_pruned
        figures = [method.quoted or _figure(method.params_pruned), _figure(method.accuracy)]
        rows.append((pruned, [method.method, *figures], method.source))
    lines = [
        (at, [*cells, *["N/A"] * (width - len(cells) - 1), f"published, {source}"])
        for at, cells, source in rows
    ]
    ordered = sorted(protocols, key=lambda each: (-_seeds(each), -len(each.finished)))
    if ordered and _seeds(ordered[0]):
        lines += [(-1.0, row) for row in _control_rows(ordered[0])]
    fractions = fractions_of(row for row in reference.methods if row.method == "MINT")
    measured = [
        (100 * float(fraction), row)
        for protocol in ordered
        for fraction in sorted(fractions)
        for row in _measured_rows(protocol, fraction, reference)
    ][:_MOST_MEASURED_ROWS]
    wanted = {100 * float(fraction) for fraction in fractions if protocols}
    for pruned in sorted(wanted - {at for at, _ in measured}):
        cells = [DEFAULT_CRITERION, f"{pruned:.2f}", *[NOT_RUN] * (width - 4), "0", NOT_RUN]
        measured.append((pruned, cells))
    lines = sorted([*lines, *measured], key=lambda row: round(row[0], _DECIMALS))
    return _without_empty(header, [row for _, row in lines], left=(0, width - 1))


def _without_empty(
    header: list[str], rows: Sequence[list[str]], left: tuple[int, ...]
) -> list[str]:
    """Return a table without the measured columns that nothing was run for."""
    measured = [*_PERFORMANCES[1:], *_AT_SHARES, *_SHARES]
    empty = [
        title
        for at, title in enumerate(header)
        if title in measured and all(row[at] in ("N/A", NOT_RUN, _ABOVE_LIMIT) for row in rows)
    ]
    return table(header, rows, left=left, without=empty)


def _seeds(protocol: Protocol) -> int:
    return int(protocol.finished["seed"].nunique())


def _control_rows(protocol: Protocol) -> list[list[str]]:
    """Return the measured baseline and dense control."""
    by_seed = protocol.finished.drop_duplicates("seed")
    seeds, setting = link(str(len(by_seed)), by_seed["line"]), protocol.title
    images = int(by_seed["test_images"].min())
    baseline = format_mean(by_seed["baseline_accuracy"].to_numpy(), 100 / images if images else 0.0)
    dense = [dense_control(protocol.groups, regime) for regime in REGIMES]
    shares = ["N/A"] * len(_SHARES)
    rows = [["Baseline", "N/A", baseline, "N/A", "N/A", *shares, seeds, setting]]
    if set(dense) != {NOT_RUN}:
        rows.append(["Dense control", "N/A", *dense, *shares, seeds, setting])
    return rows


def _measured_rows(
    protocol: Protocol, fraction: str, reference: ReferenceResults
) -> list[list[str]]:
    """Return MINT and its controls at a published share and at the margin, under every regime.

    At the axes of the reference's search if there are trials, else at those of most seeds.
    """
    known = protocol.grouped("contiguous")
    own = [group for group in known if group.finished and group.criterion in _COMPARED]
    given = [group for group in own if group.fraction == fraction]
    searched = [group for group in own if group.margin is not None]
    wanted = reference.searched and reference.searched.axes

    def preference(group: SeedGroup) -> tuple[object, ...]:
        axes = (group.upper_limit, group.groups, group.samples_per_class)
        return _COMPARED.index(group.criterion), axes != wanted, -len(group.finished)

    if not (anchor := min(given or searched, key=preference, default=None)):
        return []
    free = {"criterion", "retraining", "fraction", "margin"}
    rows = []
    for criterion in _COMPARED:
        at_share, at_margin = (
            {
                other.retraining: other
                for _, other in paired_groups([anchor], groups, free)
                if other.criterion == criterion
            }
            for groups in (given, searched)
        )
        if found := [*at_share.values(), *at_margin.values()]:
            pruned = next((group.mean("params_pruned") for group in at_share.values()), NOT_RUN)
            figures = [_cell(at_share.get(regime), ACCURACY) for regime in REGIMES]
            figures += [_cell(at_margin.get(regime), SHARE) for regime in REGIMES]
            place = f"{protocol.title}; {anchor.groups} groups"
            rows.append([criterion, pruned, *figures, found[0].seeds, place])
    return rows


def _cell(group: SeedGroup | None, column: str) -> str:
    return group.mean(column) if group else NOT_RUN


def variation_lines(reference: ReferenceResults, protocols: Sequence[Protocol]) -> list[str]:
    """Return the published cells of the group and sample variations beside the measured ones."""
    header = ["Varied", *AXES, "Published pruned", "Published performance"]
    header += [*_AT_SHARES, *_SHARES, "Seeds"]
    published = [(name, row) for name in ("groups", "samples") for row in getattr(reference, name)]
    if not published:
        return []

    def found(protocol: Protocol) -> list[list[SeedGroup]]:
        return [_cells_of(protocol.grouped("contiguous"), row) for _, row in published]

    protocol = max(protocols, key=lambda each: sum(map(len, found(each))), default=None)
    cells = found(protocol) if protocol else [[]] * len(published)
    rows = []
    for (name, row), groups in zip(published, cells, strict=True):
        at_share = {each.retraining: each for each in groups if each.margin is None}
        at_margin = {each.retraining: each for each in groups if each.margin is not None}
        axes = [format_axis(row.upper_limit), str(row.groups), str(row.samples_per_class)]
        figures = [_figure(row.params_pruned), _figure(row.accuracy)]
        if _share_of(row) > float(row.upper_limit.replace("none", "inf")):
            figures += [_ABOVE_LIMIT] * len(REGIMES)
        else:
            figures += [_cell(at_share.get(regime), ACCURACY) for regime in REGIMES]
        figures += [_cell(at_margin.get(regime), SHARE) for regime in REGIMES]
        rows.append([name, *axes, *figures, groups[-1].seeds if groups else "0"])
    title = protocol.title if protocol and any(cells) else NOT_RUN
    lines = _without_empty(header, rows, left=(0,))
    return ["", f"### Groups and samples: {title}", "", *lines]


def _share_of(row: Variation) -> float:
    return math.nan if row.params_pruned is None else row.params_pruned / 100


def _cells_of(groups: Iterable[SeedGroup], row: Variation) -> list[SeedGroup]:
    """Return MINT's trials at the axes of a published cell: at its share, and at the margin."""
    fraction = f"{_share_of(row):.4g}"
    own = [
        group
        for group in groups
        if group.finished
        and group.criterion == DEFAULT_CRITERION
        and (group.upper_limit, group.groups, group.samples_per_class) == row.axes
        and (group.margin is not None or group.fraction == fraction)
    ]
    return sorted(own, key=lambda group: len(group.finished))


def _figure(published: float | None) -> str:
    return "open" if published is None else f"{published:.2f}"
