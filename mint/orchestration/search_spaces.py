"""What Ray Tune runs: a grid, a grid whose hopeless trials are stopped, or a search with Optuna."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from mint.config.grid import parse_limit
from mint.config.schema import TrialConfig
from mint.store.stage_cache import StageCache
from mint.trial.failed_trials import FailedTrials
from mint.trial.result import TrialResult

# What every report of a trial to Ray Tune may hold.
EPOCH, VALIDATION_ACCURACY, PARAMS_PRUNED = "epoch", "validation_accuracy", "params_pruned"

_TRIAL = "trial"
_GRACE = 10  # the share of its epochs that a trial may have at least: a tenth
_REDUCTION = 3

History = Sequence[tuple[int, float]]
"""(epoch, validation accuracy in percent) of a retraining."""


@dataclass(frozen=True)
class Plan:
    """Trials for Ray Tune.

    Attributes:
        space: Tune's param_space.
        samples: how often Tune draws from it.
        base: what a search varies; None where the space holds whole trials.
        searcher: that draws; None for Tune's own.
        scheduler: that may stop trials; None for none.
    """

    space: dict[str, Any]
    samples: int = 1
    base: TrialConfig | None = None
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None


def config_of(parameters: Mapping[str, Any], base: TrialConfig | None) -> TrialConfig:
    """Return the trial that Ray Tune's parameters stand for."""
    if base is None:
        return TrialConfig.model_validate_json(parameters[_TRIAL])
    values = dict(parameters)
    limit = parse_limit(str(values.pop("upper_limit")), int(values["groups"]))
    update = {**values, "fraction": round(values["fraction"], 4), "upper_limit": limit}
    return TrialConfig.model_validate(base.model_dump() | update)


def grid_plan(trials: Sequence[TrialConfig]) -> Plan:
    """Run these trials."""
    return Plan({_TRIAL: tune.grid_search([trial.model_dump_json() for trial in trials])})


def asha_plan(
    trials: Sequence[TrialConfig], epochs: int, known: Iterable[tuple[str, History]]
) -> Plan:
    """Run these trials, and stop those whose retraining falls behind (ASHA, Li et al. 2020).

    At a tenth of the epochs, and at three times as many again and again, a trial goes on only if
    its validation accuracy is among the best third of those that came as far.

    Args:
        trials: that prune the same share, by one retraining each.
        epochs: of the retraining.
        known: for the key of every trial that has ended before, its history: a sweep that was
            stopped carries on with what it knew.
    """
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=VALIDATION_ACCURACY,
        mode="max",
        max_t=epochs,
        grace_period=max(1, epochs // _GRACE),
        reduction_factor=_REDUCTION,
    )
    for key, history in known:
        # All that the scheduler asks of a trial is its name.
        ended: Any = SimpleNamespace(trial_id=key)
        controller: Any = None
        scheduler.on_trial_add(controller, ended)
        for epoch, reached in history:
            if epoch < epochs:
                scheduler.on_trial_result(
                    controller, ended, {EPOCH: epoch, VALIDATION_ACCURACY: reached}
                )
        scheduler.on_trial_remove(controller, ended)
    return Plan(grid_plan(trials).space, scheduler=scheduler)


def histories(trials: Sequence[TrialConfig], cache: StageCache) -> list[tuple[str, History]]:
    """Return, for the key of every trial that has ended, how its last retraining went."""
    gaps = FailedTrials(cache)
    known: list[tuple[str, History]] = []
    for trial in trials:
        if folder := cache.find("trials", trial.key):
            probes = TrialResult.load(folder).search_steps
            epochs = probes[-1].retraining.training if probes else ()
            known.append((trial.key, [(e.epoch, e.validation_accuracy) for e in epochs]))
        elif gap := gaps.read(trial.key):
            known.append((trial.key, list(gap.history)))
    return known


def optuna_plan(
    base: TrialConfig,
    axes: Mapping[str, Sequence[Any]],
    fractions: tuple[float, float],
    *,
    trials: int,
    at_once: int,
) -> Plan:
    """Search for trials of high validation accuracy and many params pruned, with Optuna's TPE.

    Args:
        base: what all trials share; its seed is the search's too.
        axes: for the name of every other axis, its choices.
        fractions: the least and the most of the counted weights to prune.
        trials: how many to run.
        at_once: how many of them side by side. They are drawn together, and what came of them is
            told in the order in which they were drawn: the same command always draws the same
            trials, so one that was stopped carries on where it was.
    """
    from ray.tune.search.optuna import OptunaSearch  # takes seconds, and only this needs it

    space = {
        **{name: tune.choice(list(choices)) for name, choices in axes.items()},
        "fraction": tune.uniform(*fractions),
    }
    optuna = OptunaSearch(
        OptunaSearch.convert_search_space(space),
        metric=[VALIDATION_ACCURACY, PARAMS_PRUNED],
        mode=["max", "max"],
        seed=base.seed,
    )
    return Plan({}, trials, base, _InBatches(optuna, at_once))


class _InBatches(Searcher):
    """Draws so many trials at once, and tells of them when all have ended, in their order."""

    def __init__(self, searcher: Searcher, size: int) -> None:
        super().__init__()
        self._searcher = searcher
        self._size = size
        self._drawn = 0
        self._waiting: list[tuple[str, dict[str, Any] | None]] = []
        self._names: dict[str, str] = {}
        self._ended: dict[str, dict[str, Any] | None] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self._waiting:
            if self._names:
                return None
            for _ in range(self._size):
                name = f"draw-{self._drawn}"
                self._waiting.append((name, self._searcher.suggest(name)))
                self._drawn += 1
        name, parameters = self._waiting.pop(0)
        self._names[trial_id] = name
        return parameters

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Two objectives are told of at the end only."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        told = result if result and PARAMS_PRUNED in result and not error else None
        self._ended[trial_id] = told
        if self._waiting or set(self._ended) != set(self._names):
            return
        for of_batch, name in self._names.items():
            ended = self._ended[of_batch]
            self._searcher.on_trial_complete(name, ended, error=ended is None)
        self._names, self._ended = {}, {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: the same command draws the same trials again."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""
