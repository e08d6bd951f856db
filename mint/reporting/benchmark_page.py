"""benchmark.md: criteria over networks, seeds and shares; docs/benchmark.md has the rules."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.config.grid import SweepDefinition
from mint.config.schema import DEFAULT_CRITERION
from mint.reporting.aggregate import ACCURACY, NOT_RUN, REGIMES, SeedGroup, link, seed_groups
from mint.reporting.comparison import CONTROL, CONTROLS
from mint.reporting.figure_style import COLOURS, LINES, add_grid, new_panels
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.resampling import (
    Scores,
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from mint.reporting.statistics import Cell, Difference, differing, marked
from mint.reporting.trials_csv import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARK_FILE = "benchmark.md"
_NAMES = {"full": "Full retraining", "light": "Light retraining", "none": "No retraining"}
# The ranks are over the shares from here on: below, hardly any mask costs accuracy.
_FIRST_RANKED = 0.95

_MOST_PROFILES = 5


class Method(NamedTuple):
    """A criterion with what it is combined with."""

    criterion: str
    grouping: str
    compensate: str

    @property
    def name(self) -> str:
        """The criterion, with what differs from the defaults."""
        parts = [self.criterion]
        parts += [self.grouping] if self.grouping != "contiguous" else []
        return ", ".join([*parts, "compensated"] if self.compensate == "yes" else parts)


_ALWAYS_DRAWN = [Method(name, "contiguous", "no") for name in CONTROLS]


class Task(NamedTuple):
    """A network on a data set, and the share of its counted weights that is pruned."""

    experiment: str
    fraction: float


class Runs(NamedTuple):
    """A method's runs of one regime: accuracies and scores (seeds, tasks), and their lines.

    A score is the accuracy as a percentage of the dense control's, 0 for a failed trial.
    """

    method: Method
    accuracy: Scores
    score: Scores
    lines: Sequence[int]


class Results(NamedTuple):
    """The complete methods of one regime, and how many tasks the others have."""

    tasks: Sequence[Task]
    runs: Sequence[Runs]
    incomplete: Mapping[Method, int]

    @property
    def ranked_tasks(self) -> NDArray[np.bool_]:
        """Which tasks the ranks are over."""
        return np.array([task.fraction >= _FIRST_RANKED for task in self.tasks])

    @property
    def ranking(self) -> list[Runs]:
        """The methods, the best first."""
        ranked = self.ranked_tasks
        return sorted(self.runs, key=lambda runs: -interquartile_mean(runs.score[:, ranked]))


def benchmark_results(
    protocols: Mapping[str, Sequence[Protocol]], definition: SweepDefinition
) -> dict[str, Results]:
    """Return the results of a benchmark's seeds, by regime.

    Args:
        protocols: by experiment; of each, the protocol with the most trials counts.
        definition: its experiments, shares and seeds are those that count.
    """
    found: dict[str, dict[Method, dict[Task, SeedGroup]]] = {}
    for experiment in definition.grids:
        for group in _largest(protocols.get(experiment, ()), definition.seeds):
            if group.fraction != "none" and group.upper_limit == "none":
                method = Method(group.criterion, group.grouping, group.compensate)
                task = Task(experiment, float(group.fraction))
                found.setdefault(group.retraining, {}).setdefault(method, {})[task] = group
    planned = sorted(
        {
            Task(name, fraction)
            for name, grids in definition.grids.items()
            for grid in grids
            for fraction in grid.fractions
            if fraction is not None
        }
    )
    return {
        regime: _results(found[regime], planned, definition.seeds)
        for regime in REGIMES
        if regime in found
    }


def _largest(protocols: Sequence[Protocol], seeds: Sequence[int]) -> list[SeedGroup]:
    """Return the trials of these seeds in the protocol that has most of them."""
    counted = [own.trials[own.trials["seed"].isin(list(seeds))] for own in protocols]
    return seed_groups(max(counted, key=len)) if counted else []


def _results(
    found: Mapping[Method, Mapping[Task, SeedGroup]], planned: Sequence[Task], seeds: Sequence[int]
) -> Results:
    """Return the results of one regime, at the tasks where random blocks have all seeds."""
    random = found.get(Method(CONTROL, "contiguous", "no"), {})
    known = {task for task, group in random.items() if set(_counting(group)) >= set(seeds)}
    tasks = [task for task in planned if task in known]
    runs, incomplete = [], {}
    for method, of_task in found.items():
        by_task = [_counting(of_task[task]) if task in of_task else {} for task in tasks]
        complete = sum(set(rows) >= set(seeds) for rows in by_task)
        if complete < len(tasks) or not tasks:
            incomplete[method] = complete
            continue
        cells = [[rows[seed] for rows in by_task] for seed in seeds]
        accuracy = np.nan_to_num([[row[ACCURACY] for row in own] for own in cells])
        dense = np.array([[row["dense_accuracy"] for row in own] for own in cells])
        score = np.nan_to_num(100 * accuracy / dense)
        runs.append(Runs(method, accuracy, score, [row["line"] for own in cells for row in own]))
    return Results(tasks, runs, incomplete)


def _counting(group: SeedGroup) -> dict[int, Row]:
    """Return the rows by seed: those with a dense control, and failed trials, which score 0."""
    rows = [row for row in group.rows if row["status"] != "stopped"]
    known = (row for row in rows if row["status"] == "failed" or row["dense_accuracy"] > 0)
    return {row["seed"]: row for row in known}


def benchmark_page(
    results: Mapping[str, Results], definition: SweepDefinition, figure: Sequence[str]
) -> list[str]:
    """Return the lines of benchmark.md, with those that show the profiles."""
    lines = [
        "# Benchmark of criteria",
        "",
        "Made by `mint report` from [trials.csv](trials.csv); do not edit. A score is the test "
        "accuracy as a percentage of the dense control's, after the same retraining. Columns of "
        "shares, and Score, are interquartile means over networks and seeds [95% intervals of a "
        "stratified bootstrap]; Score and the ranks are over the shares from 95% on. P is the "
        "probability that a run is better than one of the control with the same groups and "
        "compensation. Against is the mean difference of accuracy to that control (percentage "
        "points), paired by seed, with Student's interval; \\* survives Holm's correction within "
        "the table. [The rules](../docs/benchmark.md) were fixed before the runs.",
    ]
    for regime, found in results.items():
        if found.runs:
            networks = ", ".join(dict.fromkeys(task.experiment for task in found.tasks))
            lines += ["", f"## {_NAMES[regime]}", ""]
            lines += [f"{networks}; seeds {', '.join(map(str, definition.seeds))}.", ""]
            lines += _ranking(found)
        missing = [
            f"{method.name} ({number} of {len(found.tasks)} tasks)"
            for method, number in found.incomplete.items()
        ]
        if missing:
            lines += ["", f"Not complete, so without a rank: {'; '.join(missing)}."]
    return [*lines, *figure]


def _ranking(found: Results) -> list[str]:
    """Return the table of one regime, and who of MINT's criteria is ahead of both controls."""
    shares = sorted({task.fraction for task in found.tasks})
    ranked = found.ranked_tasks
    by_method = {runs.method: runs for runs in found.runs}
    header = ["Rank", "Criterion", *(f"{100 * share:g}%" for share in shares), "Score"]
    for name in CONTROLS:
        header += [f"P over {name}", f"Against {name}"]
    rows: list[list[Cell]] = []
    for rank, runs in enumerate(found.ranking, start=1):
        cells: list[Cell] = [str(rank), runs.method.name]
        for share in shares:
            own = np.array([task.fraction == share for task in found.tasks])
            cells.append(f"{interquartile_mean(runs.score[:, own]):.2f}")
        cells.append(_with_interval(interquartile_mean, [runs.score[:, ranked]]))
        for name in CONTROLS:
            control = by_method.get(runs.method._replace(criterion=name))
            # Random blocks are the control of block magnitude, and not the other way round.
            if control is None or runs.method.criterion in (name, CONTROL):
                cells += ["N/A", "N/A"]
                continue
            both = [runs.score[:, ranked], control.score[:, ranked]]
            gained = (runs.accuracy - control.accuracy)[:, ranked].mean(axis=1)
            cells += [_with_interval(probability_of_improvement, both), Difference.of(list(gained))]
        rows.append([*cells, link(str(len(runs.lines)), runs.lines)])
    lines = table([*header, "Trials"], marked(rows, NOT_RUN), left=(1,))
    return [*lines, "", _verdict(rows)]


