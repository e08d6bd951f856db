"""One driver a sweep, or a trial: who holds it, told to whoever comes second."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from mint.atomic import write_whole
from mint.cache import Cache
from mint.errors import InputError

_FOLDER = "running"


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
    note = cache.root / _FOLDER / f"{name}.json"
    lock = cache.lock(f"{_FOLDER}/{name}", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{name} is being run by {_holder(note)}") from None
    try:
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


def check_idle(cache: Cache) -> None:
    """Refuse to go on while anything is run in a folder of stages.

    Raises:
        InputError: names who runs it.
    """
    for note in sorted((cache.root / _FOLDER).glob("*.json")):
        with holding(cache, note.stem, ""):
            pass


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_bytes())
        return (
            f"process {holder['process']} on {holder['machine']} since {holder['since']}: "
            f"{holder['command']}"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"
