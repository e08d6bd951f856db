"""Upkeep of the folder of stages: what is in it, and what of it can go."""

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from mint.reporting.markdown import table
from mint.store.stage_cache import MANIFEST, PROGRESS, Cache

STAGES = ("baselines", "activations", "scores", "masks", "retrained", "trials", "initial")
LEFTOVERS = "leftovers"
_DAY = 24 * 3600
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """One thing in the folder of stages.

    Attributes:
        stage: that it is of; leftovers for what a kill, or damage, has left behind.
        path: of its file or folder.
        key: of a finished stage; None for leftovers.
        size: bytes.
        used: when it was last of use, in seconds since 1970.
    """

    stage: str
    path: Path
    key: str | None
    size: int
    used: float


def entries(cache: Cache) -> Iterator[Entry]:
    """Yield everything that mint may remove from the folder, stage by stage."""
    for stage in STAGES:
        folder = cache.root / stage
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir():
                leftover = path.name.startswith(".")
                key = None if leftover else path.name
                with suppress(FileNotFoundError):  # another process has just moved it
                    yield _entry(LEFTOVERS if leftover else stage, path, key)
    for path in sorted((cache.root / PROGRESS).glob("*")):
        with suppress(FileNotFoundError):
            yield _entry(LEFTOVERS, path, None)


def _entry(stage: str, path: Path, key: str | None) -> Entry:
    manifest = path / MANIFEST
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    used = (manifest if manifest.exists() else path).stat().st_mtime
    return Entry(stage, path, key, sum(file.stat().st_size for file in files), used)


def listing(cache: Cache) -> list[str]:
    """Return a table of the stages: how many, how large, when last of use."""
    found = defaultdict(list)
    for entry in entries(cache):
        found[entry.stage].append(entry)
    rows = [
        [
            stage,
            str(len(found[stage])),
            f"{sum(entry.size for entry in found[stage]) / 1e6:.1f}",
            *(
                time.strftime(
                    "%Y-%m-%d %H:%M", time.localtime(moment(e.used for e in found[stage]))
                )
                for moment in (min, max)
            ),
        ]
        for stage in (*STAGES, LEFTOVERS)
        if found[stage]
    ]
    header = ["Stage", "Number", "MB", "Longest unused since", "Last used"]
    return table(header, rows, left=(0,))


def prune(
    cache: Cache,
    stages: tuple[str, ...],
    *,
    unused_days: float,
    delivered: frozenset[str],
    dry_run: bool,
) -> tuple[list[Entry], list[Entry]]:
    """Remove entries, and return those removed and the trials that were kept.

    What another process is making at the moment is left alone. Trials are removed only where the
    tracking store has their results: nothing is lost that cannot be made again.

    Args:
        cache: to free.
        stages: whose entries may go.
        unused_days: for how long they must have been of no use.
        delivered: keys of the trials that the store has results of.
        dry_run: remove nothing.
    """
    removed, kept = [], []
    now = time.time()
    for entry in entries(cache):
        if entry.stage not in stages or now - entry.used < unused_days * _DAY:
            continue
        if entry.stage == "trials" and entry.key not in delivered:
            kept.append(entry)
            continue
        try:
            with cache.lock(_lock_of(entry), timeout=0):
                if not dry_run:
                    _remove(entry.path)
                removed.append(entry)
        except Timeout:
            continue
    return removed, kept


def _lock_of(entry: Entry) -> str:
    """Return the name of the lock that whoever makes this has; a leftover's name tells the key."""
    key = entry.key or "".join(_KEY.findall(entry.path.name)[:1])
    of_progress = entry.path.parent.name == PROGRESS
    stage = entry.path.name.strip(".").split("-")[0] if of_progress else entry.path.parent.name
    return f"{stage}/{key or entry.path.name}"


def _remove(path: Path) -> None:
    if path.is_dir():
        # Away under its name at once: nobody finds half of it.
        aside = path.with_name(f".removed-{path.name.strip('.')}")
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()
