"""One driver a sweep, or a trial: who holds it, told to whoever comes second."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import Timeout

from mint.config.schema import TrialConfig
from mint.errors import InputError
from mint.store.atomic import write_whole
from mint.store.stage_cache import Cache

_FOLDER = "running"
_ALL = "upkeep"


@contextmanager
def holding(cache: Cache, name: str, command: str) -> Iterator[None]:
    """Hold a sweep or a trial inside the block; the hold ends with the process, however it ends.

    Args:
        cache: the folder of stages that it runs in.
        name: of the sweep and its experiment, or of the trial.
        command: that runs it, without secrets.

    Raises:
        InputError: another process holds it.
    """
    with _held(cache, name, command):
        with _held(cache, _ALL, None, seconds=5):
            pass  # nobody holds all of them; whoever else looks is gone at once
        yield


def holding_trial(cache: Cache, config: TrialConfig, command: str) -> AbstractContextManager[None]:
    """Hold a trial by itself. See holding."""
    return holding(cache, f"{config.experiment.name}-{config.key}", command)


@contextmanager
def _held(cache: Cache, name: str, command: str | None, seconds: float = 0) -> Iterator[None]:
    """Hold a name, leaving a note of the command; None for a look that leaves none."""
    note = cache.root / _FOLDER / f"{name}.json"
    lock = cache.lock(f"{_FOLDER}/{name}", timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{name} is being run by {_holder(note)}") from None
    try:
        if command is not None:
            holder = {
                "process": os.getpid(),
                "machine": socket.gethostname(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "command": command,
            }
            write_whole(note, json.dumps(holder).encode())
        yield
    finally:
        lock.release()


@contextmanager
def holding_all(cache: Cache, command: str) -> Iterator[None]:
    """Keep anything from being run in a folder of stages inside the block.

    Raises:
        InputError: something is; names who runs it.
    """
    with _held(cache, _ALL, command):
        for note in sorted((cache.root / _FOLDER).glob("*.json")):
            if note.stem != _ALL:
                with _held(cache, note.stem, None):
                    pass
        yield


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_bytes())
        return (
            f"process {holder['process']} on {holder['machine']} since {holder['since']}: "
            f"{holder['command']}"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"
