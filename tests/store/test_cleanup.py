"""Cleanup removes only what nobody uses and what can be computed again."""

import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from mint.store.atomic import link_or_copy
from mint.store.cleanup import LEFTOVERS, STAGES, entries, prune
from mint.store.stage_cache import StageCache

KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path)


def _stage(cache: StageCache, stage: str, days_unused: float = 0) -> Path:
    def make(folder: Path) -> None:
        (folder / "figures").write_bytes(bytes(5000))

    folder = cache.produce(stage, KEY, make)
    then = time.time() - days_unused * 24 * 3600
    os.utime(folder / "manifest.json", (then, then))
    return folder


def _leftovers(cache: StageCache) -> list[Path]:
    """Make what killed processes and damage leave behind."""
    stage = cache.root / "scores"
    progress = cache.root / "progress"
    progress.mkdir()
    paths = [
        stage / f".{KEY}-half",
        stage / f".damaged-{KEY}-0a1b2c3d",
        progress / f"retrained-{KEY}.pt",
    ]
    for path in paths[:2]:
        path.mkdir(parents=True)
    paths[2].write_bytes(bytes(7))
    return paths


def _prune(
    cache: StageCache, stages: Collection[str], days: float = 0, dry_run: bool = False
) -> list[Path]:
    removed, _ = prune(cache, stages, unused_days=days, delivered=(), dry_run=dry_run)
    return [entry.path for entry in removed]


def test_entries_have_stage_size_and_time(cache: StageCache) -> None:
    _stage(cache, "baselines", days_unused=40)
    _leftovers(cache)
    found = {entry.path.name: entry for entry in entries(cache)}
    assert {entry.stage for entry in found.values()} == {"baselines", LEFTOVERS}
    assert 5000 < found[KEY].size < 5500
    assert 39 < (time.time() - found[KEY].last_used) / (24 * 3600) < 41
    assert found[f"retrained-{KEY}.pt"].size == 7


def test_leftovers_are_removed_and_stages_stay(cache: StageCache) -> None:
    stage, leftovers = _stage(cache, "scores"), _leftovers(cache)
    assert sorted(_prune(cache, [LEFTOVERS], dry_run=True)) == sorted(leftovers)
    assert all(path.exists() for path in leftovers)
    assert sorted(_prune(cache, [LEFTOVERS])) == sorted(leftovers)
    assert not any(path.exists() for path in leftovers)
    assert stage.exists()


def test_looking_at_a_stage_is_no_use_of_it(cache: StageCache) -> None:
    def days_unused() -> float:
        (entry,) = entries(cache)
        return (time.time() - entry.last_used) / (24 * 3600)

    _stage(cache, "scores", days_unused=40)
    assert StageCache(cache.root).find("scores", KEY)  # as mint verify and dry runs do
    assert days_unused() > 39
    StageCache(cache.root).produce("scores", KEY, lambda _: None)  # as a trial does
    assert days_unused() < 1


def test_file_of_two_stages_is_counted_once(cache: StageCache) -> None:
    shared = _stage(cache, "retrained") / "figures"
    (cache.folder("trials", KEY)).mkdir(parents=True)
    link_or_copy(shared, cache.folder("trials", KEY) / "figures")
    assert 5000 <= sum(entry.size for entry in entries(cache)) < 5500


def test_only_stages_unused_for_long_enough_are_removed(cache: StageCache) -> None:
    old, recent = _stage(cache, "scores", 40), _stage(cache, "baselines", 3)
    other = _stage(cache, "masks", 40)
    assert _prune(cache, ["scores", "baselines"], days=30) == [old]
    assert (old.exists(), recent.exists(), other.exists()) == (False, True, True)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_that_a_process_computes_stays(cache: StageCache, stage: str) -> None:
    half = cache.root / stage / f".{KEY}-half"
    half.mkdir(parents=True)
    with cache.lock(f"{stage}/{KEY}"):
        assert _prune(StageCache(cache.root), [LEFTOVERS]) == []
    assert _prune(cache, [LEFTOVERS]) == [half]


def test_trial_stays_until_the_tracking_store_has_its_result(cache: StageCache) -> None:
    folder = _stage(cache, "trials")
    for delivered in ([], [KEY]):
        removed, kept = prune(cache, ["trials"], unused_days=0, delivered=delivered, dry_run=False)
        assert (len(removed), len(kept)) == (len(delivered), 1 - len(delivered))
    assert not folder.exists()
