"""Where files are: those that come with mint, data sets, finished stages."""

import os
from pathlib import Path
from typing import Literal

from mint.errors import InputError

Stage = Literal[
    "baselines", "activations", "scores", "masks", "retrained", "trials", "initial", "checks"
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


def cache_folder(chosen: Path | None) -> Path:
    """Return the folder of finished stages: the one chosen, else MINT_CACHE_DIR, else ./.mint.

    Raises:
        InputError: it cannot be written.
    """
    folder = chosen or Path(os.environ.get("MINT_CACHE_DIR") or ".mint")
    check_writable("cache_dir", folder)
    return folder


def check_writable(parameter: str, folder: Path) -> None:
    """Raise InputError if a folder cannot be written, or created."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing} is a file, not a folder", parameter=parameter, value=folder)
    if not os.access(existing, os.W_OK):
        raise InputError(f"{existing} is not writable", parameter=parameter, value=folder)
