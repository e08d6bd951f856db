"""A study: rounds of trials that fit a budget of time, the exported networks, and the page."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import TypeAdapter

from mint.config.grid import Grid
from mint.config.keys import content_key
from mint.errors import InputError, WorkFailedError
from mint.orchestration.display import Lines
from mint.orchestration.study_exports import StudyExports
from mint.orchestration.study_plan import (
    ROUND_SECONDS,
    SEEDS,
    StudyPlan,
    affordable_seeds,
    choose_plan,
)
from mint.orchestration.sweep_driver import run_sweep
from mint.orchestration.sweep_settings import SweepRequest
from mint.reporting.study_page import HTML_PAGE, PAGE, Study, write_study
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache
from mint.trial.forecast import format_duration
from mint.trial.result import Baseline, TrialResult

_KEPT_PLANS = TypeAdapter(dict[str, StudyPlan])
_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class StudyRequest:
    """A study to run.

    Attributes:
        sweep_of: returns the sweep of a grid and seeds, checked.
        grid: groups, samples and criteria of all trials.
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
    """Run a study in three rounds: measure the dense control, run one seed, run those that fit.

    Returns:
        Lines on what failed beside the page.

    Raises:
        InputError: as run_sweep.
        WorkFailedError: as run_sweep, or a round has no finished trial.
        KeyboardInterrupt: stopped; the same study goes on.
    """
    start, problems = time.monotonic(), dict[str, None]()

    def run(chosen: Grid, seeds: int) -> tuple[_Place, list[TrialResult]]:
        sweep = request.sweep_of(chosen, SEEDS[:seeds])
        outcome = run_sweep(sweep, display)
        if outcome.interrupted:
            raise KeyboardInterrupt
        problems.update(dict.fromkeys(outcome.problems))
        found = [sweep.cache.find("trials", config.key) for config in sweep.planned.configs]
        if not any(found):
            gone = f"the cache {sweep.cache.root} no longer has its trials; use another store"
            raise WorkFailedError("; ".join(outcome.problems) or gone)
        results = [TrialResult.load(folder) for folder in found if folder]
        return _Place.of(sweep, len(found) - len(results)), results

    grid = request.grid
    place, measured = run(
        grid.model_copy(update={"fractions": (0.0,), "retraining": ("light",)}), 1
    )
    baseline = Baseline.load(place.cache.folder("baselines", measured[0].config.baseline_key))
    key = _plan_key(request, measured[0])
    plans = _kept_plans(place.output)
    plan = plans.get(key)
    if plan is None:
        plan = choose_plan(measured, baseline.seconds, place.at_once, request.budget)
        display.say(f"plan: {plan.retraining} retraining, {len(plan.shares)} shares a criterion")
        if plan.seconds > request.budget:
            needed = format_duration(plan.seconds)
            display.say(f"plan: the budget is short; five seeds take about {needed}")
        began = time.monotonic()
        _, results = run(plan.grid(grid), 1)
        now = time.monotonic()
        # Of a study that goes on, some trials of the first seed were there.
        took = max(
            now - began - ROUND_SECONDS, sum(result.seconds for result in results) / place.at_once
        )
        scores = sum(result.score_seconds for result in measured) / place.at_once
        left = request.budget - (now - start)
        seeds = affordable_seeds(len(results), took + baseline.seconds + scores, left)
        plan = replace(plan, seeds=seeds)
        content = _KEPT_PLANS.dump_json({**plans, key: plan}, indent=1)
        write_atomic(place.output / _PLAN_FILE, content)
    display.say(f"plan: {plan.seeds} of {len(SEEDS)} seeds fit the budget")
    place, results = run(plan.grid(grid), plan.seeds)
    facts = [*_facts(results), f"It repeats with `{place.command}`."]
    study = Study(results, request.loss, plan.seeds, {}, plan.left_out, place.failed)
    write_study(place.output, study, facts)
    display.say("exporting the networks")
    exports = StudyExports(place.cache, place.output, request.model)
    study = exports.add_to(study, has_time=lambda: time.monotonic() - start < request.budget)
    write_study(place.output, study, facts)
    display.say(f"page:   {place.output / PAGE} and {place.output / HTML_PAGE}")
    return list(problems)


class _Place(NamedTuple):
    """Where a round of trials ran; without its data, which may fill the memory."""

    cache: StageCache
    output: Path
    at_once: int
    command: str
    failed: int

    @classmethod
    def of(cls, sweep: SweepRequest, failed: int) -> "_Place":
        settings = sweep.settings
        at_once = settings.sharing_memory(sweep.max_concurrent_trials)
        if settings.gpus_per_trial:
            at_once = max(1, int(torch.cuda.device_count() / settings.gpus_per_trial))
        return cls(sweep.cache, sweep.output, at_once, settings.provenance.command, failed)


def _plan_key(request: StudyRequest, measured: TrialResult) -> str:
    """Return a key of all that a plan depends on: the trials and the budget."""
    experiment = measured.config.experiment
    settings = [experiment.retraining_settings(kind).content() for kind in ("light", "full")]
    criteria = request.grid.criteria
    return content_key("study", measured.keys.key, *settings, *criteria, request.budget)


def _kept_plans(output: Path) -> dict[str, StudyPlan]:
    """Return the plans of a folder: a study that goes on runs the same trials as before."""
    file = output / _PLAN_FILE
    try:
        return _KEPT_PLANS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
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
        trained = f"from {config.init.file}, the same for all seeds, {trained}"
    accuracies = {result.config.seed: result.baseline_accuracy for result in results}
    mean = sum(accuracies.values()) / len(accuracies)
    held_out = f"{experiment.data.validation_size} validation images"
    if config.init:
        held_out += ", which the initial weights may have been trained on"
    return [
        f"Baseline: {trained}; test accuracy {mean:.2f}%.",
        f"Retraining: {training.epochs} epochs at a learning rate of {training.lr:g}.",
        f"Scores: {config.groups} {config.grouping} groups, {config.samples_per_class} training "
        "images of each class.",
        f"Seeds {named}; {results[0].test_images} test images, read once a trial; {held_out}.",
    ]
