"""benchmark.md: criteria over networks, seeds and shares; docs/benchmark.md has the rules."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mint.config.grid import SweepDefinition
from mint.reporting.aggregate import ACCURACY, NOT_RUN, REGIMES, SeedGroup, link, seed_groups
from mint.reporting.comparison import CONTROL, CONTROLS
from mint.reporting.figure_style import COLOURS, LINES, add_grid, label_ends, new_panels
from mint.reporting.markdown import table
from mint.reporting.resampling import (
    Scores,
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from mint.reporting.statistics import Cell, Difference, marked
from mint.rng import stream

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


_ALWAYS_SHOWN = [Method(name, "contiguous", "no") for name in CONTROLS]


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


def benchmark_results(trials: pd.DataFrame, definition: SweepDefinition) -> dict[str, Results]:
    """Return the results of a benchmark's seeds, by regime.

    Args:
        trials: trial table with lines.
        definition: its experiments, shares and seeds are those that count.
    """
    counted = trials["experiment"].isin(list(definition.grids))
    counted &= trials["seed"].isin(list(definition.seeds))
    found: dict[str, dict[Method, dict[Task, SeedGroup]]] = {}
    for group in seed_groups(trials[counted]):
        if group.fraction != "none" and group.upper_limit == "none":
            method = Method(group.criterion, group.grouping, group.compensate)
            task = Task(group.experiment, float(group.fraction))
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


def _results(
    found: Mapping[Method, Mapping[Task, SeedGroup]], planned: Sequence[Task], seeds: Sequence[int]
) -> Results:
    """Return the results of one regime; its tasks are those that random blocks were run at."""
    control = Method(CONTROL, "contiguous", "no")
    tasks = [task for task in planned if task in found.get(control, {})]
    runs, incomplete = [], {}
    for method, of_task in found.items():
        by_task = [
            {row["seed"]: row for row in of_task[task].rows} if task in of_task else {}
            for task in tasks
        ]
        complete = sum(set(rows) >= set(seeds) for rows in by_task)
        if complete < len(tasks) or not tasks:
            incomplete[method] = complete
            continue
        cells = [[rows[seed] for rows in by_task] for seed in seeds]
        accuracy = np.array(
            [[0.0 if math.isnan(row[ACCURACY]) else row[ACCURACY] for row in own] for own in cells]
        )
        dense = np.array([[row["dense_accuracy"] for row in own] for own in cells])
        score = np.where(np.isnan(dense), 0.0, 100 * accuracy / dense)
        runs.append(Runs(method, accuracy, score, [row["line"] for own in cells for row in own]))
    return Results(tasks, runs, incomplete)


def benchmark_page(results: Mapping[str, Results], definition: SweepDefinition) -> list[str]:
    """Return the lines of benchmark.md."""
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
    return lines


def _ranking(found: Results) -> list[str]:
    shares = sorted({task.fraction for task in found.tasks})
    ranked = np.array([task.fraction >= _FIRST_RANKED for task in found.tasks])
    by_method = {runs.method: runs for runs in found.runs}
    ordered = sorted(found.runs, key=lambda runs: -interquartile_mean(runs.score[:, ranked]))
    header = ["Rank", "Criterion", *(f"{100 * share:g}%" for share in shares), "Score"]
    for name in CONTROLS:
        header += [f"P over {name}", f"Against {name}"]
    rows: list[list[Cell]] = []
    for rank, runs in enumerate(ordered, start=1):
        cells: list[Cell] = [str(rank), runs.method.name]
        for share in shares:
            own = np.array([task.fraction == share for task in found.tasks])
            cells.append(f"{interquartile_mean(runs.score[:, own]):.2f}")
        cells.append(_with_interval(interquartile_mean, [runs.score[:, ranked]]))
        for control_of_all in _ALWAYS_SHOWN:
            own_control = runs.method._replace(criterion=control_of_all.criterion)
            control = by_method.get(own_control) or by_method.get(control_of_all)
            if control is None or control is runs:
                cells += ["N/A", "N/A"]
                continue
            both = [runs.score[:, ranked], control.score[:, ranked]]
            gained = (runs.accuracy - control.accuracy)[:, ranked].mean(axis=1)
            cells += [_with_interval(probability_of_improvement, both), Difference.of(list(gained))]
        rows.append([*cells, link(str(len(runs.lines)), runs.lines)])
    return table([*header, "Trials"], marked(rows, NOT_RUN), left=(1,))


def _with_interval(statistic: Callable[..., float], scores: Sequence[Scores]) -> str:
    value = statistic(*scores)
    low, high = bootstrap_interval(statistic, scores, stream(0, "intervals of the benchmark"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def draw_profiles(results: Mapping[str, Results]) -> "Figure":
    """Draw the share of runs that keep at least so much accuracy: a panel for each regime."""
    drawn = {regime: found for regime, found in results.items() if found.runs}
    figure, panels = new_panels(len(drawn), 3.4, columns=1)
    for axes, (regime, found) in zip(panels, drawn.items(), strict=True):
        ranked = [at for at, task in enumerate(found.tasks) if task.fraction >= _FIRST_RANKED]
        best = sorted(found.runs, key=lambda runs: -interquartile_mean(runs.score[:, ranked]))
        shown = best[:_MOST_PROFILES]
        shown += [runs for runs in best if runs.method in _ALWAYS_SHOWN and runs not in shown]
        lowest = min(np.quantile(runs.score[:, ranked], 0.1) for runs in shown)
        levels = np.linspace(lowest, 100, 400)
        ends = []
        for runs, (line, colour) in zip(shown, product(LINES, COLOURS), strict=False):
            profile = performance_profile(runs.score[:, ranked], levels)
            axes.plot(levels, 100 * profile, line, color=colour)
            ends.append((levels[-1], 100 * float(profile[-1]), runs.method.name, colour))
        axes.set(xlabel="accuracy kept (% of the dense control's)", ylabel="runs (%)")
        label_ends(axes, ends)
        add_grid(axes)
        axes.set_title(_NAMES[regime], fontsize=10)
    return figure
