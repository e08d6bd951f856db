"""Errors that are shown to the user as one line."""

import difflib
from collections.abc import Collection, Iterable


class InputError(Exception):
    """The user asked for something that cannot be done; nothing was changed. Exit code 2."""


class WorkFailedError(Exception):
    """What was asked for can be done, but was not this time. Exit code 1."""


class TrainingDivergedError(WorkFailedError):
    """The training loss stopped being a finite number, so the trial cannot go on."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the nearest name was meant; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}? " if near else ""


def allowed(name: str, known: Collection[str]) -> str:
    """Return what to give instead of a name that is not known: the nearest, and all there are."""
    return f"{nearest(name, known)}known are {', '.join(known)}"
