"""How MINT masks best: what benchmarks/masking.py measured, as a section of PUZZLES.md."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mint.reporting.comparison import Difference, told
from mint.reporting.markdown import table

_ONE = {"ways": "one step", "grouping": "contiguous"}
_SCORES = ("mint", "mint, unconditional", "block-magnitude", "random")

_Ways = Mapping[str, object]


def _changes() -> Iterator[tuple[str, str, _Ways, _Ways]]:
    """Yield what is changed, for which score, from what, and to what."""
    for score in _SCORES:
        yield "a floor", score, {**_ONE, "floor": 0, "score": score}, {"floor": 1}
    for change, changed in (
        ("z-scores for values", "mint, z-score"),
        ("no condition for all other parents", "mint, unconditional"),
        ("10 principal components for them", "mint, 10 components"),
    ):
        yield change, "mint", {**_ONE, "score": "mint"}, {"score": changed}
    for score in _SCORES:
        yield (
            "groups of correlated filters",
            score,
            {**_ONE, "score": score},
            {"grouping": "correlated"},
        )
    for score in _SCORES[1:]:
        at_once = {"ways": "one step, 3 epochs", "score": score}
        yield "three steps for one", score, at_once, {"ways": "three steps, 3 epochs"}


def masking_section(masking: pd.DataFrame) -> list[str]:
    """Return the lines that tell what each change of the way of masking does.

    Args:
        masking: of mint.reporting.measured.
    """
    header = ["Instead of MINT's own way", "For", "Without a floor", "With a floor"]
    rows: list[list[str]] = []
    for change, score, before, after in _changes():
        floors: Sequence[int | None] = (None,) if change == "a floor" else (0, 1)
        cells = []
        for floor in floors:
            own = before if floor is None else {**before, "floor": floor}
            cells.append(told(_effect(masking, own, {**own, **after})))
        rows.append([change, score, *(cells if len(cells) == 2 else ["N/A", *cells])])
    seeds = masking["seed"].nunique()
    return [
        *table(header, rows, left=(0, 1)),
        "",
        "Measured by `benchmarks/masking.py`: validation accuracy at 98 and 99% of fc1 -> fc2 "
        "pruned in 20 x 20 blocks, one epoch of retraining (three for the steps, at 99%), changed "
        f"less unchanged, in percentage points: mean over {seeds} seeds [95% interval].",
    ]


def _effect(masking: pd.DataFrame, before: _Ways, after: _Ways) -> Difference | None:
    """Return the change in accuracy, over the seeds, of the mean over the shares."""
    sides = []
    for wanted in (before, after):
        own = masking[np.logical_and.reduce([masking[key] == wanted[key] for key in wanted])]
        sides.append(own.groupby("seed")["accuracy"].agg(["mean", "size"]))
    suffixes = ("_before", "_after")
    both = sides[0].merge(sides[1], left_index=True, right_index=True, suffixes=suffixes)
    both = both[both["size_before"] == both["size_after"]]
    return Difference.of((both["mean_after"] - both["mean_before"]).tolist())
