"""The tables of the pages as files of their own, for papers: LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mint.reporting.markdown import cells_of, is_rule
from mint.store.atomic import write_atomic

TableFormat = Literal["latex", "csv"]
FOLDER = "tables"
_SUFFIXES = {"latex": "tex", "csv": "csv"}
_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"±": r"$\pm$", "≥": r"$\ge$", "²": r"$^2$", "<": "$<$", ">": "$>$"},
}


class _Table(NamedTuple):
    """A table of a page; right says which columns are aligned right."""

    name: str
    rows: list[list[str]]
    right: list[bool]


def write_tables(output: Path, pages: Mapping[str, str], form: TableFormat) -> int:
    """Write every table of the pages into a folder of the results; return their number."""
    named: dict[str, _Table] = {}
    for page, text in pages.items():
        for own in _tables_of(Path(page).stem, text):
            number = sum(name.startswith(own.name) for name in named)
            named[f"{own.name}-{number + 1}" if own.name in named else own.name] = own
    for name, own in named.items():
        content = render(own.rows, own.right, form)
        write_atomic(output / FOLDER / f"{name}.{_SUFFIXES[form]}", content.encode())
    return len(named)


def _tables_of(page: str, text: str) -> Iterator[_Table]:
    headings = [page]
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            headings = [page, *headings[1 : level - 1], line.lstrip("# ")] if level > 1 else [page]
        if is_rule(line):
            end = next(
                (i for i in range(at, len(lines)) if not lines[i].startswith("|")), len(lines)
            )
            rows = [cells_of(row) for row in (lines[at - 1], *lines[at + 1 : end])]
            slug = re.sub(r"[^a-z0-9_]+", "-", "-".join(headings).lower()).strip("-")
            yield _Table(slug, rows, [cell.endswith(":") for cell in cells_of(line)])


def render(rows: Sequence[Sequence[str]], right: Sequence[bool], form: TableFormat) -> str:
    """Return a table whose first row is the header; cells are markdown."""
    plain = [[_plain(cell) for cell in row] for row in rows]
    if form == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(plain)
        return buffer.getvalue()
    header, *body = (" & ".join(map(_latex, row)) + r" \\" for row in plain)
    alignment = "".join("r" if side else "l" for side in right)
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\hline", header, r"\hline", *body, r"\hline"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _plain(cell: str) -> str:
    """Return the text of a cell of markdown."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell).replace("\\*", "*").replace(r"\|", "|")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