def _verdict(rows: Sequence[Sequence[Cell]]) -> str:
    """Return which criteria of the MINT family are ahead of both controls after Holm's correction.

    Args:
        rows: of the table: rank, name and figures.
    """
    known = {str(row[1]): [cell for cell in row if isinstance(cell, Difference)] for row in rows}
    differs = differing(rows)
    family = {
        name: own
        for name, own in known.items()
        if name.startswith(DEFAULT_CRITERION) and len(own) == len(CONTROLS)
    }
    if not family:
        return "No criterion of the MINT family is complete."
    ahead = [
        f"{name} ({' and '.join(map(str, own))})"
        for name, own in family.items()
        if all(differs[each] and each.mean > 0 for each in own)
    ]
    return (
        f"Of {len(family)} variants of the MINT family, ahead of {' and of '.join(CONTROLS)} with "
        f"the same groups and compensation: {'; '.join(ahead) or 'none'}."
    )


def _with_interval(statistic: Callable[..., float], scores: Sequence[Scores]) -> str:
    value = statistic(*scores)
    low, high = bootstrap_interval(statistic, scores, np.random.default_rng(0))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def draw_profiles(results: Mapping[str, Results]) -> "Figure":
    """Draw the share of runs that keep at least so much accuracy: a panel for each regime."""
    drawn = {regime: found for regime, found in results.items() if found.runs}
    figure, panels = new_panels(len(drawn), 3.4, columns=1)
    for axes, (regime, found) in zip(panels, drawn.items(), strict=True):
        ranked, best = found.ranked_tasks, found.ranking
        shown = best[:_MOST_PROFILES]
        shown += [runs for runs in best if runs.method in _ALWAYS_DRAWN and runs not in shown]
        lowest = min(np.quantile(runs.score[:, ranked], 0.1) for runs in shown)
        levels = np.linspace(lowest, 100, 400)
        for runs, (line, colour) in zip(shown, product(LINES, COLOURS), strict=False):
            profile = performance_profile(runs.score[:, ranked], levels)
            axes.plot(levels, 100 * profile, line, color=colour, label=runs.method.name)
        axes.set(xlabel="accuracy kept (% of the dense control's)", ylabel="runs (%)")
        axes.legend(loc="lower left", fontsize=8)
        add_grid(axes)
        axes.set_title(_NAMES[regime], fontsize=10)
    return figure
