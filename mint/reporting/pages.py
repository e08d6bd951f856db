"""Records in, RESULTS.md, records.csv, its checksums and plots out: same records, same bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import yaml

from mint.config.schema import DEFAULT_CRITERION
from mint.errors import InputError
from mint.pruning.layer_table import parse_layers
from mint.reporting import tables
from mint.reporting.aggregate import Cell, cells_of, numbered
from mint.reporting.checksums import Checksums, figures_digest
from mint.reporting.comparison import Compared, compare
from mint.reporting.curves import variation_curves
from mint.reporting.figures import draw_criteria, draw_layers, draw_tradeoff, draw_variations
from mint.reporting.measured import Measured
from mint.reporting.puzzles import Comparison, puzzles_page
from mint.store.atomic import write_atomic
from mint.trial.table_row import parse_records, records_bytes, sort_records

RECORDS, SUMS, RESULTS, PUZZLES = "records.csv", "records.sums", "RESULTS.md", "PUZZLES.md"
_INTRODUCTION = (
    "Made by `mint report` from [records.csv](records.csv); do not edit. Params pruned are percent "
    "of the counted weights, performance is test accuracy in percent of the network after the last "
    "epoch of retraining; mean ± standard deviation over seeds. Seeds leads to the records of a "
    "row, which name their runs. Drop is the baseline's test accuracy less that of the pruned "
    "network, in percentage points. Reliability is the rank correlation to expect between the "
    "scores and those of as many other bootstraps. Published rows are quoted from the MINT paper "
    "([ICPR 2020](https://arxiv.org/abs/2003.08472)) and from its authors' working record of "
    "results; **measured** ones are this project's. What was not run says so, and what is open in "
    "the record is open here."
)

Plots = dict[str, Callable[[BinaryIO], None]]
"""By the name of its file, what draws a plot."""


@dataclass(frozen=True)
class Report:
    """All that is made from records; mint verify compares every page, and looks for every plot.

    Attributes:
        pages: the content of every file but the plots, by its name.
        plots: what draws the others.
    """

    pages: Mapping[str, bytes]
    plots: Plots


@dataclass(frozen=True, eq=False)
class Protocol:
    """The trials of one experiment under one protocol.

    Those of others share no table with them but Comparison, where every row names its protocol.

    Attributes:
        experiment: its name.
        key: of the protocol.
        records: numbered, of all trials.
    """

    experiment: str
    key: str
    records: pd.DataFrame

    @property
    def name(self) -> str:
        return f"{self.experiment} {self.key}"

    def plot(self, what: str = "") -> str:
        """Return the name of a plot's file."""
        return f"{self.experiment}-{self.key}{what}.png"

    @property
    def settings(self) -> list[str]:
        """What was done, in words."""
        return [str(setting) for setting in self.records["setting"].unique()]

    @cached_property
    def cells(self) -> list[Cell]:
        return cells_of(self.records)

    @cached_property
    def finished(self) -> pd.DataFrame:
        return self.records[self.records["status"] == "finished"]

    @cached_property
    def criteria(self) -> list[Compared]:
        """The criteria side by side, if there are several.

        Where a search found how much to prune, each is at a budget of its own.
        """
        given = [cell for cell in self.cells if cell.finished and cell.fraction != "none"]
        return compare(given) if len({cell.criterion for cell in given}) > 1 else []


def write_report(output: Path, records: pd.DataFrame) -> None:
    """Write records.csv with its checksums, and from it RESULTS.md and the plots.

    Args:
        output: the folder; other files in it are left alone; those of mint.reporting.measured are read.
        records: with the columns of mint.trial.table_row.

    Raises:
        InputError: figures of a record do not belong together, or what a benchmark left is none.
    """
    report = make_report(records, Measured.beside(output))
    made = dict(report.pages)
    for name, draw in report.plots.items():
        buffer = io.BytesIO()
        draw(buffer)
        made[name] = buffer.getvalue()
    for name, content in made.items():
        write_atomic(output / name, content)


def make_report(records: pd.DataFrame, measured: Measured) -> Report:
    """Return the report of records, its plots not drawn yet.

    Args:
        records: with the columns of mint.trial.table_row.
        measured: by benchmarks.

    Raises:
        InputError: figures of a record do not belong together.
    """
    content = records_bytes(sort_records(records))
    # From the content, so that what is written does not depend on where the records came from.
    try:
        records = parse_records(content)
    except ValueError as error:
        raise InputError(f"the records cannot be reported: {error}") from error
    protocols = [
        Protocol(str(experiment), str(key), own)
        for (experiment, key), own in numbered(records).groupby(["experiment", "protocol"])
    ]
    puzzles = puzzles_page(
        [cell for protocol in protocols for cell in protocol.cells],
        _packaged("published.yaml")[0],
        measured,
        _packaged("breakdowns.yaml")["vgg16_cifar10"],
        [
            Comparison(protocol.name, " ".join(protocol.settings), protocol.criteria)
            for protocol in protocols
            if protocol.criteria
        ],
    )
    plots: Plots = {}
    text = ["# Results", "", _INTRODUCTION]
    for quoted in _packaged("published.yaml"):
        own = [protocol for protocol in protocols if protocol.experiment in quoted["experiments"]]
        text += ["", f"## {quoted['title']}", *_experiment(quoted, own, plots)]
        protocols = [protocol for protocol in protocols if protocol not in own]
    if protocols:
        text += ["", "## Other experiments"]
        for protocol in protocols:
            text += _other(protocol, plots)
    text += ["", f"SHA-256 of the figures in records.csv: `{figures_digest(records)}`."]
    pages = {
        RECORDS: content,
        SUMS: Checksums.of(records).page(),
        RESULTS: ("\n".join(text) + "\n").encode(),
        PUZZLES: ("\n".join(puzzles) + "\n").encode(),
    }
    return Report(pages, plots)


