"""Ctrl-C and SIGTERM: asked once, obeyed at the next good moment, even where Python loses one.

An exception that a signal raises inside a finaliser, such as the import system has, is printed and
forgotten. So it is remembered too, and long work asks for it now and then.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a trial that was running is told to have come to.
STOPPED = "stopped by Ctrl-C or SIGTERM"
# Of the ten that it may take: for closing the runs of trials that were running.
STOP_SECONDS = 4.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Have both signals raise KeyboardInterrupt inside the block.

    Ctrl-C stays ignored where it was, as in the background of a shell.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _asked.clear()
    restore()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restore() -> None:
    """Put the handlers in place, again after a library has put its own there."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def check() -> None:
    """Stop here if it was asked for.

    Raises:
        KeyboardInterrupt: likewise.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def asked() -> bool:
    """Tell whether a signal has come."""
    return _asked.is_set()


def ignore() -> None:
    """Take no further signal: what is left takes seconds, and must not be left half done."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt
