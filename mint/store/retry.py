"""Repeated reads and writes: one failing answer of a storage is no reason to give anything up."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
PAUSES = (0.5, 2.0, 8.0)
"""Seconds before each further try."""


def retried(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what a call returns, trying again after any error but that of a missing file.

    A file that is missing, or there already, is an answer.
    """
    for pause in PAUSES:
        try:
            return call(*args, **kwargs)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception:  # each file system has errors of its own
            time.sleep(pause)
    return call(*args, **kwargs)
