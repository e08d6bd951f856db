"""A stage is computed once, appears complete, and survives damage, crashes and a full disk."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mint.store.manifest import MANIFEST
from mint.store.stage_cache import StageCache


def _write(folder: Path) -> None:
    (folder / "figures").write_text("1 2 3")


def _never(_: Path) -> None:
    raise AssertionError("the stage exists already")


def _folders(root: Path) -> list[str]:
    return [path.name for path in (root / "stage").iterdir() if path.is_dir()]


def _produce_slowly(root: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text(str(os.getpid()))
        time.sleep(0.5)
        (folder / "whole").write_text(str(os.getpid()))

    StageCache(root).produce("stage", "key", make)


def _produce_forever(root: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").touch()
        (root / "begun").touch()
        time.sleep(60)

    StageCache(root).produce("stage", "key", make)


def test_second_process_waits_for_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_produce_slowly, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    finished = tmp_path / "stage" / "key"
    assert (finished / "half").read_text() == (finished / "whole").read_text()
    assert _folders(tmp_path) == ["key"]


def test_killed_process_releases_its_lock_and_its_files_are_removed(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_produce_forever, args=(tmp_path,))
    worker.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert len(_folders(tmp_path)) == 1  # the unfinished one
    assert StageCache(tmp_path).find("stage", "key") is None
    StageCache(tmp_path).produce("stage", "key", _write)
    assert _folders(tmp_path) == ["key"]


def test_failure_leaves_no_stage(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        _write(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        StageCache(tmp_path).produce("stage", "key", fail)
    assert _folders(tmp_path) == []


@contextmanager
def _disk_for(size: int) -> Iterator[None]:
    """Let no file grow beyond this size: writes fail as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# The disk is full for the stage's own file, or only for its manifest.
@pytest.mark.parametrize(("figures", "room"), [(1000, 500), (10, 50)])
def test_full_disk_leaves_no_stage_and_the_next_call_succeeds(
    tmp_path: Path, figures: int, room: int
) -> None:
    def make(folder: Path) -> None:
        (folder / "figures").write_bytes(bytes(figures))

    cache = StageCache(tmp_path)
    with _disk_for(room), pytest.raises(OSError, match="File too large"):
        cache.produce("stage", "key", make)
    for fresh in (cache, StageCache(tmp_path)):
        assert fresh.find("stage", "key") is None
    assert _folders(tmp_path) == []
    folder = cache.produce("stage", "key", make)
    assert (folder / "figures").stat().st_size == figures
    assert StageCache(tmp_path).produce("stage", "key", _never) == folder


@pytest.mark.parametrize("damage", ["shorten", "change", "remove", "cut manifest", "leave folder"])
def test_damaged_stage_is_moved_aside_and_computed_again(tmp_path: Path, damage: str) -> None:
    folder = StageCache(tmp_path).produce("stage", "key", _write)
    figures, manifest = folder / "figures", folder / MANIFEST
    if damage == "shorten":
        figures.write_text("1 2")
    elif damage == "change":
        figures.write_text("1 2 4")
    elif damage == "remove":
        figures.unlink()
    elif damage == "cut manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        manifest.write_text(manifest.read_text().replace("figures", "../figures"))
    cache = StageCache(tmp_path)  # as in another process
    assert cache.find("stage", "key") is None
    with pytest.warns(UserWarning, match=r"moved to \.damaged-key-"):
        assert cache.produce("stage", "key", _write) == folder
    assert figures.read_text() == "1 2 3"
    assert len(list((tmp_path / "stage").glob(".damaged-key-*"))) == 1
    assert StageCache(tmp_path).produce("stage", "key", _never) == folder


def test_identity_belongs_to_the_folder(tmp_path: Path) -> None:
    identity = StageCache(tmp_path / "a").identity
    assert StageCache(tmp_path / "a").identity == identity
    assert StageCache(tmp_path / "b").identity != identity


def test_unreadable_manifest_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StageCache(tmp_path).produce("stage", "key", _write)
    monkeypatch.setattr("mint.store.retry.PAUSES", (0.0,))

    def fail(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match="Input/output error"):
            StageCache(tmp_path).produce("stage", "key", _never)
    assert _folders(tmp_path) == ["key"]
    assert StageCache(tmp_path).produce("stage", "key", _never) == folder
