"""Nodes share stages: the first copy counts, none mix, and a failing storage costs no stage."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mint.errors import InputError
from mint.store.manifest import MANIFEST
from mint.store.remote import RemoteStore
from mint.store.stage_cache import StageCache


class _Failing:
    """A folder of a storage, in which some calls of every method fail before the others."""

    def __init__(self, folder: Any, failures: float) -> None:
        self._folder, self._failures = folder, failures
        self._calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[name] = self._calls.get(name, 0) + 1
            if self._calls[name] <= self._failures:
                raise TimeoutError("no answer")
            return getattr(self._folder, name)(*args, **kwargs)

        return call


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint.store.retry.PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture(params=["folder", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A shared folder, and a file system without renames and locks, like an object store."""
    return str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path.name}"


@pytest.fixture
def storage(uri: str) -> RemoteStore:
    return RemoteStore(uri)


def _failing(uri: str, failures: float) -> RemoteStore:
    storage = RemoteStore(uri)
    storage.root = _Failing(storage.root, failures)
    return storage


def _write(folder: Path) -> None:
    (folder / "figures").write_text("1 2 3")


def _never(_: Path) -> None:
    raise AssertionError("the stage exists already")


def test_unusable_store_is_refused_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for uri in (str(tmp_path / "file"), "nowhere://user:secret@host/folder"):
        with pytest.raises(InputError, match=r"cannot be used: .*allowed are") as refused:
            RemoteStore(uri).check()
        assert refused.value.parameter == "storage"
        assert "secret" not in str(refused.value)


def test_nodes_share_stages(tmp_path: Path, storage: RemoteStore) -> None:
    one, other = (StageCache(tmp_path / node, storage) for node in ("one", "other"))
    one.produce("stage", "key", _write)
    folder = other.produce("stage", "key", _never)
    assert folder.is_relative_to(tmp_path / "other")
    assert (folder / "figures").read_text() == "1 2 3"


def test_first_of_two_copies_published_at_once_counts_for_all(tmp_path: Path, uri: str) -> None:
    both_write = threading.Barrier(2)

    def run(node: str) -> list[str]:
        storage = RemoteStore(uri)
        put_file, waited = storage.root.put_file, False

        def put_when_both_do(*args: Any, **kwargs: Any) -> None:
            nonlocal waited
            if not waited:
                both_write.wait(timeout=30)
            waited = True
            put_file(*args, **kwargs)

        storage.root.put_file = put_when_both_do

        def make(folder: Path) -> None:
            for name in ("first", "second"):
                (folder / name).write_text(node)

        folder = StageCache(tmp_path / node, storage).produce("stage", "key", make)
        return [(folder / name).read_text() for name in ("first", "second")]

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(run, ("one", "other")))
    third = StageCache(tmp_path / "third", RemoteStore(uri)).produce("stage", "key", _never)
    winner = (third / "first").read_text()
    assert found == [[winner, winner]] * 2
    left = RemoteStore(uri).root.find("stage/key")
    assert len(left) == 3, "the manifest, and the files of one node"


def test_every_call_that_fails_at_first_is_repeated(tmp_path: Path, uri: str) -> None:
    one = StageCache(tmp_path / "one", _failing(uri, 1))
    one.produce("stage", "key", _write)
    path = one.checkpoint("stage", "other")
    path.write_bytes(b"epoch 3")
    one.keep_checkpoint(path)
    two = StageCache(tmp_path / "two", _failing(uri, 1))
    assert two.find("stage", "key")
    fetched = two.checkpoint("stage", "other")
    two.fetch_checkpoint(fetched)
    assert fetched.read_bytes() == b"epoch 3"
    two.drop_checkpoint(fetched)
    two.discard("stage", "key")
    assert RemoteStore(uri).root.find("") == []


