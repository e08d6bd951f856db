"""Files that appear complete or not at all, and survive a power cut."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside the path and rename it; an error leaves the previous file unchanged."""
    _write(path, content, os.replace)


def create_atomic(path: Path, content: bytes) -> None:
    """Write a file as write_atomic does; FileExistsError if there is one already."""
    _write(path, content, link_or_copy)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name, or copy it where that is not possible.

    FileExistsError if there is a file of that name already.
    """
    try:
        target.hardlink_to(source)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # a file system without hard links
        with source.open("rb") as content, target.open("xb") as file:
            shutil.copyfileobj(content, file)


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes, appear: Callable[[Path, Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        sync_to_disk(partial)
        appear(partial, path)
        sync_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)
