"""Checksums of records.csv, in a file beside it: they tell to the cell what was changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import pandas as pd

from mint.trial.table_row import COLUMNS, ORIGIN, records_bytes

_DIGITS = 16


def figures_digest(records: pd.DataFrame) -> str:
    """Return the first hex digits of SHA-256 over the figures: all columns but ORIGIN."""
    return _digest(records_bytes(records.drop(columns=ORIGIN)))


@dataclass(frozen=True)
class Checksums:
    """First hex digits of SHA-256 over records as they are written, by column and by line."""

    columns: Sequence[str]
    lines: Sequence[str]

    @classmethod
    def of(cls, records: pd.DataFrame) -> Self:
        """Return those of records."""
        return cls(
            columns=[_digest(records_bytes(records[[name]])) for name in COLUMNS],
            lines=[_digest(line) for line in records_bytes(records).splitlines()[1:]],
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return those of a file's content."""
        entries = [line.split() for line in text.splitlines()]
        return cls(
            columns=[words[-1] for words in entries if words[:1] == ["column"]],
            lines=[words[-1] for words in entries if words[:1] == ["line"]],
        )

    def page(self) -> bytes:
        """Return the content of their file."""
        named = [f"column {name} {own}" for name, own in zip(COLUMNS, self.columns, strict=True)]
        named += [f"line {number} {own}" for number, own in enumerate(self.lines, start=2)]
        return "\n".join(
            ["SHA-256 of the columns and lines of records.csv, for mint verify", *named, ""]
        ).encode()

    def changed(self, now: Self) -> list[tuple[int, str]]:
        """Return the lines and columns of the cells that are others now.

        Where several lines and several columns changed, not all of their cells need have.
        """
        lines = [
            number
            for number, (old, new) in enumerate(zip(self.lines, now.lines, strict=False), start=2)
            if old != new
        ]
        pairs = zip(COLUMNS, self.columns, now.columns, strict=False)
        return [(line, column) for column, old, new in pairs if old != new for line in lines]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
