"""Errors that the user sees as one line, and text without secrets."""

import difflib
import re
from collections.abc import Collection, Iterable

_SECRET_WORDS = "pass|pwd|secret|token|key|sig|credential|connect"
_SECRETS = (
    (re.compile(r"://.*@"), "://***@"),  # user:password@host, whatever the password holds
    (re.compile(rf"(?i)([?&][^=&\s]*(?:{_SECRET_WORDS})[^=&\s]*=)[^&\s'\"]+"), r"\1***"),
)


class InputError(Exception):
    """A request that cannot be carried out; nothing was changed. Exit code 2.

    Attributes:
        problem: what is wrong, and what is allowed.
        parameter: name in Python and in experiment files, such as groups; None where the problem
            names the place itself.
        value: the value given.
    """

    def __init__(self, problem: str, *, parameter: str | None = None, value: object = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.parameter = parameter
        self.value = value

    def __str__(self) -> str:
        return self.describe(self.parameter)

    def describe(self, name: str | None) -> str:
        """Return the message with another name for the parameter, such as an option's."""
        if name is None:
            return self.problem
        return f"{name}{'' if self.value is None else f' {self.value}'}: {self.problem}"


class WorkFailedError(Exception):
    """A valid request whose work failed this time. Exit code 1."""


class TrainingDivergedError(WorkFailedError):
    """The training loss is no longer a finite number, so the trial cannot go on."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if that is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def error_line(error: BaseException) -> str:
    """Return an error's type and message as one line without secrets."""
    return without_secrets(" ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"))


def without_secrets(text: str) -> str:
    """Return the text with the users, passwords and tokens of its URIs replaced by stars."""
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that suggests the most similar name; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}? " if near else ""


def allowed(name: str, known: Collection[str]) -> str:
    """Return the names allowed in place of an unknown one, the most similar first."""
    return f"{nearest(name, known)}known are {', '.join(known)}"