def _experiment(quoted: tables.Quoted, protocols: Sequence[Protocol], plots: Plots) -> list[str]:
    """Return the section of one experiment of the record; its plots are added to `plots`."""
    cells = [cell for protocol in protocols for cell in protocol.cells]
    compared = tables.in_comparison(quoted, cells)
    finished = {protocol.name: protocol.finished for protocol in protocols}
    text = ["", "### Comparison", "", *tables.comparison(quoted, compared, finished)]
    for note in quoted.get("notes", []):
        text += ["", note]
    varied: set[Cell] = set()
    for title, published in (("Group", "groups"), ("Sample", "samples")):
        if published in quoted:
            lines, shown = _variations(f"{title} variations", quoted[published], protocols)
            text += lines
            varied.update(shown)
    if "breakdown" in quoted:
        text += _breakdown(quoted, compared)
    for protocol in protocols:
        text += ["", f"### {protocol.experiment}, protocol {protocol.key}"]
        text += _protocol(protocol, plots, quoted)
        of_protocol = set(protocol.cells)
        own = [cell for cell in compared if cell in of_protocol]
        if "breakdown" in quoted and any(cell.known_layers for cell in own):
            name = protocol.plot("-layers")
            plots[name] = partial(draw_layers, cells=own)
            text += ["", f"![share of every layer's weights that is kept]({name})"]
        text += _criteria(protocol)
        others = [cell for cell in protocol.cells if cell not in varied]
        if others:
            title = "Trials" if len(others) == len(protocol.cells) else "Others"
            text += ["", f"#### {title}", "", *tables.trials(others)]
        text += _gaps(protocol)
    return text


def _variations(
    title: str, published: Sequence[Mapping[str, Any]], protocols: Sequence[Protocol]
) -> tuple[list[str], list[Cell]]:
    """Return the record's table of a variation, for every protocol that has some of it."""
    text: list[str] = []
    shown: list[Cell] = []
    for protocol in protocols:
        measured = tables.in_variations(published, protocol.cells)
        if any(measured):
            heading = f"### {title}: {protocol.experiment}, protocol {protocol.key}"
            text += ["", heading, "", *tables.variations(published, measured)]
            shown += [cell for own in measured for cell in own]
    if not text:
        nothing = tables.variations(published, [[] for _ in published])
        text = ["", f"### {title}", "", *nothing]
    return text, shown


def _breakdown(quoted: tables.Quoted, compared: Sequence[Cell]) -> list[str]:
    network = parse_layers(_packaged("breakdowns.yaml")[quoted["breakdown"]])
    cell = tables.for_breakdown(compared)
    if cell is None:
        told = "Kept: not run."
    else:
        told = (
            f"Kept: mean over seeds ({cell.seeds}) of {cell.experiment} {cell.protocol}, "
            f"{cell.criterion}, {cell.sentence}: of the rows above the one with most seeds, MINT "
            "before others, and of those the first."
        )
    table = tables.breakdown(network, quoted["reduced"], cell)
    return ["", "### Layer breakdown", "", told, "", *table]


def _other(protocol: Protocol, plots: Plots) -> list[str]:
    """Return the section of an experiment that the record has not."""
    text = ["", f"### {protocol.experiment}, protocol {protocol.key}"]
    text += [*_protocol(protocol, plots), *_criteria(protocol)]
    text += ["", "#### Trials", "", *tables.trials(protocol.cells)]
    return text + _gaps(protocol)


def _protocol(protocol: Protocol, plots: Plots, quoted: tables.Quoted | None = None) -> list[str]:
    """Return what was done, and pictures of what came out."""
    text = [line for setting in protocol.settings for line in ("", setting)]
    text += ["", tables.baseline(protocol.finished)]
    if protocol.finished.empty:
        return text
    published = quoted or {}
    name = protocol.plot()
    # Criteria that are side by side have a picture of their own.
    cells = [cell for cell in protocol.cells if cell.finished]
    own = [cell for cell in cells if cell.criterion == DEFAULT_CRITERION]
    drawn = own if protocol.criteria and own else cells
    plots[name] = partial(draw_tradeoff, cells=drawn, published=published.get("methods", []))
    text += ["", f"![accuracy against params pruned]({name})"]
    if protocol.criteria:
        name = protocol.plot("-criteria")
        plots[name] = partial(draw_criteria, compared=protocol.criteria)
        text += ["", f"![accuracy of each criterion against params pruned]({name})"]
    curves = variation_curves(
        protocol.cells, published.get("groups", []), published.get("samples", [])
    )
    if curves:
        name = protocol.plot("-variations")
        plots[name] = partial(draw_variations, curves=curves)
        text += ["", f"![params pruned and accuracy against groups and samples]({name})"]
    return text


def _criteria(protocol: Protocol) -> list[str]:
    if not protocol.criteria:
        return []
    return ["", "#### Criteria", "", *tables.criteria(protocol.criteria)]


def _gaps(protocol: Protocol) -> list[str]:
    lines = tables.gaps(protocol.cells)
    return ["", "#### FailedTrials", "", *lines] if lines else []


@cache
def _packaged(name: str) -> Any:
    return yaml.safe_load(files("mint").joinpath(name).read_text("utf-8"))
