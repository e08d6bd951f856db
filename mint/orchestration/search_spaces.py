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
from mint.orchestration.settings import SweepRequest
from mint.store.stage_cache import StageCache
from mint.trial.failed_trials import FailedTrials
from mint.trial.result import TrialResult

EPOCH, VALIDATION_ACCURACY, PARAMS_PRUNED = "epoch", "validation_accuracy", "params_pruned"
"""Fields of a trial's reports that schedulers and searchers read."""

_TRIAL = "trial"
_GRACE_SHARE = 10  # ASHA stops no trial before a tenth of its epochs
_REDUCTION_FACTOR = 3

History = Sequence[tuple[int, float]]
"""(epoch, validation accuracy in percent) of a retraining."""


@dataclass(frozen=True)
class TunePlan:
    """Trials for Ray Tune.

    Attributes:
        space: Tune's param_space.
        samples: how often Tune draws from it.
        base: trial that a search varies; None if the space holds whole trials.
        searcher: draws the trials; None for Tune's own.
        scheduler: stops trials early; None for none.
    """

    space: dict[str, Any]
    samples: int = 1
    base: TrialConfig | None = None
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None


def make_plan(
    request: SweepRequest, waiting: Sequence[TrialConfig], max_concurrent_trials: int
) -> TunePlan:
    """Return the plan of a request.

    Args:
        request: of the sweep.
        waiting: trials of a grid that have no result.
        max_concurrent_trials: run at a time.
    """
    trials = request.planned.configs
    if request.search == "grid":
        return grid_plan(waiting)
    if request.search == "asha":
        epochs = request.experiment.retraining_settings.epochs
        return asha_plan(waiting, epochs, known_histories(trials, request.cache))
    assert request.space
    return optuna_plan(trials[0], request.space, request.draws, max_concurrent_trials)


def trial_config(parameters: Mapping[str, Any], base: TrialConfig | None) -> TrialConfig:
    """Return the trial that Ray Tune's parameters describe."""
    if base is None:
        return TrialConfig.model_validate_json(parameters[_TRIAL])
    values = dict(parameters)
    limit = parse_limit(str(values.pop("upper_limit")), int(values["groups"]))
    update = {**values, "fraction": round(values["fraction"], 4), "upper_limit": limit}
    return TrialConfig.model_validate(base.model_dump() | update)


def grid_plan(trials: Sequence[TrialConfig]) -> TunePlan:
    """Return a plan that runs these trials."""
    return TunePlan({_TRIAL: tune.grid_search([trial.model_dump_json() for trial in trials])})


def asha_plan(
    trials: Sequence[TrialConfig], epochs: int, known: Iterable[tuple[str, History]]
) -> TunePlan:
    """Return a plan that stops trials whose retraining falls behind (ASHA, Li et al. 2020).

    After a tenth of the epochs, and after each threefold of it, a trial continues only if its
    validation accuracy is among the best third of the trials that came as far.

    Args:
        trials: that prune the same fraction and retrain once.
        epochs: of retraining.
        known: keys and histories of the trials that ended earlier, for a sweep that was stopped.
    """
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=VALIDATION_ACCURACY,
        mode="max",
        max_t=epochs,
        grace_period=max(1, epochs // _GRACE_SHARE),
        reduction_factor=_REDUCTION_FACTOR,
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


def known_histories(trials: Sequence[TrialConfig], cache: StageCache) -> list[tuple[str, History]]:
    """Return the key of every trial that ended, and the history of its last retraining."""
    failed_trials = FailedTrials(cache)
    known: list[tuple[str, History]] = []
    for trial in trials:
        if folder := cache.find("trials", trial.key):
            steps = TrialResult.load(folder).search_steps
            epochs = steps[-1].retraining.training if steps else ()
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
    axes: dict[str, Sequence[Any]] = {
        "groups": space.groups,
        "samples_per_class": space.samples_per_class,
        "upper_limit": space.upper_limits,
        "bootstraps": space.bootstraps,
    }
    if len(space.criteria) > 1:  # a single choice would still change what is drawn
        axes["criterion"] = space.criteria
    choices = {name: tune.choice(list(values)) for name, values in axes.items()}
    optuna = OptunaSearch(
        OptunaSearch.convert_search_space(
            {**choices, "fraction": tune.uniform(min(fractions), max(fractions))}
        ),
        metric=[VALIDATION_ACCURACY, PARAMS_PRUNED],
        mode=["max", "max"],
        seed=base.seed,
    )
    return TunePlan({}, draws, base, _BatchSearcher(optuna, max_concurrent_trials))


class _BatchSearcher(Searcher):
    """Draws a batch of trials at once, and reports their results in order when all have ended."""

    def __init__(self, searcher: Searcher, size: int) -> None:
        super().__init__()
        self._searcher = searcher
        self._size = size
        self._drawn = 0
        self._waiting: list[tuple[str, dict[str, Any] | None]] = []
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
        self._names[trial_id], parameters = self._waiting.pop(0)
        return parameters

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
