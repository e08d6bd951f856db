"""The question where MINT is better than random blocks and block magnitude."""

from collections import Counter
from collections.abc import Iterable

from conclusions import Answer, answer

from mint.reporting.aggregate import REGIMES, format_count
from mint.reporting.comparison import CONTROLS
from mint.reporting.markdown import table
from mint.reporting.protocols import Protocol
from mint.reporting.statistics import Difference, holm

_MINT = ("mint", "mint-unconditional")
_VERDICTS = ("better", "worse", "equivalent", "not settled")


def where_mint_wins(protocols: Iterable[Protocol]) -> Answer:
    """Return the answer that counts MINT's comparisons with its controls, all corrected at once."""
    found: list[tuple[tuple[str, str, str], Difference]] = [
        ((f"{protocol.experiment}, {protocol.under(regime)}", row.trials.criterion, control), each)
        for protocol in protocols
        for regime in REGIMES
        for row in protocol.criteria
        if row.axes.retraining == regime and row.trials.criterion in _MINT
        for control in CONTROLS
        if (each := row.against.get(control)) and each.interval
    ]
    differing = holm([difference for _, difference in found])
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for (place, difference), differs in zip(found, differing, strict=True):
        verdict = difference.verdict(differs, ("better", "worse"))
        counts.setdefault(place, Counter())[verdict.split(" within")[0]] += 1
    total = sum(counts.values(), Counter[str]())
    rows = [
        [*place, *(str(own[verdict]) for verdict in _VERDICTS)] for place, own in counts.items()
    ]
    header = ["Setting", "Criterion", "Control", *map(str.capitalize, _VERDICTS)]
    return answer(
        "Where does MINT win, and where not?",
        "MINT less a control at the same share, or at the margin, with the same groups and seeds; "
        "at least three seeds. The pages of the experiments have the figures.",
        [
            f"Of {format_count(len(found), 'comparison')} MINT is better in {total['better']}, "
            f"worse in {total['worse']} and equivalent in {total['equivalent']}, after Holm's "
            f"correction for all of them; {total['not settled']} are not settled"
        ],
        table(header, rows, left=(0, 1, 2)) if rows else [],
    )
