"""Ctrl-C and SIGTERM: remembered until the work can stop, even where Python loses an exception.

Python forgets an exception that a signal raises inside a finaliser, such as those of the import
system: it is then raised once more. Long work also calls check() now and then.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "stopped by Ctrl-C or SIGTERM"
"""Why a trial that was running has no result."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05  # a finaliser is over by then
_requested = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Make both signals raise KeyboardInterrupt inside the block, unless they were ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    hook, timers = sys.unraisablehook, list[threading.Timer]()

    def interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is not KeyboardInterrupt:
            hook(lost)
            return
        timers.append(threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    _requested.clear()
    restore()
    sys.unraisablehook = interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def restore() -> None:
    """Install the handlers, again after a library has installed its own."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come."""
    if requested():
        raise KeyboardInterrupt


def requested() -> bool:
    """Return whether a signal has come."""
    return _requested.is_set()


def ignore() -> None:
    """Ignore further signals: the seconds of work that are left must not be cut off."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt
