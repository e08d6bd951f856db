"""The record's open questions, answered from the records: PUZZLES.md.

An answer is put in words by what was measured: an interval that leaves out 0 is a difference, one
that does not is none that these seeds can show, and what was not run is not answered.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mint.config.schema import DEFAULT_CRITERION
from mint.pruning.layer_table import parse_layers
from mint.reporting.aggregate import NOT_RUN, Cell, count, spread, used
from mint.reporting.comparison import (
    CONFIDENCE,
    REFERENCE,
    Compared,
    Difference,
    SpreadRatio,
    paired_difference,
    told,
)
from mint.reporting.markdown import table
from mint.reporting.masking_ways import masking_section
from mint.reporting.measured import Measured

_INTRODUCTION = (
    "Made by `mint report` from [records.csv](records.csv); do not edit. The open questions are "
    "those of the MINT authors' working record of results. Intervals are of Student's t over "
    f"seeds, at {CONFIDENCE:.0%}, and paired by seed where two settings are compared; one of "
    "twenty leaves out 0 by chance. Those of ratios of standard deviations are of Pitman and "
    "Morgan. Figures are mean ± standard deviation over seeds; Seeds leads "
    "to the records. `python sweeps/puzzles.py` runs what is asked for here."
)
_PRUNED, _ACCURACY = "params_pruned", "accuracy"
_NOTHING = "Not run: no trials of it are on record."


@dataclass(frozen=True)
class Comparison:
    """The criteria of one protocol.

    Attributes:
        protocol: its name.
        setting: what was done, in words.
        rows: the criteria at every share.
    """

    protocol: str
    setting: str
    rows: Sequence[Compared]


@dataclass(frozen=True)
class Study:
    """The cells of one experiment under one protocol.

    Attributes:
        experiment: its name.
        protocol: its key.
        cells: with a result.
    """

    experiment: str
    protocol: str
    cells: Sequence[Cell]

    @property
    def name(self) -> str:
        return f"{self.experiment} {self.protocol}"

    def line(self, axis: str, criterion: str = DEFAULT_CRITERION) -> list[Cell]:
        """Return the cells without a limit whose share was searched, in the order of an axis."""
        asked = ("none", "none", criterion)
        own = [
            cell
            for cell in self.cells
            if (cell.upper_limit, cell.fraction, cell.criterion) == asked
        ]
        return sorted(own, key=lambda cell: getattr(cell, axis))


def puzzles_page(
    cells: Sequence[Cell],
    published: Mapping[str, Any],
    measured: Measured,
    breakdown: str,
    comparisons: Sequence[Comparison],
) -> list[str]:
    """Return the lines of PUZZLES.md.

    Args:
        cells: of all records.
        published: the section of published.yaml on the MLP.
        measured: by benchmarks.
        breakdown: VGG16's layers, as mint.pruning.layer_table writes them.
        comparisons: of all protocols that have several criteria at given shares.
    """
    studies = _studies(cells)
    record = {
        (axis, row["groups"], row["samples_per_class"]): row[_PRUNED]
        for axis in ("groups", "samples")
        for row in published.get(axis, ())
        if row["upper_limit"] == "none"
    }
    return [
        "# Puzzles",
        "",
        _INTRODUCTION,
        *_more_groups(studies, record),
        *_more_samples(studies, record),
        *_averaging(studies),
        *_uneven_groups(studies),
        *_limit_of_80(measured.limits),
        *_limits_of_vgg16(cells, breakdown),
        *_best_masking(measured.masking),
        *_where_mint_wins(comparisons),
    ]


def _more_groups(studies: Sequence[Study], record: Mapping[Any, float]) -> list[str]:
    heading = _heading(
        "Why do more groups not prune linearly more?",
        "The record found 86.27, 88.23, 88.48 and 91.87% at 5, 10, 20 and 50 groups.",
    )
    text: list[str] = []
    for study in studies:
        lines = {
            criterion: study.line("groups", criterion)
            for criterion in (DEFAULT_CRITERION, REFERENCE, _MAGNITUDE)
        }
        mint = _one_sample_size(lines[DEFAULT_CRITERION])
        if len(mint) < 3:
            continue
        others = {
            name: {cell.groups: cell for cell in line}
            for name, line in lines.items()
            if name != DEFAULT_CRITERION
        }
        header = ["Groups", "Blocks", "MINT pruned (%)", "Seeds"]
        header += [f"{name} pruned (%)" for name in others] + ["MINT - random", "Record (%)"]
        rows, differences = [], []
        for cell in mint:
            rest = [own.get(cell.groups) for own in others.values()]
            differences.append(_paired(cell, others[REFERENCE].get(cell.groups), _PRUNED))
            rows.append(
                [
                    *(str(cell.groups), str(cell.groups**2), cell.spread(_PRUNED), cell.seeds),
                    *(other.spread(_PRUNED) if other else NOT_RUN for other in rest),
                    told(differences[-1]),
                    _published(record, "groups", study, cell),
                ]
            )
        text += ["", f"### {study.name}", "", *table(header, rows)]
        first, last = mint[0], mint[-1]
        step = _paired(last, first, _PRUNED)
        text += ["", f"From {first.groups} to {last.groups} groups MINT prunes {_verdict(step)}."]
        randoms = [others[REFERENCE].get(cell.groups) for cell in (first, last)]
        if all(randoms):
            same = _paired(randoms[1], randoms[0], _PRUNED)
            known = [difference for difference in differences if difference]
            more = sum(_outcome(difference) == "better" for difference in known)
            text += [
                f"Random blocks prune {_verdict(same)}. MINT prunes more than they do, with an "
                f"interval that leaves out 0, at {more} of {len(known)} numbers of groups."
            ]
        text += [
            "A block of g x g groups is 1/g² of the weights, and cutting a group off takes g of "
            "them: finer groups let the search stop nearer to the most that can go, and leave more "
            "filters connected. Neither grows in step with the number of groups.",
        ]
    return _answered(heading, text)


def _more_samples(studies: Sequence[Study], record: Mapping[Any, float]) -> list[str]:
    heading = _heading(
        "Why do more samples seem to prune less, and what is the dip at 550?",
        "The record found 85.35, 88.48, 88.48, 88.72, 79.41 and 89.70% at 150 to 650 samples per "
        "class, one run each, with one bootstrap.",
    )
    text: list[str] = []
    for study in studies:
        lines = _by("bootstraps", study.line("samples_per_class"))
        found = False
        for bootstraps, line in sorted(lines.items()):
            own = _widest(_by("groups", line).values())
            if len(own) < 3:
                continue
            found = True
            header = ["Samples per class", "Pruned (%)", "Test accuracy (%)", "Reliability"]
            header += ["Seeds", "Record (%)"]
            rows = [
                [
                    *(str(cell.samples_per_class), cell.spread(_PRUNED), cell.spread(_ACCURACY)),
                    *(cell.reliability, cell.seeds),
                    _published(record, "samples", study, cell),
                ]
                for cell in own
            ]
            title = f"{study.name}, {own[0].groups} groups, {count(bootstraps, 'bootstrap')}"
            text += ["", f"### {title}", "", *table(header, rows), ""]
            text += [_trend(own), *_dip(own)]
        if found:
            deviations = [
                np.std(cell.values(_PRUNED), ddof=1)
                for line in lines.values()
                for cell in line
                if len(cell.finished) > 2
            ]
            if deviations:
                text += [
                    "Runs that differ in the seed alone have a standard deviation of "
                    f"{np.median(deviations):.1f} points (the median over these rows): hold a "
                    "single run's distance from its neighbours against that."
                ]
    return _answered(heading, text)


def _averaging(studies: Sequence[Study]) -> list[str]:
    heading = _heading(
        "Does averaging the estimates steady the result?",
        "The record asks for it: possibly average the estimates over the runs.",
    )
    text: list[str] = []
    for study in studies:
        for key, line in _over_bootstraps(study).items():
            if len(line) < 3:
                continue
            header = ["Bootstraps", "Reliability", "Pruned (%)", "Test accuracy (%)"]
            header += ["Seeds"]
            rows = [
                [
                    *(str(cell.bootstraps), cell.reliability, cell.spread(_PRUNED)),
                    *(cell.spread(_ACCURACY), cell.seeds),
                ]
                for cell in line
            ]
            text += ["", f"### {study.name}, {key}", "", *table(header, rows), ""]
            step = _paired(line[-1], line[0], _ACCURACY)
            text += [
                f"With {line[-1].bootstraps} bootstraps instead of {line[0].bootstraps} the "
                f"reliability goes from {_mean(line[0], 'reliability')} to "
                f"{_mean(line[-1], 'reliability')}. Test accuracy is {_verdict(step)}.",
                *_steadiness(line[-1], line[0]),
            ]
    return _answered(heading, text)


def _uneven_groups(studies: Sequence[Study]) -> list[str]:
    heading = _heading(
        "What do uneven groups, 30 and 40, do?",
        "The original left the filters over that do not divide evenly unscored, and its authors "
        "discounted both. Here groups differ in size by one filter at most, and all are scored.",
    )
    text: list[str] = []
    for study in studies:
        line = _one_sample_size(study.line("groups"))
        own = {cell.groups: cell for cell in line}
        if not {20, 30, 40, 50} <= set(own):
            continue
        header = ["Groups", "Pruned (%)", "Test accuracy (%)", "Seeds", "Off the even ones"]
        rows, verdicts = [], []
        for groups in (20, 30, 40, 50):
            cell = own[groups]
            off = None
            if groups in (30, 40):
                weight = (groups - 20) / 30
                off = _against_between(cell, own[20], own[50], weight)
                verdicts.append(f"{groups} groups prune {_verdict(off, 'than a straight line')}")
            rows.append(
                [
                    str(groups),
                    cell.spread(_PRUNED),
                    cell.spread(_ACCURACY),
                    cell.seeds,
                    told(off) if off else "N/A",
                ]
            )
        text += ["", f"### {study.name}", "", *table(header, rows), ""]
        text += [
            f"Off the even ones: against the straight line between 20 and 50 groups with the same "
            f"seed, in percentage points. {'; '.join(verdicts)}."
        ]
    return _answered(heading, text)


def _limit_of_80(limits: pd.DataFrame | None) -> list[str]:
    text = _heading(
        "Why did a limit of 80% leave 13%?",
        "The original takes the limit as a quantile of the scores' unique values. One bootstrap "
        "counts edges, so its scores are few, and most blocks share the lowest of them.",
    )
    if limits is None or limits.empty:
        return [*text, "", _NOTHING]
    header = ["Share asked (%)", "Different scores of 400", "By their quantile (%)", "Exactly (%)"]
    rows = []
    for asked, own in limits.groupby("asked"):
        rows.append(
            [
                f"{100 * float(asked):g}",  # type: ignore[arg-type]
                spread(own["distinct"].to_numpy(float)),
                spread(own["by_quantile"].to_numpy(float)),
                spread(own["exactly"].to_numpy(float)),
            ]
        )
    of_80 = limits[limits["asked"] == 0.8]["by_quantile"]
    return [
        *text,
        "",
        *table(header, rows),
        "",
        "Measured by `benchmarks/limits.py` on one-bootstrap scores of fc1 -> fc2 (20 x 20 groups, "
        f"{count(int(limits['seed'].nunique()), 'seed')}). Asked for 80%, the original's rule "
        f"prunes {of_80.min():.1f} to {of_80.max():.1f}%, and so keeps {100 - of_80.max():.1f} to "
        f"{100 - of_80.min():.1f}%: near the record's 13%. An exact limit keeps 20%. That ties "
        "make a quantile of unique values prune more than is asked is arithmetic and certain; the "
        "scores of the record's own run are not known.",
    ]


def _limits_of_vgg16(cells: Sequence[Cell], breakdown: str) -> list[str]:
    layers = parse_layers(breakdown)
    total = sum(layer.weights for layer in layers)
    prunable = {
        "as the record's breakdown has it": 13275136,
        "of the run of 83.43%, as here": sum(layer.weights for layer in layers if not layer.reason),
    }
    text = _heading(
        "Do limits per layer change VGG16 as the record expects?",
        "It expects at most 66.47% of all weights pruned under a limit of 75%, and 70.90% under "
        "80%.",
    )
    header = ["Limit", *(f"{name}: {weights} (%)" for name, weights in prunable.items())]
    rows = [
        [f"{limit:g}", *(f"{100 * limit * weights / total:.2f}" for weights in prunable.values())]
        for limit in (0.75, 0.8, 0.85)
    ]
    text += ["", *table(header, rows), ""]
    text += [
        f"A limit caps what goes of all {total} weights at its product with the prunable ones. The "
        "record's expectation is right for the prunable weights of its breakdown; its best run "
        "could prune more of them. This is arithmetic and certain."
    ]
    measured = [
        cell
        for cell in cells
        if cell.finished
        and cell.experiment.startswith("vgg16_cifar10")
        and cell.upper_limit != "none"
    ]
    if not measured:
        return [*text, "What accuracy is left under them was not run."]
    header = ["Experiment", "Limit", "Criterion", "Pruned (%)", "Test accuracy (%)", "Seeds"]
    rows = [
        [
            *(f"{cell.experiment} {cell.protocol}", cell.upper_limit, cell.criterion),
            *(cell.spread(_PRUNED), cell.spread(_ACCURACY), cell.seeds),
        ]
        for cell in sorted(measured, key=lambda cell: (cell.protocol, cell.upper_limit))
    ]
    return [*text, "", "What was trained under limits:", "", *table(header, rows, left=(0, 2))]


def _best_masking(masking: pd.DataFrame | None) -> list[str]:
    text = _heading(
        "How does MINT mask best?",
        "What RESULTS.md shows to help is an option: the floor is `--floor`. Without a condition "
        "is `--criterion mint-unconditional`, and the paper's own estimate `--paper`.",
    )
    return [*text, "", *([_NOTHING] if masking is None else masking_section(masking))]


def _where_mint_wins(comparisons: Sequence[Comparison]) -> list[str]:
    """Hold MINT against random blocks and against magnitude wherever all three share a budget."""
    text = _heading(
        "Where does MINT win, and where not?",
        "Test accuracy at the same share, groups and seeds, less that of random blocks and of "
        "block magnitude; intervals that leave out 0 are starred. RESULTS.md has the curves.",
    )
    held, lost = 0, 0
    won: dict[tuple[str, str], list[str]] = {}
    for comparison in comparisons:
        by_budget: dict[Any, dict[str, Compared]] = {}
        for row in comparison.rows:
            by_budget.setdefault((row.setting, row.fraction), {})[row.criterion] = row
        lines = []
        for (setting, fraction), own in by_budget.items():
            if not {REFERENCE, _MAGNITUDE} <= own.keys():
                continue
            for criterion in _MINTS:
                if criterion not in own:
                    continue
                against = {
                    reference: _paired(own[criterion].trials, own[reference].trials, _ACCURACY)
                    for reference in (REFERENCE, _MAGNITUDE)
                }
                outcome = {_outcome(difference) for difference in against.values()}
                held += 1
                lost += "worse" in outcome
                if outcome == {"better"}:
                    won.setdefault((comparison.protocol, criterion), []).append(fraction)
                lines.append(
                    [
                        *(used(setting.groups), fraction, criterion),
                        own[criterion].trials.spread(_ACCURACY),
                        *(told(difference) for difference in against.values()),
                        own[criterion].trials.seeds,
                    ]
                )
        if lines:
            header = ["Groups", "Share pruned", "Criterion", "Test accuracy (%)"]
            header += ["Against random", "Against block magnitude", "Seeds"]
            text += ["", f"### {comparison.protocol}", "", comparison.setting, ""]
            text += table(header, lines, left=(2,))
    if not held:
        return [*text, "", _NOTHING]
    where = "; ".join(
        f"{criterion} at {', '.join(fractions)} of {protocol}"
        for (protocol, criterion), fractions in won.items()
    )
    return [
        *text,
        "",
        f"Of {count(held, 'comparison')} MINT is better than both random blocks and block "
        "magnitude, with intervals that leave out 0, in "
        f"{sum(map(len, won.values()))}{where and f' ({where})'}, and worse than one of them "
        f"in {lost}. Where nothing differed, one of forty would be won by chance, at most.",
    ]


_MINTS = ("mint", "mint-unconditional")
_MAGNITUDE = "block-magnitude"


def _outcome(difference: Difference | None) -> str:
    if difference is None or not difference.excludes_zero:  # nan excludes nothing
        return "even"
    return "better" if difference.mean > 0 else "worse"


def _heading(question: str, background: str) -> list[str]:
    return ["", f"## {question}", "", background]


def _answered(heading: list[str], answer: list[str]) -> list[str]:
    return [*heading, *(answer or ["", _NOTHING])]


def _studies(cells: Iterable[Cell]) -> list[Study]:
    """Gather the cells that have a result, by their protocol; MNIST first."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.finished:
            found.setdefault((cell.experiment, cell.protocol), []).append(cell)
    order = sorted(found, key=lambda key: (key[0] != "mnist_mlp", key))
    return [Study(*key, found[key]) for key in order]


def _by(axis: str, cells: Iterable[Cell]) -> dict[Any, list[Cell]]:
    found: dict[Any, list[Cell]] = {}
    for cell in cells:
        found.setdefault(getattr(cell, axis), []).append(cell)
    return found


def _widest(lines: Iterable[list[Cell]]) -> list[Cell]:
    return max(lines, key=len, default=[])


def _one_sample_size(line: Iterable[Cell]) -> list[Cell]:
    """Return the cells of the samples and bootstraps that most of them share."""
    return _widest(_by("bootstraps", _widest(_by("samples_per_class", line).values())).values())


def _over_bootstraps(study: Study) -> dict[str, list[Cell]]:
    """Return MINT's cells that differ in the bootstraps alone, by what they share."""
    found: dict[str, list[Cell]] = {}
    own = [cell for cell in study.cells if cell.criterion == DEFAULT_CRITERION]
    for cell in sorted(own, key=lambda cell: cell.bootstraps):
        limit = "no limit" if cell.upper_limit == "none" else f"limit {cell.upper_limit}"
        share = "searched" if cell.fraction == "none" else f"{100 * float(cell.fraction):g}% pruned"
        shared = f"{used(cell.groups)} groups, {cell.samples_per_class} samples, {limit}, {share}"
        found.setdefault(shared, []).append(cell)
    return found


