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
from mint.store.remote import RemoteStore
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


# With a store that nodes share


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteStore:
    """A shared folder, and a file system without renames and locks, like an object store."""
    uri = str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path.name}"
    return RemoteStore(uri)


def test_nodes_share_stages(tmp_path: Path, storage: RemoteStore) -> None:
    one, other = (StageCache(tmp_path / node, storage) for node in ("one", "other"))
    one.produce("stage", "key", _write)
    folder = other.produce("stage", "key", _never)
    assert folder.is_relative_to(tmp_path / "other")
    assert (folder / "figures").read_text() == "1 2 3"


def test_incomplete_upload_is_ignored_and_damaged_one_is_replaced(
    tmp_path: Path, storage: RemoteStore
) -> None:
    def node(name: str) -> StageCache:
        return StageCache(tmp_path / name, storage)

    folder = node("one").produce("stage", "key", _write)
    storage.remove(f"stage/key/{MANIFEST}")
    assert node("two").find("stage", "key") is None
    node("two").produce("stage", "key", _write)
    (folder / "figures").write_text("1 2 4")
    storage.put("stage/key", folder, ["figures"])
    with pytest.warns(UserWarning, match="figures has changed"):
        assert node("three").find("stage", "key") is None
    node("three").produce("stage", "key", _write)
    assert node("four").find("stage", "key")
    (folder / MANIFEST).write_text('{"files": {"fig')
    storage.put("stage/key", folder, [MANIFEST])
    with pytest.warns(UserWarning, match="cannot be read"):
        node("five").produce("stage", "key", _write)
    assert node("six").produce("stage", "key", _never)


def test_failed_upload_is_repeated_by_the_next_process(
    tmp_path: Path, storage: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no connection")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "put", fail)
        with pytest.raises(OSError, match="no connection"):
            StageCache(tmp_path / "one", storage).produce("stage", "key", _write)
    assert StageCache(tmp_path / "other", storage).find("stage", "key") is None
    StageCache(tmp_path / "one", storage).produce("stage", "key", _never)
    assert StageCache(tmp_path / "other", storage).find("stage", "key")


def test_stage_that_another_node_uploads_meanwhile_is_fetched(
    tmp_path: Path, storage: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    StageCache(tmp_path / "one", storage).produce("stage", "key", _write)
    answers = iter([False])
    exists = storage.root.exists
    monkeypatch.setattr(storage.root, "exists", lambda name: next(answers, True) and exists(name))
    other = StageCache(tmp_path / "other", storage)
    assert other.find("stage", "key") is None
    assert other.produce("stage", "key", _never)


def test_another_node_resumes_from_the_checkpoint(tmp_path: Path, storage: RemoteStore) -> None:
    one, other = (StageCache(tmp_path / node, storage) for node in ("one", "other"))
    path = one.checkpoint("stage", "key")
    path.write_bytes(b"epoch 3")
    one.keep_checkpoint(path)
    fetched = other.checkpoint("stage", "key")
    assert fetched.read_bytes() == b"epoch 3"
    other.drop_checkpoint(fetched)
    assert not StageCache(tmp_path / "third", storage).checkpoint("stage", "key").exists()


def test_lost_storage_stops_no_training(
    tmp_path: Path, storage: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(storage, "put", fail)
    monkeypatch.setattr(storage, "remove", fail)
    cache = StageCache(tmp_path / "one", storage)
    path = cache.checkpoint("stage", "key")
    path.write_bytes(b"epoch 3")
    with pytest.warns(UserWarning, match="storage not updated .*no connection"):
        cache.keep_checkpoint(path)
    with pytest.warns(UserWarning, match="storage not updated .*no connection"):
        cache.drop_checkpoint(path)
    assert not path.exists()
