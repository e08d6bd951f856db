"""Writes trials to the tracking store that it misses, after it was away or lost."""

from collections.abc import Sequence
from functools import partial

from mint.errors import WorkFailedError, error_line
from mint.store.locks import locked_exclusively
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.run_writer import RunWriter
from mint.trial.failed_trials import FailedTrial, FailedTrials
from mint.trial.provenance import Provenance
from mint.trial.result import TrialResult


def write_missing_runs(store: MlflowStore, cache: StageCache, command: Sequence[str]) -> None:
    """Write the runs of all finished and failed trials in a cache that the store misses.

    Args:
        store: the tracking store.
        cache: holds the trials.
        command: words of the command line, for the lock.

    Raises:
        InputError: a sweep or a trial is running in the cache, or the store cannot be reached.
        WorkFailedError: the store still misses trials, or some on the disk cannot be read.
    """
    provenance = Provenance.of_this_process(None, command)
    with locked_exclusively(cache, provenance.command):
        unread: list[str] = []
        ended: list[TrialResult | FailedTrial] = []
        for key in cache.keys("trials"):
            try:
                folder = cache.find("trials", key)
                if folder is None:
                    raise ValueError("its files have changed")
                ended.append(TrialResult.load(folder))
            except (OSError, ValueError) as error:  # or another version of mint wrote it
                unread.append(f"trial {key}: cannot be read ({error_line(error)})")
        ended += FailedTrials(cache).all()
        finished_runs: dict[str, str] = {}
        experiments = sorted({trial.config.experiment.name for trial in ended})
        for experiment in experiments:
            store.prepare(experiment)
            finished_runs |= store.finished_runs(experiment)
            store.close_orphans(experiment, cache.identity, "the process that ran it died")
        missing = [trial.keys.key for trial in ended if trial.keys.key not in finished_runs]
        say = partial(print, flush=True)
        with RunWriter(store, cache, provenance, finished_runs, say) as writer:
            writer.ended(missing)
            unwritten = writer.close()
        if not unwritten:
            for experiment in experiments:
                store.nest_seeds(experiment)
    written = len(missing) - unwritten
    print("\n".join([*unread, f"{len(ended)} trials on the disk, {written} written to the store"]))
    if unwritten:
        raise WorkFailedError(f"{unwritten} could not be written: {writer.trouble}")
    if unread:
        raise WorkFailedError(f"{len(unread)} could not be read")
