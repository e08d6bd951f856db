"""Locks of sweeps and trials: a second process learns which one runs them already."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import Timeout

from mint.errors import InputError
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache

_FOLDER = "running"
_EXCLUSIVE = "exclusive"


@contextmanager
def locked(cache: StageCache, name: str, command: str) -> Iterator[None]:
    """Lock a sweep or a trial inside the block; the lock ends with the process.

    InputError if another process runs it, which shows that command, or has locked the whole cache.
    """
    with _lock(cache, name, command):
        with _lock(cache, _EXCLUSIVE, seconds=5):  # other sweeps only look at it, as here
            pass
        yield


@contextmanager
def locked_exclusively(cache: StageCache, command: str) -> Iterator[None]:
    """Let no sweep or trial run in the cache inside the block; InputError if one is running."""
    with _lock(cache, _EXCLUSIVE, command):
        for note in sorted((cache.root / _FOLDER).glob("*.txt")):
            if note.stem != _EXCLUSIVE:
                with _lock(cache, note.stem):
                    pass
        yield


@contextmanager
def _lock(cache: StageCache, name: str, command: str = "", seconds: float = 0) -> Iterator[None]:
    """Hold a lock, with a note about its holder if the command is given."""
    note = cache.root / _FOLDER / f"{name}.txt"
    try:
        acquired = cache.lock(f"{_FOLDER}/{name}", timeout=seconds).acquire()
    except Timeout:
        what = "the stage cache is locked" if name == _EXCLUSIVE else f"{name} is being run"
        holder = note.read_text("utf-8") if note.exists() else "another process"
        raise InputError(f"{what} by {holder}") from None
    with acquired:
        if command:
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            write_atomic(note, f"{holder} since {time.strftime('%F %T')}: {command}".encode())
        yield
