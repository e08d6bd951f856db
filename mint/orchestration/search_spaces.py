"""What Ray Tune runs: a grid, a grid with early stopping, or a search with Optuna."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from mint.config.grid import Grid, parse_limit
from mint.config.schema import TrialConfig
from mint.orchestration.sweep_settings import SweepRequest
from mint.store.stage_cache import StageCache
from mint.trial.failed_trials import FailedTrials
from mint.trial.result import TrialResult

EPOCH, VALIDATION_ACCURACY, PARAMS_PRUNED = "epoch", "validation_accuracy", "params_pruned"
"""Fields of a trial's reports that schedulers and searchers read."""

_TRIAL = "trial"

History = Sequence[tuple[int, float]]
"""(epoch, validation accuracy in percent) of a retraining."""


@dataclass(frozen=True)
class TunePlan:
    """Trials for Ray Tune: either in the space, or drawn by a searcher as often as samples says.

    A scheduler stops trials early.
    """

    space: dict[str, Any]
    samples: int = 1
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None


def make_plan(
    request: SweepRequest, missing: Sequence[TrialConfig], max_concurrent_trials: int
) -> TunePlan:
    """Return the plan of a sweep; a grid runs the missing trials."""
    if request.settings.search == "grid":
        return grid_plan(missing)
    if request.settings.search == "asha":
        epochs = request.base.retraining_settings.epochs
        return asha_plan(missing, epochs, _histories(request.planned.configs, request.cache))
    return optuna_plan(request.base, request.space, request.draws, max_concurrent_trials)


def trial_config(parameters: Mapping[str, Any]) -> TrialConfig:
    """Return the trial that Ray Tune's parameters hold."""
    return TrialConfig.model_validate_json(parameters[_TRIAL])


def grid_plan(trials: Sequence[TrialConfig]) -> TunePlan:
    """Return a plan that runs these trials."""
    return TunePlan({_TRIAL: tune.grid_search([trial.model_dump_json() for trial in trials])})


def asha_plan(
    trials: Sequence[TrialConfig], epochs: int, known: Iterable[tuple[str, History]]
) -> TunePlan:
    """Return a plan that stops trials whose retraining falls behind (ASHA, Li et al. 2020).

    After a tenth of the epochs, and after each threefold of it, a trial continues only if its
    validation accuracy is among the best third of the trials that came as far: these, and those
    of earlier runs of the sweep, with known keys and histories.
    """
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=VALIDATION_ACCURACY,
        mode="max",
        max_t=epochs,
        grace_period=max(1, epochs // 10),
        reduction_factor=3,
    )
    for key, history in known:
        ended: Any = SimpleNamespace(trial_id=key)  # the scheduler reads no more of a trial
        controller: Any = None
        scheduler.on_trial_add(controller, ended)
        for epoch, accuracy in history:
            if epoch < epochs:
                result = {EPOCH: epoch, VALIDATION_ACCURACY: accuracy}
                scheduler.on_trial_result(controller, ended, result)
        scheduler.on_trial_remove(controller, ended)
    return TunePlan(grid_plan(trials).space, scheduler=scheduler)


def _histories(trials: Sequence[TrialConfig], cache: StageCache) -> list[tuple[str, History]]:
    """Return the key of every trial that ended, and the history of its last retraining."""
    failed_trials = FailedTrials(cache)
    known: list[tuple[str, History]] = []
    for trial in trials:
        if folder := cache.find("trials", trial.key):
            last = TrialResult.load(folder).search_steps[-1:]
            epochs = [epoch for step in last for epoch in step.retraining.training]
            known.append((trial.key, [(e.epoch, e.validation_accuracy) for e in epochs]))
        elif failed := failed_trials.read(trial.key):
            known.append((trial.key, failed.history))
    return known


def optuna_plan(base: TrialConfig, space: Grid, draws: int, max_concurrent_trials: int) -> TunePlan:
    """Return a plan that searches for accuracy and pruned params at once, with Optuna's TPE.

    Args:
        base: what all trials share; its seed is the search's, too.
        space: axes to draw from; fractions are drawn between the least and the most.
        draws: number of trials.
        max_concurrent_trials: drawn together; Optuna learns their results in the order in which
            they were drawn. The same command thus always draws the same trials, and resumes one
            that was stopped.
    """
    from ray.tune.search.optuna import OptunaSearch  # takes seconds

    fractions = [fraction for fraction in space.fractions if fraction is not None]
    axes: dict[str, Any] = {
        "groups": tune.choice(space.groups),
        "samples_per_class": tune.choice(space.samples_per_class),
        "upper_limit": tune.choice(space.upper_limits),
        "bootstraps": tune.choice(space.bootstraps),
    }
    if len(space.criteria) > 1:  # a single choice would still change what is drawn
        axes["criterion"] = tune.choice(space.criteria)
    if len(space.retraining) > 1:
        axes["retraining"] = tune.choice(space.retraining)
    if space.compensate != ("no",):
        axes["compensate"] = tune.choice(space.compensate)
    if space.grouping != ("contiguous",):
        axes["grouping"] = tune.choice(space.grouping)
    axes["fraction"] = tune.uniform(min(fractions), max(fractions))
    optuna = OptunaSearch(
        OptunaSearch.convert_search_space(axes),
        metric=[VALIDATION_ACCURACY, PARAMS_PRUNED],
        mode=["max", "max"],
        seed=base.seed,
    )
    return TunePlan({}, draws, _BatchSearcher(optuna, max_concurrent_trials, base))


class _BatchSearcher(Searcher):
    """Draws a batch of trials at once, and reports their results in order when all have ended."""

    def __init__(self, searcher: Searcher, size: int, base: TrialConfig) -> None:
        super().__init__()
        self._searcher = searcher
        self._size = size
        self._base = base
        self._drawn = 0
        self._waiting: list[tuple[str, Any]] = []
        self._names: dict[str, str] = {}
        self._results: dict[str, dict[str, Any] | None] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self._waiting:
            if self._names:
                return None
            for _ in range(self._size):
                name = f"draw-{self._drawn}"
                self._waiting.append((name, self._searcher.suggest(name)))
                self._drawn += 1
        self._names[trial_id], axes = self._waiting.pop(0)
        axes["fraction"] = round(axes["fraction"], 4)
        axes["upper_limit"] = parse_limit(axes["upper_limit"], axes["groups"])
        drawn = TrialConfig.model_validate(self._base.model_dump() | axes)
        return {_TRIAL: drawn.model_dump_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ignore results before the end: there are two objectives."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        has_result = result and PARAMS_PRUNED in result and not error
        self._results[trial_id] = result if has_result else None
        if self._waiting or self._results.keys() != self._names.keys():
            return
        for ended, name in self._names.items():
            known = self._results[ended]
            self._searcher.on_trial_complete(name, known, error=known is None)
        self._names, self._results = {}, {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the same command draws the same trials again."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""
