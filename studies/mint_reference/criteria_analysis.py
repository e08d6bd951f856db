"""The question where MINT is better than random blocks and block magnitude."""

from collections.abc import Iterable
from typing import Any

from conclusions import ACCURACY, outcome, paired, section

from mint.reporting.aggregate import format_axis, format_count
from mint.reporting.comparison import CONTROL, ComparedCriterion, format_difference
from mint.reporting.markdown import table
from mint.reporting.pages import Protocol

_MINT = ("mint", "mint-unconditional")
_REFERENCES = (CONTROL, "block-magnitude")


def where_mint_wins(protocols: Iterable[Protocol]) -> list[str]:
    """Return the section that compares MINT with its controls at every fraction they share."""
    text: list[str] = []
    outcomes: list[set[str]] = []
    won: dict[tuple[str, str], list[str]] = {}
    for protocol in protocols:
        rows = []
        for fraction, own in _by_budget(protocol.criteria):
            for criterion in _MINT:
                if criterion not in own or not own.keys() >= set(_REFERENCES):
                    continue
                trials, axes = own[criterion].trials, own[criterion].axes
                against = [paired(trials, own[name].trials, ACCURACY) for name in _REFERENCES]
                outcomes.append({outcome(difference) for difference in against})
                if outcomes[-1] == {"better"}:
                    won.setdefault((protocol.name, criterion), []).append(fraction)
                rows.append(
                    [
                        *(format_axis(axes.groups), fraction, criterion, trials.mean(ACCURACY)),
                        *(format_difference(difference) for difference in against),
                        trials.seeds,
                    ]
                )
        if rows:
            header = ["Groups", "Fraction", "Criterion", "Test accuracy (%)"]
            header += ["Against random", "Against block magnitude", "Seeds"]
            text += ["", f"### {protocol.name}", "", " ".join(protocol.settings), ""]
            text += table(header, rows, left=(2,))
    if outcomes:
        text += ["", _summary(outcomes, won)]
    return section(
        "Where does MINT win, and where not?",
        "Test accuracy minus that of random blocks and of block magnitude, with the same fraction, "
        "groups and seeds. A star marks an interval that excludes 0. RESULTS.md has the curves.",
        text,
    )


def _by_budget(
    compared: Iterable[ComparedCriterion],
) -> list[tuple[str, dict[str, ComparedCriterion]]]:
    found: dict[Any, dict[str, ComparedCriterion]] = {}
    for row in compared:
        found.setdefault((row.axes, row.trials.fraction), {})[row.trials.criterion] = row
    return [(fraction, own) for (_, fraction), own in found.items()]


def _summary(outcomes: list[set[str]], won: dict[tuple[str, str], list[str]]) -> str:
    where = "; ".join(
        f"{criterion} at {', '.join(fractions)} of {protocol}"
        for (protocol, criterion), fractions in won.items()
    )
    lost = sum("worse" in each for each in outcomes)
    return (
        f"Of {format_count(len(outcomes), 'comparison')} MINT is better than both random blocks "
        "and block magnitude, with intervals that exclude 0, in "
        f"{sum(map(len, won.values()))}{where and f' ({where})'}, and worse than one of them in "
        f"{lost}. Without any difference, at most one of forty would be won by chance."
    )