def _seeds(cell: Cell, column: str) -> dict[int, float]:
    return {row["seed"]: row[column] for row in cell.finished}


def _paired(cell: Cell | None, reference: Cell | None, column: str) -> Difference | None:
    return paired_difference(cell, [reference], column) if cell and reference else None


def _against_between(cell: Cell, low: Cell, high: Cell, weight: float) -> Difference | None:
    """Return how far a cell is from the line between two others, over the seeds that all have."""
    own, first, last = (_seeds(each, _PRUNED) for each in (cell, low, high))
    shared = sorted(own.keys() & first.keys() & last.keys())
    return Difference.of(
        [own[seed] - (1 - weight) * first[seed] - weight * last[seed] for seed in shared]
    )


def _trend(line: Sequence[Cell]) -> str:
    """Say how much more is pruned with every hundred samples more: the slopes of the seeds."""
    most = max(len(cell.finished) for cell in line)
    full = [cell for cell in line if len(cell.finished) == most]
    samples = np.array([cell.samples_per_class for cell in full])
    by_seed = [_seeds(cell, _PRUNED) for cell in full]
    everywhere = sorted(set.intersection(*(set(seeds) for seeds in by_seed)))
    slopes = [
        100 * float(np.polyfit(samples, [seeds[seed] for seeds in by_seed], 1)[0])
        for seed in everywhere
    ]
    slope = Difference.of(slopes)
    return (
        f"With every hundred samples more, MINT prunes {_verdict(slope)} (slopes of "
        f"{count(len(slopes), 'seed')})."
    )


