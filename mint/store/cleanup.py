"""The content of a stage cache, and the removal of what is no longer needed."""

import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, get_args

from filelock import Timeout

from mint.config.locations import Stage
from mint.store.manifest import MANIFEST
from mint.store.stage_cache import PROGRESS, StageCache

STAGES: tuple[str, ...] = get_args(Stage)
LEFTOVERS = "leftovers"
_KEY = re.compile(r"[0-9a-f]{16}")


class Entry(NamedTuple):
    """A finished stage, or a leftover of a killed process or a damaged stage."""

    stage: str  # or leftovers
    path: Path
    lock: str  # that a process holds while it computes this stage
    size: int  # bytes
    last_used: float  # seconds since 1970


def entries(cache: StageCache) -> Iterator[Entry]:
    """Yield every entry of the cache, stage by stage."""
    for folder in (*STAGES, PROGRESS):
        for path in sorted((cache.root / folder).glob("*")):
            stage = folder
            if folder == PROGRESS:  # STAGE-KEY.pt, .STAGE-KEY.pt.partial
                stage = path.name.strip(".").split("-")[0]
            elif not path.is_dir():  # a lock
                continue
            leftover = folder == PROGRESS or path.name.startswith(".")
            key = (_KEY.findall(path.name) or [path.name])[0]
            with suppress(FileNotFoundError):  # another process has just moved it
                files = [file for file in (path, *path.rglob("*")) if file.is_file()]
                # A trial shares the file of its weights with the stage that made it.
                size = sum(file.stat().st_size // file.stat().st_nlink for file in files)
                used = (path / MANIFEST if path / MANIFEST in files else path).stat().st_mtime
                yield Entry(LEFTOVERS if leftover else stage, path, f"{stage}/{key}", size, used)


def prune(
    cache: StageCache,
    stages: Collection[str],
    *,
    unused_days: float,
    delivered: Collection[str],
    dry_run: bool,
) -> tuple[list[Entry], list[Entry]]:
    """Remove the entries of some stages, or LEFTOVERS, unused for so many days.

    An entry that another process is computing stays. So does a trial unless its key is delivered:
    the tracking store has its result. A dry run removes nothing. Return the removed entries and the
    trials that stay.
    """
    removed, kept = [], []
    used_before = time.time() - unused_days * 24 * 3600
    for entry in entries(cache):
        if entry.stage not in stages or entry.last_used > used_before:
            continue
        if entry.stage == "trials" and entry.path.name not in delivered:
            kept.append(entry)
            continue
        with suppress(Timeout), cache.lock(entry.lock, timeout=0):
            removed.append(entry)
            if not dry_run and entry.path.is_dir():
                shutil.rmtree(entry.path)
            elif not dry_run:
                entry.path.unlink()
    return removed, kept
