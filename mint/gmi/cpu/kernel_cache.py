"""Compile kernels with numba, and cache them in a folder named by a hash of their sources.

numba's own cache compares only the file of a kernel, so an edit in a file it calls would be missed.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba

from mint.config.locations import user_caches

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compile_kernel(function: _Kernel) -> _Kernel:
    """Compile a function with numba on its first call; it then runs without Python's global lock.

    Machine code is kept between processes in a folder `kernels-<hash>` of NUMBA_CACHE_DIR if that
    is set, else of the user's cache folder for mint, else of the folder for temporary files. The
    hash is that of the function's file and of all modules beside this one.
    """
    digest = hashlib.sha256()
    own_file = Path(function.__code__.co_filename)
    for source in sorted({*Path(__file__).parent.glob("*.py"), own_file}):
        digest.update(source.read_bytes())
    usual = numba.config.CACHE_DIR
    # numba reads this setting when it wraps a function, so other functions keep the usual folder.
    numba.config.CACHE_DIR = _writable_folder(f"kernels-{digest.hexdigest()[:16]}")
    try:
        compiled: _Kernel = numba.njit(nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = usual
    return compiled


def _writable_folder(name: str) -> str:
    for root in _roots():
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return str(folder)
    return tempfile.mkdtemp(prefix="mint-kernels-")


def _roots() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    else:
        yield from user_caches()
