"""Trials that ran and have no result, each with its reason in a file of its own."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from mint.config.schema import TrialConfig
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache
from mint.trial.provenance import Provenance
from mint.trial.result import TrialKeys

FAILED_TRIAL_FILE = "failed_trial.json"
_FOLDER = "failed_trials"


class FailedTrial(BaseModel, extra="forbid", frozen=True):
    """A trial without a result.

    A scheduler stopped it, or it failed for a reason (one line) with details such as a traceback.
    The history holds (epoch, validation accuracy in percent) of its retraining.
    """

    keys: TrialKeys
    config: TrialConfig
    status: Literal["failed", "stopped"]
    reason: str
    details: str = ""
    history: tuple[tuple[int, float], ...] = ()
    provenance: Provenance


class FailedTrials:
    """The failed trials that a folder of stages remembers until they have a result."""

    def __init__(self, cache: StageCache) -> None:
        self._cache = cache

    def write(self, failed: FailedTrial) -> None:
        """Remember a failed trial, in place of its earlier failure."""
        content = failed.model_dump_json(indent=1) + "\n"
        write_atomic(self._path(failed.keys.key), content.encode())

    def read(self, key: str) -> FailedTrial | None:
        """Return the failed trial of a key; None if there is none, or it has a result now."""
        path = self._path(key)
        if not path.exists() or self._cache.find("trials", key):
            return None
        try:
            return FailedTrial.model_validate_json(path.read_bytes())
        except ValidationError:
            warnings.warn(f"{path}: is no failed trial; it is left out", stacklevel=2)
            return None

    def all(self) -> Iterator[FailedTrial]:
        """Yield every failed trial, in the order of their keys."""
        for path in sorted((self._cache.root / _FOLDER).glob("*.json")):
            if failed := self.read(path.stem):
                yield failed

    def forget(self, key: str) -> None:
        """Forget the failure of a trial that has a result now."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._cache.root / _FOLDER / f"{key}.json"


def missing_trials(
    trials: Sequence[TrialConfig], cache: StageCache, delivered: Collection[str], *, stopped: bool
) -> list[TrialConfig]:
    """Return the trials that have no result, neither on disk nor in the tracking store.

    Args:
        trials: to look at.
        cache: of results on disk.
        delivered: keys of the trials whose results the tracking store has.
        stopped: leave out the trials that a scheduler has stopped, too.
    """
    failed_trials = FailedTrials(cache)

    def is_over(trial: TrialConfig) -> bool:
        if trial.key in delivered or cache.find("trials", trial.key):
            return True
        failed = failed_trials.read(trial.key) if stopped else None
        return failed is not None and failed.status == "stopped"

    return [trial for trial in trials if not is_over(trial)]
