"""The report: RESULTS.md and its figures, from a trial table and reference results alone.

The same rows give the same bytes.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.reporting import tables
from mint.reporting.aggregate import SeedGroup, number_lines, seed_groups
from mint.reporting.comparison import ComparedCriterion, compare_criteria
from mint.reporting.curves import variation_curves
from mint.reporting.figures import draw_criteria, draw_layers, draw_tradeoff, draw_variations
from mint.reporting.reference import (
    ReferenceResults,
    Variation,
    copied_references,
    copy_references,
    read_reference,
)
from mint.reporting.trial_table import TRIALS_FILE, sort_trials, trials_csv
from mint.store.atomic import write_atomic

RESULTS_FILE = "RESULTS.md"
_INTRODUCTION = (
    "Made by `mint report` from [trials.csv](trials.csv); do not edit. Params pruned are percent "
    "of the counted weights. Performance is the test accuracy of the network after the last epoch "
    "of retraining, in percent. Figures are mean ± standard deviation over seeds. Seeds links to "
    "the rows of trials.csv, which name their MLflow runs. Drop is the test accuracy of the "
    "baseline minus that of the pruned network, in percentage points. Fraction is the given "
    "fraction of the counted weights. Reliability is the rank correlation to expect between the "
    "scores and those of as many new bootstraps."
)
_REFERENCES = (
    "Published rows are those of the files in [reference](reference). **Measured** rows are means "
    "over trials of trials.csv. What was not run says so; what a source leaves open is open."
)

Plots = dict[str, Callable[[BinaryIO], None]]
"""By file name, a function that draws the figure."""


@dataclass(frozen=True)
class Report:
    """The content of a results folder that is made from its trial table.

    Attributes:
        text: of RESULTS.md.
        plots: draw the figures.
    """

    text: str
    plots: Plots


@dataclass(frozen=True, eq=False)
class Protocol:
    """The trials of one experiment under one protocol; only Comparison shows several together.

    Attributes:
        experiment: its name.
        key: of the protocol.
        trials: their rows, with lines.
    """

    experiment: str
    key: str
    trials: pd.DataFrame

    @property
    def name(self) -> str:
        return f"{self.experiment} {self.key}"

    @property
    def title(self) -> str:
        return f"{self.experiment}, protocol {self.key}"

    def plot(self, kind: str = "") -> str:
        """Return the file name of a figure."""
        return f"{self.experiment}-{self.key}{kind}.png"

    @property
    def settings(self) -> list[str]:
        """What the trials share, in sentences."""
        return [str(setting) for setting in self.trials["setting"].unique()]

    @cached_property
    def groups(self) -> list[SeedGroup]:
        return seed_groups(self.trials)

    @cached_property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["status"] == "finished"]

    @cached_property
    def criteria(self) -> list[ComparedCriterion]:
        return compare_criteria(self.groups)


def protocols_of(trials: pd.DataFrame) -> list[Protocol]:
    """Return the protocols of a trial table."""
    return [
        Protocol(str(experiment), str(key), own)
        for (experiment, key), own in number_lines(trials).groupby(["experiment", "protocol"])
    ]


def write_report(output: Path, trials: pd.DataFrame, references: Iterable[Path] = ()) -> None:
    """Write trials.csv, RESULTS.md and the figures.

    Args:
        output: results folder; other files in it are left alone.
        trials: trial table.
        references: reference files to copy into the folder, beside those that it has.

    Raises:
        InputError: a reference file is malformed.
    """
    trials = sort_trials(trials)
    copy_references(output, references)
    report = make_report(trials, read_references(output))
    write_atomic(output / TRIALS_FILE, trials_csv(trials))
    write_atomic(output / RESULTS_FILE, report.text.encode())
    for name, draw in report.plots.items():
        buffer = io.BytesIO()
        draw(buffer)
        write_atomic(output / name, buffer.getvalue())


def read_references(output: Path) -> list[ReferenceResults]:
    """Return the reference results of a results folder, in the order of their file names."""
    return [read_reference(file) for file in copied_references(output)]


def make_report(trials: pd.DataFrame, references: Sequence[ReferenceResults]) -> Report:
    """Return the report of a sorted trial table, its figures not drawn yet."""
    protocols = protocols_of(trials)
    plots: Plots = {}
    lines = ["# Results", "", _INTRODUCTION]
    if references:
        lines += ["", _REFERENCES]
    for reference in references:
        own = [protocol for protocol in protocols if protocol.experiment in reference.experiments]
        lines += _reference_section(reference, own, plots)
        protocols = [protocol for protocol in protocols if protocol not in own]
    if protocols:
        lines += ["", "## Other experiments" if references else "## Experiments"]
    for protocol in protocols:
        lines += _protocol(protocol, plots)
        lines += _criteria(protocol)
        lines += ["", "#### Trials", "", *tables.trials_table(protocol.groups)]
        lines += _failed_trials(protocol)
    return Report("\n".join(lines) + "\n", plots)


def _reference_section(
    reference: ReferenceResults, protocols: Sequence[Protocol], plots: Plots
) -> list[str]:
    groups = [group for protocol in protocols for group in protocol.groups]
    compared = tables.comparable(reference, groups)
    finished = [(protocol.name, protocol.finished) for protocol in protocols]
    lines = ["", f"## {reference.title}", "", f"Published rows are quoted from {reference.source}."]
    lines += ["", "### Comparison", "", *tables.comparison_table(reference, compared, finished)]
    for note in reference.notes:
        lines += ["", note]
    varied: set[SeedGroup] = set()
    for title, rows in (
        ("Group variations", reference.groups),
        ("Sample variations", reference.samples),
    ):
        if rows:
            lines += _variations(title, rows, protocols, varied)
    if reference.layers:
        lines += tables.breakdown_section(reference, compared)
    for protocol in protocols:
        lines += _protocol(protocol, plots, reference)
        own = [group for group in compared if group in protocol.groups and group.finished]
        if reference.layers and own:
            name = protocol.plot("-layers")
            plots[name] = partial(draw_layers, groups=own)
            lines += ["", f"![kept weights of every layer]({name})"]
        lines += _criteria(protocol)
        others = [group for group in protocol.groups if group not in varied]
        if others:
            title = "Trials" if len(others) == len(protocol.groups) else "Other trials"
            lines += ["", f"#### {title}", "", *tables.trials_table(others)]
        lines += _failed_trials(protocol)
    return lines


def _variations(
    title: str,
    published: Sequence[Variation],
    protocols: Sequence[Protocol],
    varied: set[SeedGroup],
) -> list[str]:
    """Return the table of a variation for every protocol with trials of it; add them to varied."""
    lines: list[str] = []
    for protocol in protocols:
        measured = tables.measured_variations(published, protocol.groups)
        if any(measured):
            lines += ["", f"### {title}: {protocol.title}", ""]
            lines += tables.variation_table(published, measured)
            varied.update(group for own in measured for group in own)
    if not lines:
        nothing = tables.variation_table(published, [[] for _ in published])
        lines = ["", f"### {title}", "", *nothing]
    return lines


def _protocol(
    protocol: Protocol, plots: Plots, reference: ReferenceResults | None = None
) -> list[str]:
    """Return the settings of a protocol, its baseline and its figures."""
    lines = ["", f"### {protocol.title}"]
    for setting in protocol.settings:
        lines += ["", setting]
    lines += ["", tables.baseline_sentence(protocol.finished)]
    if protocol.finished.empty:
        return lines
    # Compared criteria have a figure of their own.
    groups = [group for group in protocol.groups if group.finished]
    mint = [group for group in groups if group.criterion == DEFAULT_CRITERION]
    plots[protocol.plot()] = partial(
        draw_tradeoff,
        groups=mint if protocol.criteria and mint else groups,
        published=reference.methods if reference else (),
    )
    lines += ["", f"![accuracy against params pruned]({protocol.plot()})"]
    if protocol.criteria:
        name = protocol.plot("-criteria")
        plots[name] = partial(draw_criteria, compared=protocol.criteria)
        lines += ["", f"![accuracy of each criterion against params pruned]({name})"]
    curves = variation_curves(
        protocol.groups,
        reference.groups if reference else (),
        reference.samples if reference else (),
    )
    if curves:
        name = protocol.plot("-variations")
        plots[name] = partial(draw_variations, curves=curves)
        lines += ["", f"![params pruned and accuracy against groups and samples]({name})"]
    return lines


def _criteria(protocol: Protocol) -> list[str]:
    if not protocol.criteria:
        return []
    return ["", "#### Criteria", "", *tables.criteria_table(protocol.criteria)]


def _failed_trials(protocol: Protocol) -> list[str]:
    lines = tables.failed_trials_table(protocol.groups)
    return ["", "#### Failed trials", "", *lines] if lines else []
