"""Locks of sweeps and trials: a second process learns which one runs them already."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import Timeout

from mint.errors import InputError
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache

_FOLDER = "running"
_EXCLUSIVE = "exclusive"
_PATIENCE = 5.0  # seconds to wait for a cache that is locked for a moment


@contextmanager
def locked(cache: StageCache, name: str, command: str) -> Iterator[None]:
    """Lock a sweep or a trial inside the block, and use the cache; both end with the process.

    InputError if another process runs it, which shows that command, or has locked the whole cache.
    """
    with _named(cache, name, command), in_use(cache, seconds=_PATIENCE):
        yield


@contextmanager
def in_use(cache: StageCache, seconds: float = float("inf")) -> Iterator[None]:
    """Let nobody lock the whole cache inside the block, in which stages are made or read.

    InputError if it is locked for longer than these seconds.
    """
    with _whole(cache, fcntl.LOCK_SH, seconds) as acquired:
        if not acquired:
            raise InputError(f"the stage cache is locked by {_holder(cache, _EXCLUSIVE)}")
        yield


@contextmanager
def locked_exclusively(cache: StageCache, command: str) -> Iterator[None]:
    """Let no sweep or trial use the cache inside the block; InputError if one does."""
    with _whole(cache, fcntl.LOCK_EX, seconds=0) as acquired:
        if not acquired:
            for note in sorted((cache.root / _FOLDER).glob("*.txt")):
                if note.stem != _EXCLUSIVE:
                    with _named(cache, note.stem):  # InputError with the name of the one that runs
                        pass
            with in_use(cache, seconds=0):  # InputError if it is locked exclusively
                raise InputError("the stage cache is used by a trial of a sweep")
        _write_note(cache, _EXCLUSIVE, command)
        yield


@contextmanager
def _named(cache: StageCache, name: str, command: str = "") -> Iterator[None]:
    """Hold the lock of a sweep or a trial, with a note about its holder if a command is given."""
    try:
        acquired = cache.lock(f"{_FOLDER}/{name}", timeout=0).acquire()
    except Timeout:
        raise InputError(f"{name} is being run by {_holder(cache, name)}") from None
    with acquired:
        if command:
            _write_note(cache, name, command)
        yield


@contextmanager
def _whole(cache: StageCache, kind: int, seconds: float) -> Iterator[bool]:
    """Hold the lock of the whole cache, shared or exclusive; yield whether it came in time."""
    path = cache.root / _FOLDER / f"{_EXCLUSIVE}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with path.open("a+") as file:
        while not (acquired := _try_lock(file, kind)) and time.monotonic() < end:
            time.sleep(0.05)
        yield acquired


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(cache: StageCache, name: str) -> Path:
    return cache.root / _FOLDER / f"{name}.txt"


def _write_note(cache: StageCache, name: str, command: str) -> None:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    content = f"{holder} since {time.strftime('%F %T')}: {command}"
    write_atomic(_note(cache, name), content.encode())


def _holder(cache: StageCache, name: str) -> str:
    note = _note(cache, name)
    return note.read_text("utf-8") if note.exists() else "another process"
