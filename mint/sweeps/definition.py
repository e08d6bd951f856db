"""What a sweep is, before its command line says otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mint.config import Grid


@dataclass(frozen=True)
class SweepDefinition:
    """A question, and the trials that answer it.

    Attributes:
        name: of the sweep.
        question: what it is for, in a sentence or two.
        grids: for every experiment, the blocks of trials that run where no option says otherwise;
            the first experiment is the default.
        seeds: that run where no option says otherwise.
    """

    name: str
    question: str
    grids: Mapping[str, Sequence[Grid]]
    seeds: Sequence[int] = (0,)
