"""A study: rounds of trials that fit a budget of time, the exported networks, and the page."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from mint.config.grid import Grid
from mint.config.keys import content_key
from mint.errors import InputError, WorkFailedError
from mint.orchestration.display import Lines
from mint.orchestration.study_exports import StudyExports
from mint.orchestration.study_plan import SEEDS, StudyPlan, affordable_seeds, choose_plan
from mint.orchestration.sweep_driver import run_sweep
from mint.orchestration.sweep_settings import SweepRequest
from mint.reporting.study_page import HTML_PAGE, PAGE, Study, write_study
from mint.store.atomic import write_atomic
from mint.trial.result import Baseline, TrialResult

_KEPT_PLAN = TypeAdapter(dict[str, StudyPlan])
_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class StudyRequest:
    """A study to run.

    Attributes:
        sweep_of: returns the sweep of a grid and seeds, checked.
        grid: groups, samples and criteria of all trials; the first criterion is measured.
        budget: in seconds.
        loss: accuracy that may be lost (percentage points).
        model: MODULE:FUNCTION of a user's network, whose code may be run; None for mint's own.
    """

    sweep_of: Callable[[Grid, Sequence[int]], SweepRequest]
    grid: Grid
    budget: float
    loss: float
    model: str | None


def run_study(request: StudyRequest, display: Lines) -> Sequence[str]:
    """Run a study in three rounds: measure one trial, run one seed, run the seeds that fit.

    Returns:
        Lines on what failed beside the page.

    Raises:
        InputError: as run_sweep.
        WorkFailedError: as run_sweep, or a round has no finished trial.
        KeyboardInterrupt: stopped; the same study goes on.
    """
    start, problems = time.monotonic(), list[str]()

    def run(chosen: Grid, seeds: int) -> tuple[SweepRequest, list[TrialResult]]:
        sweep = request.sweep_of(chosen, SEEDS[:seeds])
        outcome = run_sweep(sweep, display)
        if outcome.interrupted:
            raise KeyboardInterrupt
        problems.extend(outcome.problems)
        found = [sweep.cache.find("trials", config.key) for config in sweep.planned.configs]
        if not any(found):
            raise WorkFailedError("; ".join(outcome.problems))
        return sweep, [TrialResult.load(folder) for folder in found if folder]

    grid, criteria = request.grid, len(request.grid.criteria)
    dense = {"fractions": (0.0,), "retraining": ("light",), "criteria": grid.criteria[:1]}
    sweep, (measured,) = run(grid.model_copy(update=dense), 1)
    cache, output = sweep.cache, sweep.output
    key = content_key("study", measured.keys.key, *grid.criteria, request.budget)
    plan = _kept_plan(output, key)
    if plan is None:
        at_once = sweep.settings.sharing_memory(sweep.max_concurrent_trials)
        baseline = Baseline.load(cache.folder("baselines", measured.config.baseline_key))
        plan = choose_plan(measured, baseline, criteria, at_once, request.budget)
        display.say(f"plan: {plan.retraining} retraining, {len(plan.shares)} shares a criterion")
        began = time.monotonic()
        _, results = run(plan.grid(grid), 1)
        now = time.monotonic()
        # Of a study that goes on, some trials of the first seed were there.
        seed = max(now - began, sum(result.seconds for result in results) / at_once)
        left = request.budget - (now - start)
        plan = replace(plan, seeds=affordable_seeds(plan, criteria, seed, left))
        write_atomic(output / _PLAN_FILE, _KEPT_PLAN.dump_json({key: plan}, indent=1))
    display.say(f"plan: {plan.seeds} of {len(SEEDS)} seeds fit the budget")
    sweep, results = run(plan.grid(grid), plan.seeds)
    display.say("exporting the networks")
    exports = StudyExports(cache, output, request.model)
    study = exports.add_to(
        Study(results, request.loss, {}, plan.left_out),
        has_time=lambda: time.monotonic() - start < request.budget,
    )
    facts = [*_facts(results), f"It repeats with `{sweep.settings.provenance.command}`."]
    write_study(output, study, facts)
    display.say(f"page:   {output / PAGE} and {output / HTML_PAGE}")
    return problems


def _kept_plan(output: Path, key: str) -> StudyPlan | None:
    """Return the plan of a study that goes on: it runs the same trials, however long they took."""
    file = output / _PLAN_FILE
    try:
        return _KEPT_PLAN.validate_json(file.read_bytes()).get(key)
    except FileNotFoundError:
        return None
    except ValueError:
        problem = "is no plan of a study; remove it, or give another output"
        raise InputError(f"{file}: {problem}") from None


def _facts(results: Sequence[TrialResult]) -> list[str]:
    """Return lines on how a study was measured."""
    config = results[0].config
    experiment, training = config.experiment, config.retraining_settings
    seeds = sorted({result.config.seed for result in results})
    named = ", ".join(map(str, seeds))
    trained = f"trained {experiment.training.epochs} epochs"
    if config.init:
        trained = f"from {config.init.file}, {trained}"
    accuracies = {result.config.seed: result.baseline_accuracy for result in results}
    mean = sum(accuracies.values()) / len(accuracies)
    return [
        f"Baseline: {trained}; test accuracy {mean:.2f}%.",
        f"Retraining: {training.epochs} epochs at a learning rate of {training.lr:g}.",
        f"Scores: {config.groups} {config.grouping} groups, {config.samples_per_class} training "
        "images of each class.",
        f"Seeds {named}; {results[0].test_images} test images, read once a trial; "
        f"{experiment.data.validation_size} validation images.",
    ]
