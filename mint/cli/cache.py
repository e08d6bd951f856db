"""The commands `mint cache` and `mint sync`: finished stages, and results that MLflow misses."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import App, Parameter
from cyclopts.validators import Number

from mint.cli.options import CacheDir, Flag, TrackingUri, Words, store_uri
from mint.config.locations import Stage, cache_folder

if TYPE_CHECKING:
    from mint.store.cleanup import Entry

app = App("cache", help="Show or free the folder of finished stages.")
_Entry = Literal[Stage, "leftovers"]


@app.command(name="ls")
def list_stages(*, cache_dir: CacheDir = None) -> None:
    """Show the number and the size of the finished stages.

    Example: mint cache ls
    """
    from mint.store.cleanup import entries
    from mint.store.stage_cache import StageCache

    cache = StageCache(cache_folder(cache_dir, existing=True))
    print("\n".join(_stage_table(list(entries(cache)))))


@app.command
def prune(
    *stages: Annotated[_Entry, Parameter(metavar="STAGE")],
    unused_days: Annotated[float, Parameter(validator=Number(gte=0, lte=36500))] = 0,
    dry_run: Flag = False,
    cache_dir: CacheDir = None,
    tracking_uri: TrackingUri = None,
    words: Words,
) -> None:
    """Remove stages; mint computes them again when a trial needs them.

    Trials are removed only if the tracking store has their results.

    Example: mint cache prune activations scores --unused-days 30

    Args:
        stages: What to remove; leftovers are checkpoints, unfinished and damaged stages (default:
            leftovers).
        unused_days: Remove only what nobody has used for so many days.
        dry_run: Show what would be removed, and remove nothing.
    """
    from mint.store.cleanup import prune as remove
    from mint.store.locks import locked_exclusively
    from mint.store.stage_cache import StageCache

    cache = StageCache(cache_folder(cache_dir, existing=True))
    chosen = stages or ("leftovers",)
    delivered: frozenset[str] = frozenset()
    if "trials" in chosen:
        from mint.tracking.mlflow_store import MlflowStore

        store = MlflowStore(store_uri(tracking_uri))
        if store.exists:
            delivered = frozenset(
                key for name in store.experiments() for key in store.finished_runs(name)
            )
    with locked_exclusively(cache, " ".join(words)):
        removed, kept = remove(
            cache, chosen, unused_days=unused_days, delivered=delivered, dry_run=dry_run
        )
    size = sum(entry.size for entry in removed) / 1e6
    verb = "would remove" if dry_run else "removed"
    print(f"{verb} {len(removed)} of {', '.join(chosen)}: {size:.1f} MB")
    if kept:
        print(f"kept {len(kept)} trials whose results the tracking store does not have: mint sync")


def sync(*, cache_dir: CacheDir = None, tracking_uri: TrackingUri = None, words: Words) -> None:
    """Write results to the tracking store that it misses.

    Use it after the store was away or lost. The next start of a sweep does the same for its own
    trials.

    Example: mint sync --tracking-uri http://127.0.0.1:5000
    """
    from mint.orchestration.missing_runs import write_missing_runs
    from mint.store.stage_cache import StageCache
    from mint.tracking.mlflow_store import MlflowStore

    store = MlflowStore(store_uri(tracking_uri))
    write_missing_runs(store, StageCache(cache_folder(cache_dir)), words)


def _stage_table(entries: "Sequence[Entry]") -> list[str]:
    from mint.reporting.markdown import table

    rows = []
    for stage in get_args(_Entry):
        of_stage = [entry for entry in entries if entry.stage == stage]
        if of_stage:
            used = sorted(entry.last_used for entry in of_stage)
            times = [time.strftime("%Y-%m-%d %H:%M", time.localtime(used[at])) for at in (0, -1)]
            size = sum(entry.size for entry in of_stage) / 1e6
            rows.append([stage, str(len(of_stage)), f"{size:.1f}", *times])
    header = ["Stage", "Number", "MB", "Longest unused since", "Last used"]
    return table(header, rows, left=(0,))
