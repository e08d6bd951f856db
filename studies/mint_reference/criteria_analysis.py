"""The question where MINT is better than random blocks and block magnitude."""

from collections.abc import Iterable, Sequence
from typing import Any

from conclusions import ACCURACY, outcomes, paired, section

from mint.reporting.aggregate import NOT_RUN, format_axis, format_count
from mint.reporting.comparison import CONTROL, ComparedCriterion
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.statistics import Cell, Difference, marked

_MINT = ("mint", "mint-unconditional")
_REFERENCES = (CONTROL, "block-magnitude")


def where_mint_wins(protocols: Iterable[Protocol]) -> list[str]:
    """Return the section that compares MINT with its controls at every fraction they share."""
    text: list[str] = []
    compared: list[tuple[str, list[Difference | None]]] = []
    for protocol in protocols:
        rows: list[list[Cell]] = []
        for fraction, own in _by_budget(protocol.criteria):
            for criterion in _MINT:
                if criterion not in own or not own.keys() >= set(_REFERENCES):
                    continue
                trials, axes = own[criterion].trials, own[criterion].axes
                against = [paired(trials, own[name].trials, ACCURACY) for name in _REFERENCES]
                compared.append((f"{criterion} at {fraction} of {protocol.title}", against))
                cells = [format_axis(axes.groups), fraction, criterion, trials.mean(ACCURACY)]
                rows.append([*cells, *against, trials.seeds])
        if rows:
            header = ["Groups", "Fraction", "Criterion", "Test accuracy (%)"]
            header += ["Against random", "Against block magnitude", "Seeds"]
            text += ["", f"### {protocol.title}", "", " ".join(protocol.settings), ""]
            text += table(header, marked(rows, NOT_RUN), left=(2,))
    if compared:
        text += ["", _summary(compared)]
    return section(
        "Where does MINT win, and where not?",
        "Test accuracy minus that of random blocks and of block magnitude, with the same fraction, "
        "groups and seeds. The pages of the experiments have the curves.",
        text,
    )


def _by_budget(
    compared: Iterable[ComparedCriterion],
) -> list[tuple[str, dict[str, ComparedCriterion]]]:
    found: dict[Any, dict[str, ComparedCriterion]] = {}
    for row in compared:
        if row.trials.margin is not None:
            continue
        found.setdefault((row.axes, row.trials.fraction), {})[row.trials.criterion] = row
    return [(fraction, own) for (_, fraction), own in found.items()]


def _summary(compared: Sequence[tuple[str, Sequence[Difference | None]]]) -> str:
    found = iter(outcomes([difference for _, against in compared for difference in against]))
    sides = [(place, {next(found) for _ in against}) for place, against in compared]
    won = [place for place, own in sides if own == {"better"}]
    lost = sum("worse" in own for _, own in sides)
    where = f" ({'; '.join(won)})" if won else ""
    return (
        f"Of {format_count(len(sides), 'comparison')} MINT is better than both random blocks and "
        f"block magnitude, after Holm's correction for all of them, in {len(won)}"
        f"{where}, and worse than one of them in {lost}."
    )
