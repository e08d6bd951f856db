"""The report: RESULTS.md and its figures, from a trial table and reference results alone.

The same rows give the same bytes.
"""

import io
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.errors import error_line
from mint.reporting import tables
from mint.reporting.aggregate import SeedGroup, seed_groups
from mint.reporting.comparison import ComparedCriterion, compare_criteria
from mint.reporting.figure_style import save
from mint.reporting.figures import (
    draw_criteria,
    draw_layers,
    draw_tradeoff,
    draw_variations,
    variation_curves,
)
from mint.reporting.reference import (
    ReferenceResults,
    copied_references,
    copy_references,
    read_reference,
)
from mint.reporting.trials_csv import TRIALS_FILE, sort_trials, trials_csv
from mint.store.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_CAPTIONS = {
    "": "accuracy against params pruned",
    "-criteria": "accuracy of each criterion against params pruned",
    "-variations": "params pruned and accuracy against groups and samples",
    "-layers": "kept weights of every layer",
}

Plots = dict[str, Callable[[], "Figure"]]
"""By file name, a function that draws the figure."""


class Report(NamedTuple):
    """The text of RESULTS.md and its figures."""

    text: str
    plots: Plots


@dataclass(frozen=True, eq=False)
class Protocol:
    """The trials of one experiment under one protocol; only Comparison shows several together.

    trials has their rows, with their lines in trials.csv.
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

    @property
    def settings(self) -> list[str]:
        """What the trials share, in sentences."""
        return [str(setting) for setting in self.trials["setting"].unique()]

    @cached_property
    def groups(self) -> list[SeedGroup]:
        return seed_groups(self.trials)

    @property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["status"] == "finished"]

    @cached_property
    def criteria(self) -> list[ComparedCriterion]:
        return compare_criteria(self.groups)


def protocols_of(trials: pd.DataFrame) -> list[Protocol]:
    """Return the protocols of a sorted trial table."""
    numbered = trials.assign(line=range(2, len(trials) + 2))  # line 1 is the header
    return [
        Protocol(str(experiment), str(key), own)
        for (experiment, key), own in numbered.groupby(["experiment", "protocol"])
    ]


def write_report(output: Path, trials: pd.DataFrame, references: Iterable[Path] = ()) -> None:
    """Write trials.csv, RESULTS.md, the figures and copies of reference files into a folder.

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
        try:
            save(draw(), buffer)
        except Exception as error:  # it costs this figure alone
            warnings.warn(f"{name}: is not drawn ({error_line(error)})", stacklevel=2)
            (output / name).unlink(missing_ok=True)  # it would show other trials
        else:
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
        lines += _protocol_section(protocol, plots)
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
    for title, rows in (("Group", reference.groups), ("Sample", reference.samples)):
        title, axes = f"### {title} variations", {row.axes for row in rows}
        varied = [
            protocol
            for protocol in protocols
            if any(group.searched_axes in axes for group in protocol.groups)
        ]
        for protocol in varied:
            table = tables.variation_table(rows, protocol.groups)
            lines += ["", f"{title}: {protocol.title}", "", *table]
        if rows and not varied:
            lines += ["", title, "", *tables.variation_table(rows, ())]
    if reference.layers:
        lines += tables.breakdown_section(reference, compared)
    for protocol in protocols:
        lines += _protocol_section(protocol, plots, reference, compared)
    return lines


def _protocol_section(
    protocol: Protocol,
    plots: Plots,
    reference: ReferenceResults | None = None,
    compared: Collection[SeedGroup] = (),
) -> list[str]:
    """Return a protocol's settings, figures and tables; add its figures to the plots."""
    lines = ["", f"### {protocol.title}"]

    def figure(kind: str, draw: "Callable[..., Figure]", *drawn: Any) -> None:
        name = f"{protocol.experiment}-{protocol.key}{kind}.png"
        plots[name] = partial(draw, *drawn)
        lines.extend(["", f"![{_CAPTIONS[kind]}]({name})"])

    for sentence in (*protocol.settings, tables.baseline_sentence(protocol.finished)):
        lines += ["", sentence]
    groups = [group for group in protocol.groups if group.finished]
    methods = reference.methods if reference else ()
    variations = reference.variations if reference else {}
    criteria = protocol.criteria
    if groups:
        mint = [group for group in groups if group.criterion == DEFAULT_CRITERION]
        # Compared criteria have a figure of their own.
        figure("", draw_tradeoff, mint if criteria and mint else groups, methods)
    if criteria:
        figure("-criteria", draw_criteria, criteria)
    if curves := variation_curves(groups, variations):
        figure("-variations", draw_variations, curves)
    own = [group for group in compared if group in groups]
    if reference and reference.layers and own:
        figure("-layers", draw_layers, own)
    if criteria:
        lines += ["", "#### Criteria", "", *tables.criteria_table(criteria)]
    varied = {row.axes for rows in variations.values() for row in rows}
    others = [group for group in protocol.groups if group.searched_axes not in varied]
    if others:
        title = "Trials" if len(others) == len(protocol.groups) else "Other trials"
        lines += ["", f"#### {title}", "", *tables.trials_table(others)]
    if failed := tables.failed_trials_table(protocol.groups):
        lines += ["", "#### Failed trials", "", *failed]
    return lines
