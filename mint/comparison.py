"""Criteria at the same budget: their accuracy, and how far it is from that of random blocks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mint.config import CRITERIA

REFERENCE = "random"
CONFIDENCE = 0.95

# What trials must share to be compared. Of the first three a record has 0 where its criterion
# does not depend on one, and then it stands beside those of every value.
_DEPENDED_ON = ["groups", "samples_per_class", "bootstraps"]
_BUDGET = ["upper_limit", "fraction"]


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its interval of Student's t.

    Attributes:
        mean: percentage points.
        half_width: of the interval, percentage points; nan for a single pair.
    """

    mean: float
    half_width: float

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Setting:
    """What the criteria of one panel and its rows share, but for the share that is pruned.

    Attributes:
        upper_limit: as in the records.
        groups: of filters; 0 where no criterion depends on them, and so on.
        samples_per_class: likewise.
        bootstraps: that were asked for; likewise.
    """

    upper_limit: str
    groups: int
    samples_per_class: int
    bootstraps: int


@dataclass(frozen=True)
class Compared:
    """One criterion in one setting and at one budget.

    Attributes:
        setting: that it shares with others.
        fraction: of the counted weights that was asked for.
        criterion: its name.
        trials: their records, one a seed.
        against_random: accuracy less that of random blocks with the same seed; None where there
            are none, and for random blocks themselves.
    """

    setting: Setting
    fraction: str
    criterion: str
    trials: pd.DataFrame
    against_random: Difference | None


def compare(records: pd.DataFrame) -> list[Compared]:
    """Hold the criteria of one protocol against each other.

    Args:
        records: finished trials that prune a share that was given.
    """
    return [
        Compared(
            setting=setting,
            fraction=fraction,
            criterion=criterion,
            trials=trials,
            against_random=None
            if criterion == REFERENCE
            else paired_difference(trials, own[own["criterion"] == REFERENCE]),
        )
        for setting, fraction, own in _settings(records)
        for criterion, trials in _by_criterion(own)
    ]


def paired_difference(trials: pd.DataFrame, reference: pd.DataFrame) -> Difference | None:
    """Return how far accuracies are from those of a reference with the same seed.

    Args:
        trials: one a seed, with accuracy.
        reference: likewise.

    Returns:
        None where no seed is in both.
    """
    of_reference = dict(zip(reference["seed"], reference["accuracy"], strict=True))
    differences = [
        accuracy - of_reference[seed]
        for seed, accuracy in zip(trials["seed"], trials["accuracy"], strict=True)
        if seed in of_reference
    ]
    return Difference(float(np.mean(differences)), half_width(differences)) if differences else None


def half_width(values: Sequence[float]) -> float:
    """Return that of the interval of Student's t of a mean; nan for a single value."""
    count = len(values)
    if count == 1:
        return math.nan
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)


def _settings(records: pd.DataFrame) -> Iterator[tuple[Setting, str, pd.DataFrame]]:
    """Yield the settings and budgets with the records that belong to each."""
    for (limit, fraction), of_budget in sorted(
        records.groupby(_BUDGET), key=lambda item: tuple(_number(str(text)) for text in item[0])
    ):
        axes = of_budget[_DEPENDED_ON].to_numpy()
        points = sorted({tuple(map(int, point)) for point in axes})
        for point in points:
            # The axes of random blocks are some of MINT's: they make no setting of their own.
            if any(other != point and _covers(other, point) for other in points):
                continue
            belongs = ((axes == np.array(point)) | (axes == 0)).all(axis=1)
            yield Setting(str(limit), *point), str(fraction), of_budget[belongs]


def _covers(wider: tuple[int, ...], point: tuple[int, ...]) -> bool:
    return all(own in (0, other) for own, other in zip(point, wider, strict=True))


def _by_criterion(records: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for criterion in sorted(records["criterion"].unique(), key=criterion_order):
        yield criterion, records[records["criterion"] == criterion]


def criterion_order(criterion: str) -> tuple[int, str]:
    """Return what sorts criteria as mint.config names them, others behind."""
    names = list(CRITERIA)
    return (names.index(criterion) if criterion in names else len(names), criterion)


def _number(limit: str) -> float:
    return -math.inf if limit == "none" else float(limit)
