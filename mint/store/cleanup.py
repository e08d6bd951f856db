"""The content of a stage cache, and the removal of what is no longer needed."""

import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from mint.store.stage_cache import MANIFEST, PROGRESS, StageCache

STAGES = ("baselines", "activations", "scores", "masks", "retrained", "trials", "initial")
LEFTOVERS = "leftovers"
_DAY = 24 * 3600
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """A finished stage, or a leftover of a killed process or a damaged stage.

    Attributes:
        stage: name of the stage, or leftovers.
        path: its folder or file.
        lock: name of the lock that a process holds while it computes this stage.
        size: bytes.
        last_used: seconds since 1970.
    """

    stage: str
    path: Path
    lock: str
    size: int
    last_used: float


def entries(cache: StageCache) -> Iterator[Entry]:
    """Yield every entry of the cache, stage by stage."""
    for stage in STAGES:
        folder = cache.root / stage
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir():
                yield from _entry(LEFTOVERS if path.name.startswith(".") else stage, stage, path)
    for path in sorted((cache.root / PROGRESS).glob("*")):  # STAGE-KEY.pt, .STAGE-KEY.pt.partial
        yield from _entry(LEFTOVERS, path.name.strip(".").split("-")[0], path)


def _entry(shown: str, stage: str, path: Path) -> Iterator[Entry]:
    key = (_KEY.findall(path.name) or [path.name])[0]
    with suppress(FileNotFoundError):  # another process has just moved it
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        manifest = path / MANIFEST
        last_used = (manifest if manifest.exists() else path).stat().st_mtime
        size = sum(file.stat().st_size for file in files)
        yield Entry(shown, path, f"{stage}/{key}", size, last_used)


def prune(
    cache: StageCache,
    stages: Collection[str],
    *,
    unused_days: float,
    delivered: Collection[str],
    dry_run: bool,
) -> tuple[list[Entry], list[Entry]]:
    """Remove entries; return the removed ones and the trials that were kept.

    An entry that another process is computing stays. A trial stays unless the tracking store has
    its result, so that everything removed can be computed again.

    Args:
        cache: the cache.
        stages: the stages to remove, among STAGES and LEFTOVERS.
        unused_days: remove entries that nobody has used for so long.
        delivered: keys of the trials whose results the tracking store has.
        dry_run: remove nothing.
    """
    removed, kept = [], []
    now = time.time()
    for entry in entries(cache):
        if entry.stage not in stages or now - entry.last_used < unused_days * _DAY:
            continue
        if entry.stage == "trials" and entry.path.name not in delivered:
            kept.append(entry)
            continue
        with suppress(Timeout), cache.lock(entry.lock, timeout=0):
            if not dry_run:
                _remove(entry.path)
            removed.append(entry)
    return removed, kept


def _remove(path: Path) -> None:
    if path.is_dir():
        aside = path.with_name(f".removed-{path.name.strip('.')}")
        path.rename(aside)  # first, so that no process finds half of it
        shutil.rmtree(aside)
    else:
        path.unlink()
