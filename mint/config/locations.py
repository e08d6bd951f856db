"""Where files are: those that come with mint, data sets, finished stages."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mint.errors import InputError

Stage = Literal[
    "baselines",
    "activations",
    "groups",
    "scores",
    "masks",
    "retrained",
    "steps",
    "trials",
    "initial",
    "checks",
]
"""The folders of finished stages in a cache."""

_PACKAGE = Path(__file__).resolve().parents[1]


def bundled(name: str) -> Path:
    """Return a folder that comes with mint: inside an installed package, beside it in a clone."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def data_folder(chosen: Path | None) -> Path:
    """Return the folder of the data sets: the one chosen, else MINT_DATA_DIR, else ./data.

    Raises:
        InputError: the folder chosen does not exist.
    """
    named = chosen or os.environ.get("MINT_DATA_DIR")
    if named and not Path(named).is_dir():
        parameter = "data_dir" if chosen else "MINT_DATA_DIR"
        raise InputError("must be a folder that exists", parameter=parameter, value=named)
    return Path(named or "data")


def cache_folder(chosen: Path | None, *, existing: bool = False) -> Path:
    """Return the folder of finished stages: the one chosen, else MINT_CACHE_DIR, else ./.mint.

    Raises:
        InputError: it cannot be written, or it must exist and does not.
    """
    named = os.environ.get("MINT_CACHE_DIR")
    parameter = "MINT_CACHE_DIR" if named and not chosen else "cache_dir"
    folder = chosen or Path(named or ".mint")
    check_writable(parameter, folder)
    if existing and not folder.is_dir():
        problem = "there is no such folder; nothing was kept there yet"
        raise InputError(problem, parameter=parameter, value=folder)
    return folder


def user_caches() -> Iterator[Path]:
    """Yield folders for what this machine computed once, the best first; some may be unwritable."""
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mint"
    # The cache is trusted, so a folder that another user made is not used.
    temporary = Path(tempfile.gettempdir()) / f"mint-{os.getuid()}"
    temporary.mkdir(mode=0o700, exist_ok=True)
    if temporary.stat().st_uid == os.getuid():
        yield temporary


def check_writable(parameter: str, folder: Path) -> None:
    """Raise InputError if a folder cannot be written, or created."""
    nearest = folder
    try:
        while not (nearest.is_symlink() or nearest.exists()):
            nearest = nearest.absolute().parent
        with tempfile.TemporaryFile(dir=nearest):  # access() knows no /proc and no NFS
            return
    except NotADirectoryError:
        problem = f"{nearest} is a file, not a folder"
    except OSError as error:
        problem = f"{nearest} cannot be written: {error.strerror}"
    raise InputError(problem, parameter=parameter, value=folder)
