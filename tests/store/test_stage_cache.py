"""A stage is made once, appears whole, and survives whoever was making it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from mint.errors import InputError
from mint.store.remote import RemoteStore
from mint.store.stage_cache import MANIFEST, StageCache


def _slow_stage(folder: Path) -> None:
    (folder / "half").write_text(str(os.getpid()))
    time.sleep(1)
    (folder / "whole").write_text(str(os.getpid()))


def _produce(root: Path) -> None:
    StageCache(root).produce("stage", "key", _slow_stage)


def _never_ends(folder: Path) -> None:
    (folder / "half").write_text("")
    (folder.parent / "begun").write_text("")
    time.sleep(60)


def _produce_forever(root: Path) -> None:
    StageCache(root).produce("stage", "key", _never_ends)


def test_who_comes_second_waits_for_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_produce, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    finished = tmp_path / "stage" / "key"
    assert (finished / "half").read_text() == (finished / "whole").read_text()
    assert [path.name for path in finished.parent.iterdir() if path.is_dir()] == ["key"]


def test_killed_maker_lets_the_next_one_begin(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_produce_forever, args=(tmp_path,))
    worker.start()
    while not (tmp_path / "stage" / "begun").exists():
        time.sleep(0.05)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not (tmp_path / "stage" / "key").exists()
    _produce(tmp_path)
    assert (tmp_path / "stage" / "key" / "whole").exists()


def test_failure_leaves_no_stage(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        StageCache(tmp_path).produce("stage", "key", fail)
    assert not [path for path in (tmp_path / "stage").iterdir() if path.is_dir()]


def _write(folder: Path) -> None:
    (folder / "figures").write_text("1 2 3")


def _never(_: Path) -> None:
    raise AssertionError("it is there already")


@pytest.mark.parametrize("harm", ["shorten", "change", "remove", "manifest", "manifest-elsewhere"])
def test_damaged_stage_is_set_aside_and_made_again(tmp_path: Path, harm: str) -> None:
    folder = StageCache(tmp_path).produce("stage", "key", _write)
    figures, manifest = folder / "figures", folder / MANIFEST
    if harm == "shorten":
        figures.write_text("1 2")
    elif harm == "change":
        figures.write_text("1 2 4")
    elif harm == "remove":
        figures.unlink()
    elif harm == "manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        manifest.write_text(manifest.read_text().replace("figures", "../figures"))
    cache = StageCache(tmp_path)  # another process
    assert cache.find("stage", "key") is None
    with pytest.warns(UserWarning, match="it is set aside as .damaged-key-"):
        assert cache.produce("stage", "key", _write) == folder
    assert figures.read_text() == "1 2 3"
    assert len(list((tmp_path / "stage").glob(".damaged-key-*"))) == 1
    assert StageCache(tmp_path).produce("stage", "key", _never) == folder


def test_what_a_killed_maker_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "stage" / ".key-abandoned").mkdir(parents=True)
    StageCache(tmp_path).produce("stage", "key", _write)
    assert [path.name for path in (tmp_path / "stage").iterdir() if path.is_dir()] == ["key"]


def test_full_disk_leaves_no_stage(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def fill(folder: Path) -> None:
        with (folder / "figures").open("wb") as full:
            os.ftruncate(full.fileno(), 0)
        Path("/dev/full").write_bytes(b"1 2 3")

    with pytest.raises(OSError, match="No space left"):
        cache.produce("stage", "key", fill)
    assert cache.find("stage", "key") is None
    assert not [path for path in (tmp_path / "stage").iterdir() if path.is_dir()]


def test_identity_stays(tmp_path: Path) -> None:
    identity = StageCache(tmp_path / "a").identity
    assert StageCache(tmp_path / "a").identity == identity
    assert StageCache(tmp_path / "b").identity != identity


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteStore:
    """A shared folder, and a file system that knows no renaming or locks, as object stores do."""
    if request.param == "folder":
        return RemoteStore(str(tmp_path / "shared"))
    return RemoteStore(f"memory://{tmp_path.name}")


def test_nodes_share_stages_through_the_storage(tmp_path: Path, storage: RemoteStore) -> None:
    one, other = (StageCache(tmp_path / node, storage) for node in ("one", "other"))
    one.produce("stage", "key", _write)
    folder = other.produce("stage", "key", _never)
    assert folder.is_relative_to(tmp_path / "other")
    assert (folder / "figures").read_text() == "1 2 3"


def test_half_an_upload_is_no_stage_and_a_damaged_one_is_made_again(
    tmp_path: Path, storage: RemoteStore
) -> None:
    one, other, third = (StageCache(tmp_path / node, storage) for node in ("one", "other", "third"))
    folder = one.produce("stage", "key", _write)
    storage.remove(f"stage/key/{MANIFEST}")
    assert other.find("stage", "key") is None
    other.produce("stage", "key", _write)
    (folder / "figures").write_text("1 2 4")
    storage.put(["stage/key/figures"], folder)
    with pytest.warns(UserWarning, match="figures is not as it was written"):
        assert third.find("stage", "key") is None
    third.produce("stage", "key", _write)
    assert StageCache(tmp_path / "fourth", storage).find("stage", "key")
    (tmp_path / "half" / MANIFEST).parent.mkdir()
    (tmp_path / "half" / MANIFEST).write_text('{"files": {"fig')
    storage.put([f"stage/key/{MANIFEST}"], tmp_path / "half")
    fifth = StageCache(tmp_path / "fifth", storage)
    with pytest.warns(UserWarning, match="cannot be read"):
        fifth.produce("stage", "key", _write)
    assert StageCache(tmp_path / "sixth", storage).produce("stage", "key", _never)


def test_what_could_not_be_published_is_published_by_the_next_that_needs_it(
    tmp_path: Path, storage: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("the storage is away")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "put", away)
        with pytest.raises(OSError, match="away"):
            StageCache(tmp_path / "one", storage).produce("stage", "key", _write)
    assert StageCache(tmp_path / "other", storage).find("stage", "key") is None
    StageCache(tmp_path / "one", storage).produce("stage", "key", _never)
    assert StageCache(tmp_path / "other", storage).find("stage", "key")


def test_stage_that_another_node_publishes_in_the_meantime_is_taken(
    tmp_path: Path, storage: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    StageCache(tmp_path / "one", storage).produce("stage", "key", _write)
    seen = iter([False])
    has = storage.has
    monkeypatch.setattr(storage, "has", lambda name: next(seen, True) and has(name))
    other = StageCache(tmp_path / "other", storage)
    assert other.find("stage", "key") is None
    assert other.produce("stage", "key", _never)


def test_checkpoint_follows_a_stage_to_another_node(tmp_path: Path, storage: RemoteStore) -> None:
    one, other = (StageCache(tmp_path / node, storage) for node in ("one", "other"))
    path = one.checkpoint("stage", "key")
    path.write_bytes(b"epoch 3")
    one.keep_checkpoint(path)
    taken = other.checkpoint("stage", "key")
    assert taken.read_bytes() == b"epoch 3"
    other.drop_checkpoint(taken)
    assert not StageCache(tmp_path / "third", storage).checkpoint("stage", "key").exists()


def test_storage_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--storage .*/file: cannot be used: .*allowed are"):
        RemoteStore(str(tmp_path / "file"))
    with pytest.raises(InputError, match="--storage nowhere://a: cannot be used"):
        RemoteStore("nowhere://a")
