"""The question how MINT masks best, answered from the table of masking.py."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from conclusions import Answer, answer

from mint.reporting.aggregate import NOT_RUN
from mint.reporting.markdown import table
from mint.reporting.statistics import Cell, Difference, marked

_DEFAULT = {"steps": "one step", "grouping": "contiguous"}
_SCORES = ("mint", "mint, unconditional", "block-magnitude", "random")

_Variant = Mapping[str, object]


def _changes() -> Iterator[tuple[str, str, _Variant, _Variant]]:
    """Yield each change, the score it is made for, the variant before, and what changes."""
    for score in _SCORES:
        before = {**_DEFAULT, "keep_connected": 0, "score": score}
        yield "keep connected", score, before, {"keep_connected": 1}
    for change, changed in (
        ("z-scores instead of values", "mint, z-score"),
        ("no condition instead of all other parents", "mint, unconditional"),
        ("10 principal components instead of all other parents", "mint, 10 components"),
    ):
        yield change, "mint", {**_DEFAULT, "score": "mint"}, {"score": changed}
    for score in _SCORES:
        before = {**_DEFAULT, "score": score}
        yield "groups of correlated filters", score, before, {"grouping": "correlated"}
    for score in _SCORES[1:]:
        before = {"steps": "one step, 3 epochs", "score": score}
        yield "three steps instead of one", score, before, {"steps": "three steps, 3 epochs"}


def masking_changes(masking: pd.DataFrame | None) -> Answer:
    """Return the answer with the effect of each change on accuracy.

    Args:
        masking: table of masking.py; None if it was not run.
    """
    seeds = 0 if masking is None else masking["seed"].nunique()
    return answer(
        "How does MINT mask best?",
        "`studies/mint_reference/masking.py` measures validation accuracy at 98 and 99% of fc1 -> "
        "fc2 pruned in 20 x 20 blocks, with one epoch of retraining (three for the steps, at 99%). "
        f"Each cell is the change of accuracy in percentage points: mean over {seeds} seeds [95% "
        "interval].",
        [
            "What a star marks are settings: `keep_connected`, the criterion mint-unconditional "
            "(without a condition), and `estimate.paper` (the paper's own estimate)"
        ],
        [] if masking is None else _effects(masking),
    )


def _effects(masking: pd.DataFrame) -> list[str]:
    header = ["Change of MINT's own masking", "Score", "Not kept connected", "Kept connected"]
    rows: list[list[Cell]] = []
    for change, score, before, changed in _changes():
        if "keep_connected" in changed:
            effect = _effect(masking, before, {**before, **changed})
            rows.append([change, score, "N/A", effect])
            continue
        cells: list[Cell] = []
        for connected in (0, 1):
            own = {**before, "keep_connected": connected}
            cells.append(_effect(masking, own, {**own, **changed}))
        rows.append([change, score, *cells])
    return table(header, marked(rows, NOT_RUN), left=(0, 1))


def _effect(masking: pd.DataFrame, before: _Variant, after: _Variant) -> Difference | None:
    """Return the change in accuracy over the seeds; accuracy is the mean over the fractions."""
    sides = []
    for wanted in (before, after):
        own = masking[np.logical_and.reduce([masking[key] == wanted[key] for key in wanted])]
        sides.append(own.groupby("seed")["accuracy"].agg(["mean", "size"]))
    suffixes = ("_before", "_after")
    both = sides[0].merge(sides[1], left_index=True, right_index=True, suffixes=suffixes)
    both = both[both["size_before"] == both["size_after"]]
    return Difference.of((both["mean_after"] - both["mean_before"]).tolist())
