"""Files that appear complete or not at all, and survive a power cut."""

import os
import uuid
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside the path and rename it; an error leaves the previous file unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        sync_to_disk(partial)
        partial.replace(path)
        sync_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
