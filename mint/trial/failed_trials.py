"""Gaps: trials that were run and have no result, each with the reason, in a file of its own."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mint.config.schema import TrialConfig
from mint.store.atomic import write_whole
from mint.store.stage_cache import Cache
from mint.trial.provenance import Provenance

_FOLDER = "gaps"


class Gap(BaseModel):
    """A trial without a result.

    Attributes:
        status: failed, or stopped by a search that held it for hopeless.
        reason: one line.
        details: such as a traceback.
        history: (epoch, validation accuracy in percent) of its retraining, as far as it came.
        provenance: of the trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrialConfig
    status: Literal["failed", "stopped"]
    reason: str
    details: str = ""
    history: tuple[tuple[int, float], ...] = ()
    provenance: Provenance


class Gaps:
    """The gaps that a folder of stages remembers, until their trials have a result."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def write(self, gap: Gap) -> None:
        """Remember a gap, in place of an earlier one of the same trial."""
        write_whole(self._path(gap.config.key), (gap.model_dump_json(indent=1) + "\n").encode())

    def read(self, key: str) -> Gap | None:
        """Return the gap of a trial; None where it has none, or has a result by now."""
        path = self._path(key)
        if not path.exists() or self._cache.find("trials", key):
            return None
        try:
            return Gap.model_validate_json(path.read_bytes())
        except ValidationError:
            warnings.warn(f"{path}: is no record of a trial; it is left out", stacklevel=2)
            return None

    def all(self) -> Iterator[Gap]:
        """Yield every gap, in the order of their keys."""
        for path in sorted((self._cache.root / _FOLDER).glob("*.json")):
            if gap := self.read(path.stem):
                yield gap

    def forget(self, key: str) -> None:
        """Forget a trial's gap, for it has a result now."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._cache.root / _FOLDER / f"{key}.json"


def missing(
    trials: Sequence[TrialConfig], cache: Cache, delivered: Collection[str], *, stopped: bool
) -> list[TrialConfig]:
    """Return the trials that have no result, neither on the disk nor in the store.

    Args:
        trials: to look at.
        cache: of results on the disk.
        delivered: keys of the trials that the store has results of.
        stopped: whether those that a search has stopped are to be left out as well.
    """
    gaps = Gaps(cache)

    def is_over(trial: TrialConfig) -> bool:
        if trial.key in delivered or cache.find("trials", trial.key):
            return True
        gap = gaps.read(trial.key) if stopped else None
        return gap is not None and gap.status == "stopped"

    return [trial for trial in trials if not is_over(trial)]
