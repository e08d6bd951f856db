"""Answers in words: what the intervals of paired contrasts allow to say, and no more."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mint.reporting.aggregate import NOT_RUN, SeedGroup
from mint.reporting.statistics import (
    MARGIN_OF_SHARE,
    Cell,
    DeviationRatio,
    Difference,
    holm,
)

NOTHING = "Not run: the trial table has no trials of it."


class Answer(NamedTuple):
    """A question, what it is about, plain sentences that answer it, and what they rest on."""

    question: str
    background: str
    sentences: Sequence[str]
    evidence: Sequence[str]

    @property
    def section(self) -> list[str]:
        """The lines of a section of PUZZLES.md."""
        lines = [line for sentence in self.sentences for line in ("", sentence)]
        return ["", f"## {self.question}", "", self.background, *lines, *self.evidence]


def answer(
    question: str, background: str, sentences: Iterable[str], evidence: Sequence[str]
) -> Answer:
    """Return an answer; without evidence it says that nothing was run."""
    if not evidence:
        return Answer(question, background, [NOTHING], [])
    return Answer(question, background, [f"{each}." for each in sentences], ["", *evidence])


def contrast(weighted: Sequence[tuple[float, SeedGroup]]) -> Difference | None:
    """Return a weighted sum of the shares at the margin of seed groups, by common seeds."""
    shares = [
        {seed: share for (_, seed), share in group.comparable.items()} for _, group in weighted
    ]
    shared = set.intersection(*map(set, shares))
    return Difference.of(
        [
            sum(weight * own[seed] for (weight, _), own in zip(weighted, shares, strict=True))
            for seed in sorted(shared)
        ],
        margin=MARGIN_OF_SHARE,
    )


def format_contrasts(settings: Sequence[str], contrasts: Sequence[Cell]) -> str:
    """Return contrasts of several settings in words, with Holm's correction among them.

    Of more contrasts than settings, the first count.
    """
    own = list(zip(settings, contrasts, strict=False))
    known = [each for _, each in own if isinstance(each, Difference)]
    differing = iter(holm(known))
    parts = []
    for setting, each in own:
        text = each or NOT_RUN
        if isinstance(each, Difference):
            verdict = each.verdict(next(differing), ("more", "less"))
            text = f"{each} points, {verdict}"
        parts.append(f"{text} ({setting})")
    return "; ".join(parts)


def deviation_ratio(group: SeedGroup, reference: SeedGroup) -> str:
    """Return the ratio of standard deviations over seeds, with its interval from eight seeds on."""
    own, others = group.comparable, reference.comparable
    shared = sorted(own.keys() & others.keys())
    ratio = DeviationRatio.of([own[each] for each in shared], [others[each] for each in shared])
    if ratio is None:
        return f"not settled, {len(shared)} seeds"
    settled = "" if not ratio.low <= 1 <= ratio.high else ", not settled"
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]{settled}"