def _dip(line: Sequence[Cell]) -> list[str]:
    own = {cell.samples_per_class: cell for cell in line}
    if not {450, 550, 650} <= set(own):
        return []
    dip = _against_between(own[550], own[450], own[650], 0.5)
    return [
        f"At 550 it prunes {_verdict(dip, 'than the mean of 450 and 650')}; in the record 9.8 less."
    ]


def _published(record: Mapping[Any, float], axis: str, study: Study, cell: Cell) -> str:
    """Return what the record has, which is of MNIST alone."""
    own = record if study.experiment.startswith("mnist_mlp") else {}
    found = own.get((axis, cell.groups, cell.samples_per_class))
    return "none" if found is None else f"{found:.2f}"


def _verdict(difference: Difference | None, than: str = "") -> str:
    """Put a difference of percentage points in words."""
    if difference is None:
        return NOT_RUN
    mean = round(difference.mean, 2)
    words = f"{abs(mean):.2f} points {'more' if mean >= 0 else 'less'}"
    words = f"{words} {than}".strip()
    if math.isnan(difference.half_width):
        return f"{words} (one seed: no certainty)"
    certain = "a difference" if difference.excludes_zero else "no difference these seeds can show"
    return f"{words} {difference.interval}, {certain}"


def _steadiness(cell: Cell, reference: Cell) -> list[str]:
    """Say how the spread of test accuracy over the seeds of both compares."""
    own, others = _seeds(cell, _ACCURACY), _seeds(reference, _ACCURACY)
    shared = sorted(own.keys() & others.keys())
    ratio = SpreadRatio.of([own[seed] for seed in shared], [others[seed] for seed in shared])
    if ratio is None:
        return []
    certain = "a difference" if ratio.excludes_one else "no difference these seeds can show"
    return [
        f"Its standard deviation over seeds is {ratio.value:.2f} times as large "
        f"[{ratio.low:.2f}, {ratio.high:.2f}], {certain}."
    ]


def _mean(cell: Cell, column: str) -> str:
    values = cell.values(column)
    known = values[~np.isnan(values)]
    return f"{known.mean():.2f}" if len(known) else "none"
