"""Files that appear whole or not at all, and stay when the machine stops."""

import hashlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its name and rename it, so that nobody ever sees half of it.

    Raises:
        OSError: such as a full disk; what was there before is there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp's file is for its owner alone
        Path(partial).replace(path)
        flush(path.parent)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything else relies on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
