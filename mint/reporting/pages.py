"""The report: RESULTS.md, a page for each experiment, and figures, from a trial table alone.

The same rows and reference results give the same bytes.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from mint.config.grid import bundled_sweeps
from mint.reporting import tables
from mint.reporting.aggregate import COMPENSATIONS, GROUPINGS
from mint.reporting.benchmark_page import (
    BENCHMARK_FILE,
    benchmark_page,
    benchmark_results,
    draw_profiles,
)
from mint.reporting.comparison import effects_of_axes, effects_of_criteria
from mint.reporting.drawing import Plots, draw_all
from mint.reporting.figures import (
    compared_findings,
    draw_criteria,
    draw_findings,
    draw_layers,
    draw_shares,
    draw_tradeoff,
    has_curves,
    share_curves,
)
from mint.reporting.made import (
    RESULTS_FILE,
    TRIALS_FILE,
    Made,
    digest_of_figure,
    digest_of_file,
    source_digest,
)
from mint.reporting.overview import (
    compared_groups,
    comparison_table,
    findings_of,
    sentences,
    variation_lines,
)
from mint.reporting.protocols import Protocol, protocols_of
from mint.reporting.reference import (
    ReferenceResults,
    copied_references,
    copy_references,
    read_reference,
)
from mint.reporting.statistics import CONFIDENCE, FEWEST_SEEDS
from mint.reporting.trials_csv import sort_trials, trials_csv
from mint.store.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES_FOLDER = "figures"
_MADE = "Made by `mint report` from [trials.csv](trials.csv); do not edit."
_HOW_TO_READ = (
    "Figures are percent, differences percentage points, each mean ± standard deviation over "
    "seeds. Seeds links to the trials. The share at the margin is the share of the counted weights "
    "whose removal costs a stated drop of validation accuracy. Differences are paired by seed, "
    f"with [{CONFIDENCE:.0%} intervals] of Student's t from {FEWEST_SEEDS} seeds on. \\* marks a "
    "difference after Holm's correction within its table, = an equivalence by two one-sided tests "
    "within 0.2 points of accuracy (at least two test images) or 0.5 points of share. Anything "
    "else is not settled. Columns that nothing was run for are left out."
)
_AXES_TEXT = "From the lowest value, over all settings that share the rest, for MINT."
_CRITERIA_TEXT = "Against the controls, over all settings that share the rest."


class Report(NamedTuple):
    """The text of the pages by file name, and their figures by path in the folder."""

    pages: dict[str, str]
    plots: Plots


def write_report(output: Path, trials: pd.DataFrame, references: Iterable[Path] = ()) -> Report:
    """Write trials.csv, the pages, the figures and copies of reference files into a folder.

    Raises:
        InputError: a reference file is malformed.
    """
    trials = sort_trials(trials)
    copy_references(output, references)
    report = make_report(trials, read_references(output))
    table = trials_csv(trials)
    files = {TRIALS_FILE: table, **{name: text.encode() for name, text in report.pages.items()}}
    for name, content in files.items():
        write_atomic(output / name, content)
    before = Made.load(output)
    drawn = {name: digest_of_figure(draw) for name, draw in report.plots.items()}
    changed = {
        name: draw
        for name, draw in report.plots.items()
        if drawn[name] != before.drawn.get(name) or not before.has(output, name)
    }
    for name, figure in draw_all(changed).items():
        if isinstance(figure, str):
            warnings.warn(f"{name}: is not drawn ({figure})", stacklevel=2)
            (output / name).unlink(missing_ok=True)  # it would show other trials
            del drawn[name]
        else:
            write_atomic(output / name, figure)
    Made(
        source=source_digest(table, copied_references(output)),
        files={name: digest_of_file(output / name) for name in (*files, *drawn)},
        drawn=drawn,
    ).save(output)
    return report


def read_references(output: Path) -> list[ReferenceResults]:
    """Return the reference results of a results folder, in the order of their file names."""
    return [read_reference(file) for file in copied_references(output)]


def make_report(trials: pd.DataFrame, references: Sequence[ReferenceResults]) -> Report:
    """Return the report of a sorted trial table, its figures not drawn yet."""
    by_experiment: dict[str, list[Protocol]] = {}
    for protocol in protocols_of(trials):
        by_experiment.setdefault(protocol.experiment, []).append(protocol)
    plots: Plots = {}
    pages: dict[str, str] = {}
    lines = ["# Results", "", f"{_MADE} {_HOW_TO_READ}"]
    others = dict(by_experiment)
    for reference in references:
        own = [name for name in reference.experiments if name in others]
        protocols = [protocol for name in own for protocol in others.pop(name)]
        lines += ["", f"## {reference.title}", "", *_overview(reference, protocols, plots)]
    if others:
        lines += ["", "## Other experiments" if references else "## Experiments", ""]
    for name, protocols in others.items():
        lines.append(f"- [{name}]({name}.md){_short_finding(protocols)}.")
    for name, protocols in by_experiment.items():
        published = next((each for each in references if name in each.experiments), None)
        pages[f"{name}.md"] = _experiment_page(name, protocols, published, plots)
    if benchmark := _benchmark(by_experiment, plots):
        pages[BENCHMARK_FILE] = benchmark
        lines += ["", f"[The benchmark of criteria]({BENCHMARK_FILE}) ranks them over networks."]
    return Report({RESULTS_FILE: "\n".join(lines) + "\n", **pages}, plots)


def _benchmark(by_experiment: Mapping[str, Sequence[Protocol]], plots: Plots) -> str:
    """Return the page of the benchmark; empty if no criterion is complete."""
    definition = bundled_sweeps()["benchmark"]
    results = benchmark_results(by_experiment, definition)
    if not any(found.runs for found in results.values()):
        return ""
    caption = "share of runs that keep so much of the dense network's accuracy"
    figure = _figure(plots, caption, "benchmark", draw_profiles, results)
    return "\n".join(benchmark_page(results, definition, figure)) + "\n"


def _short_finding(protocols: Iterable[Protocol]) -> str:
    """Return the first finding on MINT against a control, for an experiment without references."""
    own = [each for each in findings_of(protocols) if each.effect.axis == "criterion"]
    return f": MINT against {own[0].effect.low} is {own[0].text}" if own else ""


def _figure(
    plots: Plots, caption: str, words: str, draw: "Callable[..., Figure]", *drawn: Any
) -> list[str]:
    """Add a figure to the plots, and return the lines that show it."""
    slug = re.sub(r"[^a-z0-9_]+", "-", words.lower()).strip("-")
    path = f"{FIGURES_FOLDER}/{slug}.png"
    plots[path] = partial(draw, *drawn)
    return ["", f"![{caption}]({path})"]


def _overview(
    reference: ReferenceResults, protocols: Sequence[Protocol], plots: Plots
) -> list[str]:
    """Return the section of RESULTS.md on the experiments of a reference file."""
    names = list(dict.fromkeys(protocol.experiment for protocol in protocols))
    lines = [f"Published rows are quoted from {reference.source}."]
    if names:
        lines[0] += f" All tables: {', '.join(f'[{name}]({name}.md)' for name in names)}."
    lines.append("")
    experiment = names[0] if names else reference.experiments[0]
    groups = [group for protocol in protocols for group in protocol.groups if group.finished]
    if groups:
        findings = findings_of(protocols)
        lines += sentences(findings, experiment)
        compared = compared_groups(reference, groups)
        if shown := compared_findings(findings):
            caption = "differences of MINT to its controls, with intervals"
            lines += _figure(plots, caption, f"{reference.title} findings", draw_findings, shown)
        elif compared:
            caption = "accuracy against params pruned, published and measured"
            drawn = (compared, reference.methods)
            lines += _figure(plots, caption, f"{reference.title} accuracy", draw_tradeoff, *drawn)
    else:
        lines.append(f"Not run: `mint run --experiment {experiment}` runs a trial.")
    lines += ["", "### Comparison", "", *comparison_table(reference, protocols)]
    return lines + variation_lines(reference, protocols)


def _experiment_page(
    name: str, protocols: Sequence[Protocol], reference: ReferenceResults | None, plots: Plots
) -> str:
    """Return the page of an experiment; add its figures to the plots."""
    lines = [f"# {name}", "", f"{_MADE} {_HOW_TO_READ}"]
    for protocol in protocols:
        lines += ["", f"## {protocol.name[:1].upper()}{protocol.name[1:]}"]
        for sentence in protocol.settings:
            lines += ["", sentence]
        for sentence in tables.baseline_sentences(protocol.groups, protocol.finished):
            lines += ["", sentence]
        lines += _effect_tables(protocol)
        lines += _criteria_section(protocol, plots)
        published = reference.variations if reference else {}
        if curves := share_curves(protocol.grouped("contiguous")):
            caption = "share at the margin against groups and samples"
            words = f"{protocol.title} groups and samples"
            lines += _figure(plots, caption, words, draw_shares, curves, published)
        compared = {id(row.trials) for row in protocol.criteria}
        others = [group for group in protocol.groups if id(group) not in compared]
        if others:
            lines += ["", "### Other trials" if compared else "### Trials"]
            lines += ["", *tables.trials_table(others)]
        if failed := tables.failed_trials_table(protocol.groups):
            lines += ["", "### Failed trials", "", *failed]
    if reference:
        lines += _reference_lines(name, protocols, reference, plots)
    return "\n".join(lines) + "\n"


def _effect_tables(protocol: Protocol) -> list[str]:
    lines = []
    for grouping, compensate in product(GROUPINGS, COMPENSATIONS):
        groups = protocol.grouped(grouping, compensate)
        of = "" if grouping == "contiguous" else f", {grouping} groups"
        of += ", compensated" if compensate == "yes" else ""
        for title, text, effects in (
            ("Effect of the criterion", _CRITERIA_TEXT, effects_of_criteria(groups)),
            ("Effect of each axis", _AXES_TEXT, effects_of_axes(groups)),
        ):
            if effects:
                lines += ["", f"### {title}{of}", "", text, "", *tables.effects_table(effects)]
    return lines


def _criteria_section(protocol: Protocol, plots: Plots) -> list[str]:
    lines = []
    criteria = protocol.criteria
    if has_curves(criteria):
        caption = "accuracy of each criterion against params pruned"
        lines += _figure(plots, caption, f"{protocol.title} criteria", draw_criteria, criteria)
    for regime, compensate in dict.fromkeys(
        (row.axes.retraining, row.axes.compensate) for row in criteria
    ):
        own = [row for row in criteria if row.axes.retraining == regime]
        own = [row for row in own if row.axes.compensate == compensate]
        title = f"### Criteria, {regime} retraining".replace("none retraining", "no retraining")
        lines += ["", title + (", compensated" if compensate == "yes" else "")]
        lines += ["", *tables.criteria_table(own)]
    return lines


def _reference_lines(
    name: str, protocols: Sequence[Protocol], reference: ReferenceResults, plots: Plots
) -> list[str]:
    """Return the layers of a network with reference results, and the notes on these."""
    lines = []
    groups = [group for protocol in protocols for group in protocol.groups if group.finished]
    compared = compared_groups(reference, groups)
    if reference.layers or reference.notes:
        lines += ["", "## Reference results"]
    for note in reference.notes:
        lines += ["", note]
    if reference.layers:
        lines += tables.breakdown_section(reference, compared)
        if compared:
            caption = "kept weights of every layer"
            lines += _figure(plots, caption, f"{name} layers", draw_layers, compared)
    return lines
