"""Markdown tables whose columns line up as plain text too."""

import re
from collections.abc import Collection, Sequence


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[int] = (),
    without: Collection[str] = (),
) -> list[str]:
    """Return the lines of a table, without the columns that have the titles in `without`.

    Columns numbered in `left` are aligned left, others right.
    """
    shown = [i for i, title in enumerate(header) if title not in without]
    widths = {i: max(len(row[i]) for row in [header, *rows]) for i in shown}

    def line(row: Sequence[str]) -> str:
        cells = (row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i]) for i in shown)
        return f"| {' | '.join(cells)} |"

    rules = (
        f":{'-' * (widths[i] + 1)}" if i in left else f"{'-' * (widths[i] + 1)}:" for i in shown
    )
    return [line(header), f"|{'|'.join(rules)}|", *map(line, rows)]


def cells_of(line: str) -> list[str]:
    """Return the cells of a table's line; nothing for another line."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def is_rule(line: str) -> bool:
    """Return whether a line is the rule below a table's header."""
    return line.startswith("|") and set(line) <= set("|:-")
