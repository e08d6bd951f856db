"""What a results folder was made from, in made.json: nothing is made again that has not changed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from mint.config.keys import code_digest
from mint.store.atomic import write_atomic

MADE_FILE = "made.json"
RESULTS_FILE, TRIALS_FILE = "RESULTS.md", "trials.csv"
_SOURCES = ("reporting/*.py", "config/*.py", "pruning/layer_table.py")
_LIBRARIES = ("matplotlib", "numpy", "pandas", "scipy")
# Columns of a row that no figure shows: they change with rows of other settings.
_PLACE = {"line", "run_id", "git_commit"}


class Made(BaseModel, frozen=True):
    """What a results folder was made from.

    Attributes:
        source: digest of the rows, the reference results and the code.
        files: digests of trials.csv, the pages and the figures.
        drawn: digests of what the figures show, by their paths.
    """

    source: str = ""
    files: Mapping[str, str] = {}
    drawn: Mapping[str, str] = {}

    @classmethod
    def load(cls, output: Path) -> Self:
        """Read what is known of a results folder; nothing is known of an older or damaged one."""
        with suppress(OSError, ValueError):
            return cls.model_validate_json((output / MADE_FILE).read_bytes())
        return cls()

    def save(self, output: Path) -> None:
        """Write it into the results folder."""
        write_atomic(output / MADE_FILE, (self.model_dump_json(indent=1) + "\n").encode())

    def has(self, output: Path, name: str) -> bool:
        """Return whether a file of the folder is still as it was made."""
        return name in self.files and self.files[name] == digest_of_file(output / name)

    def is_whole(self, output: Path, source: str) -> bool:
        """Return whether the folder was made from this source, and has all its files."""
        return self.source == source and all(self.has(output, name) for name in self.files)


def digest_of_file(path: Path) -> str:
    """Return the digest of a file; an empty text if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def source_digest(trials: bytes, references: Iterable[Path]) -> str:
    """Return a digest of the trial table, the reference files and the code that reads them."""
    digest = hashlib.sha256(f"{_code()}\n{hashlib.sha256(trials).hexdigest()}".encode())
    for file in references:
        digest.update(f"\n{file.name} {digest_of_file(file)}".encode())
    return digest.hexdigest()


def digest_of_figure(draw: "partial[Any]") -> str:
    """Return a digest of what a figure shows: its rows, and the code that draws them."""
    known: dict[int, str] = {}
    shown = json.dumps([draw.func.__name__, _content(draw.args, known)], sort_keys=True)
    return hashlib.sha256(f"{_code()}\n{shown}".encode()).hexdigest()


def _content(value: Any, known: dict[int, str]) -> Any:
    """Return a value as JSON; that of an object that stands in many places is computed once."""
    if isinstance(value, BaseModel):
        return _content(dict(value), known)
    if is_dataclass(value):
        if id(value) not in known:
            own = {field.name: getattr(value, field.name) for field in fields(value)}
            content = json.dumps(_content(own, known), sort_keys=True)
            known[id(value)] = hashlib.sha256(content.encode()).hexdigest()
        return known[id(value)]
    if isinstance(value, Mapping):
        return {str(key): _content(each, known) for key, each in value.items() if key not in _PLACE}
    if isinstance(value, list | tuple):
        return [_content(each, known) for each in value]
    return value if value is None or isinstance(value, str | int | float) else repr(value)


@cache
def _code() -> str:
    """Return a digest of the code that makes reports, and of its libraries' versions."""
    return code_digest(_SOURCES, _LIBRARIES)
