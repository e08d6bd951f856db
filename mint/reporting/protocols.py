"""The trials of one experiment under one protocol, and readable names of protocols."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from mint.reporting.aggregate import SeedGroup, seed_groups
from mint.reporting.comparison import ComparedCriterion, compare_criteria

_LONGEST_DIFFERENCE = 40  # characters; a longer one is replaced by a number
_UNNAMED = "earlier trials"


@dataclass(frozen=True, eq=False)
class Protocol:
    """The trials of one experiment under one protocol.

    name says what they share; no other protocol of the experiment has it. trials has their rows,
    with their lines in trials.csv.
    """

    experiment: str
    name: str
    trials: pd.DataFrame

    @property
    def title(self) -> str:
        return f"{self.experiment}, {self.name}"

    def under(self, retraining: str) -> str:
        """Return the name under one regime of retraining; the name is that of the full one."""
        if retraining == "full":
            return self.name
        regime = "not retrained" if retraining == "none" else f"{retraining} retraining"
        return ", ".join([regime, *self.name.split(", ")[1:]])

    @property
    def settings(self) -> list[str]:
        """What the trials share, in sentences."""
        return _settings(self.trials)

    @cached_property
    def groups(self) -> list[SeedGroup]:
        return seed_groups(self.trials)

    def grouped(self, grouping: str, compensate: str = "no") -> list[SeedGroup]:
        """Return the seed groups of one grouping, and those whose criterion has no groups."""
        own = [group for group in self.groups if group.compensate == compensate]
        return [group for group in own if group.grouping == grouping or not group.groups]

    @property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["status"] == "finished"]

    @cached_property
    def criteria(self) -> list[ComparedCriterion]:
        return compare_criteria(self.groups)


def protocols_of(trials: pd.DataFrame) -> list[Protocol]:
    """Return the protocols of a sorted trial table."""
    numbered = trials.assign(line=range(2, len(trials) + 2))  # line 1 is the header
    found = []
    for experiment, of_experiment in numbered.groupby("experiment"):
        tables = [own for _, own in of_experiment.groupby("protocol")]
        names = _distinct_names(tables)
        found += [
            Protocol(str(experiment), name, own) for name, own in zip(names, tables, strict=True)
        ]
    return found


def _settings(trials: pd.DataFrame) -> list[str]:
    return [str(setting) for setting in trials["setting"].unique()]


def _distinct_names(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Return the names of protocols, those that several share with what differs, or a number."""
    names = [own["protocol_name"].iloc[0] or _UNNAMED for own in tables]
    for name, number in Counter(names).items():
        same = [at for at, own in enumerate(names) if own == name]
        if number > 1:
            clauses = [re.split(r"[.,:] |\.$", " ".join(_settings(tables[at]))) for at in same]
            shared = set.intersection(*map(set, clauses))
            differing = [", ".join(part for part in own if part not in shared) for own in clauses]
            longest = max(map(len, differing))
            readable = len(set(differing)) == number and longest <= _LONGEST_DIFFERENCE
            for count, (at, own) in enumerate(zip(same, differing, strict=True), start=1):
                names[at] = (
                    ", ".join(filter(None, (name, own))) if readable else f"{name} ({count})"
                )
    return names