def test_storage_that_never_answers_fails_no_stage(tmp_path: Path, uri: str) -> None:
    cache = StageCache(tmp_path / "one", _failing(uri, float("inf")))
    no_answer = r"stage/key: the storage does not answer \(TimeoutError: no answer\)"
    with pytest.warns(UserWarning, match=no_answer):
        assert cache.find("stage", "key") is None
    with pytest.warns(UserWarning, match=no_answer):
        folder = cache.produce("stage", "key", _write)
    path = cache.checkpoint("stage", "key")
    path.write_bytes(b"epoch 3")
    for act in (cache.keep_checkpoint, cache.drop_checkpoint, cache.fetch_checkpoint):
        with pytest.warns(UserWarning, match=r"stage-key\.pt: the storage does not answer"):
            act(path)
    # The next process publishes what this one could not.
    other = StageCache(tmp_path / "other", RemoteStore(uri))
    assert other.find("stage", "key") is None
    assert StageCache(tmp_path / "one", RemoteStore(uri)).produce("stage", "key", _never) == folder
    assert other.find("stage", "key")


def test_only_damage_that_every_reading_shows_is_removed(tmp_path: Path, uri: str) -> None:
    storage = RemoteStore(uri)
    StageCache(tmp_path / "one", storage).produce("stage", "key", _write)
    (stored,) = (name for name in storage.root.find("stage/key") if name.endswith("figures"))
    get_file = storage.root.get_file
    cut: list[int] = []

    def cut_once(name: str, path: str) -> None:
        get_file(name, path)
        if not cut:
            cut.append(Path(path).write_text("1 2"))

    storage.root.get_file = cut_once
    assert StageCache(tmp_path / "two", storage).produce("stage", "key", _never)
    storage.root.pipe_file(stored, b"1 2 4")
    with pytest.warns(UserWarning, match="figures has changed"):
        assert StageCache(tmp_path / "three", storage).find("stage", "key") is None
    StageCache(tmp_path / "three", storage).produce("stage", "key", _write)
    storage.root.pipe_file(f"stage/key/{MANIFEST}", b'{"files": {"fig')
    with pytest.warns(UserWarning, match="cannot be read"):
        StageCache(tmp_path / "four", storage).produce("stage", "key", _write)
    assert StageCache(tmp_path / "five", storage).produce("stage", "key", _never)


def test_stages_of_earlier_versions_are_read(tmp_path: Path, storage: RemoteStore) -> None:
    folder = StageCache(tmp_path / "one").produce("stage", "key", _write)
    for name in ("figures", MANIFEST):  # side by side
        storage.put(f"stage/key/{name}", folder / name)
    assert StageCache(tmp_path / "two", storage).produce("stage", "key", _never)


def test_two_trials_of_a_node_fetch_the_same_checkpoint(tmp_path: Path, uri: str) -> None:
    storage = RemoteStore(uri)
    (tmp_path / "stage-key.pt").write_bytes(b"epoch 3")
    storage.put("progress/stage-key.pt", tmp_path / "stage-key.pt")
    both_have_it, one_reader = threading.Barrier(2), threading.Lock()

    def fetch(_: int) -> bytes:
        own = RemoteStore(uri)
        get_file = own.root.get_file

        def get_with_the_other(*args: Any) -> None:
            with one_reader:  # fsspec's memory store has one position for all readers of a file
                get_file(*args)
            both_have_it.wait(timeout=30)

        own.root.get_file = get_with_the_other
        cache = StageCache(tmp_path / "node", own)
        path = cache.checkpoint("stage", "key")
        cache.fetch_checkpoint(path)
        return path.read_bytes()

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(fetch, range(2))) == [b"epoch 3"] * 2
    # A third finds it gone: its stage has finished elsewhere.
    storage.remove("progress/stage-key.pt")
    third = StageCache(tmp_path / "third", storage)
    third.fetch_checkpoint(third.checkpoint("stage", "key"))
    assert not third.checkpoint("stage", "key").exists()
