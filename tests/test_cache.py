"""A stage is made once, appears whole, and survives whoever was making it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from mint.cache import Cache


def _slow_stage(folder: Path) -> None:
    (folder / "half").write_text(str(os.getpid()))
    time.sleep(1)
    (folder / "whole").write_text(str(os.getpid()))


def _produce(root: Path) -> None:
    Cache(root).produce("stage", "key", _slow_stage)


def _never_ends(folder: Path) -> None:
    (folder / "half").write_text("")
    (folder.parent / "begun").write_text("")
    time.sleep(60)


def _produce_forever(root: Path) -> None:
    Cache(root).produce("stage", "key", _never_ends)


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
        Cache(tmp_path).produce("stage", "key", fail)
    assert not [path for path in (tmp_path / "stage").iterdir() if path.is_dir()]
