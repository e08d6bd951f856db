"""Writes trials to the tracking store that it misses, after it was away or lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mint.orchestration.interruption import STOP_SECONDS
from mint.store.locks import locked_exclusively
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.writer import RunWriter, write_ended
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult


@dataclass(frozen=True)
class Synced:
    """What the tracking store got.

    Attributes:
        trials: number of trials on the disk.
        written: number of trials that the store missed and has now.
        unwritten: number of trials that it still misses.
        trouble: why the last of them could not be written.
    """

    trials: int
    written: int
    unwritten: int
    trouble: str


def write_missing_runs(store: MlflowStore, cache: StageCache, command: Sequence[str]) -> Synced:
    """Write the runs of all finished and failed trials in a cache that the store misses.

    Args:
        store: the tracking store.
        cache: holds the trials.
        command: words of the command line, for the lock.

    Raises:
        InputError: a sweep or a trial is running in the cache, or the store cannot be reached.
    """
    provenance = Provenance.of_this_process(None, command)
    with locked_exclusively(cache, provenance.command):
        results = [
            TrialResult.load(folder)
            for key in cache.keys("trials")
            if (folder := cache.find("trials", key))
        ]
        ended: list[TrialResult | FailedTrial] = [*results, *FailedTrials(cache).all()]
        finished_runs: dict[str, str] = {}
        for experiment in sorted({trial.config.experiment.name for trial in ended}):
            store.prepare(experiment)
            finished_runs |= store.finished_runs(experiment)
            store.close_orphans(experiment, cache.identity, "the process that ran it died")
        missing = [trial.keys.key for trial in ended if trial.keys.key not in finished_runs]
        say = partial(print, flush=True)
        with RunWriter(store, cache, provenance, finished_runs, say, STOP_SECONDS) as writer:
            write_ended(writer, cache, missing)
            unwritten = writer.close()
    return Synced(len(ended), len(missing) - unwritten, unwritten, writer.trouble)
