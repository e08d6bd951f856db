"""Markdown tables whose columns line up as plain text too."""

from collections.abc import Collection, Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = ()
) -> list[str]:
    """Return the lines of a table; columns numbered in `left` are aligned left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rules = (
        f":{'-' * (width + 1)}" if index in left else f"{'-' * (width + 1)}:"
        for index, width in enumerate(widths)
    )
    return [line(header), f"|{'|'.join(rules)}|", *(line(row) for row in rows)]
