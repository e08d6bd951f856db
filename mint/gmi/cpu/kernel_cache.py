"""Compile kernels with numba, and cache them in a folder named by a hash of their sources.

numba's own cache compares only the file of a kernel, so an edit in a file it calls would be missed.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from filelock import FileLock
from numba.core.compiler_lock import global_compiler_lock

from mint.config.locations import user_caches

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compile_kernel(function: _Kernel) -> _Kernel:
    """Compile a function with numba on its first call; it then runs without Python's global lock.

    Machine code is kept between processes in a folder `kernels-<hash>` of NUMBA_CACHE_DIR if that
    is set, else of the user's cache folder for mint, else of the folder for temporary files. The
    hash is that of the function's file and of all modules beside this one. Of processes that start
    together one compiles a kernel, and the others wait for it.
    """
    digest = hashlib.sha256()
    own_file = Path(function.__code__.co_filename)
    for source in sorted({*Path(__file__).parent.glob("*.py"), own_file}):
        digest.update(source.read_bytes())
    usual = numba.config.CACHE_DIR
    # numba reads this setting when it wraps a function, so other functions keep the usual folder.
    folder = _writable_folder(f"kernels-{digest.hexdigest()[:16]}")
    numba.config.CACHE_DIR = folder
    try:
        compiled: Any = numba.njit(nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = usual
    compile_or_load = compiled.compile

    def compile_once(signature: Any) -> Any:
        # In this order: a thread that compiles a caller of this function has the first lock.
        with global_compiler_lock, FileLock(Path(folder, f"{function.__qualname__}.lock")):
            return compile_or_load(signature)

    compiled.compile = compile_once
    return cast(_Kernel, compiled)


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
