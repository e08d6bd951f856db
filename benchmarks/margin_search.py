"""How sharply a search finds the share at the margin, by simulation on measured curves.

The curves are those of a trial table: for each criterion at several fractions, the mean drop
of validation accuracy over seeds against the kept share. A simulated retraining adds noise to the
curve, with the standard deviation that the seeds have at the margin. The table compares the search
of mint with a fixed ladder of as many retrainings, and says how often its 95% intervals cover.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from mint.pruning.sparsity_search import find_crossing
from mint.reporting.markdown import table
from mint.reporting.trials_csv import read_trials

BLOCKS = 400
CURVE = ["experiment", "protocol", "criterion", "groups"]
FEWEST_SHARES, FEWEST_SEEDS = 5, 3


class Curve(NamedTuple):
    """A mean curve of the drop (points) against -log of the kept share, and its noise."""

    name: str
    places: NDArray[np.float64]
    drops: NDArray[np.float64]
    sd: float

    def drop(self, place: float) -> float:
        return float(np.interp(place, self.places, self.drops))

    def share_at(self, margin: float) -> float:
        """Return the share (percent) at which the curve crosses the margin."""
        above = int(np.searchsorted(self.drops, margin, side="right"))
        (x0, x1), (y0, y1) = self.places[above - 1 : above + 1], self.drops[above - 1 : above + 1]
        return -100 * math.expm1(-(x0 + (x1 - x0) * (margin - y0) / (y1 - y0)))


def curves_of(trials: pd.DataFrame, margin: float) -> list[Curve]:
    """Return the curves of a trial table that cross the margin."""
    finished = trials[(trials["status"] == "finished") & (trials["fraction"] != "none")]
    drop = finished["baseline_validation_accuracy"] - finished["validation_accuracy"]
    found = []
    for key, own in finished.assign(drop=drop).groupby(CURVE):
        by_share = own[own["params_pruned"] < 100].groupby("params_pruned")["drop"]
        mean, sd = by_share.mean(), by_share.std()
        if len(mean) < FEWEST_SHARES or by_share.count().min() < FEWEST_SEEDS:
            continue
        places = -np.log1p(-mean.index.to_numpy() / 100)
        drops = isotonic_regression(mean.to_numpy()).x
        if drops[0] <= margin < drops[-1]:
            near = sd.iloc[np.abs(drops - margin).argsort()[:3]].mean()
            name = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            found.append(Curve(name, np.r_[0, places], np.r_[0, drops], float(near)))
    return found


def simulate(
    curve: Curve, margin: float, steps: int, repeats: int
) -> tuple[list[float], list[float], float]:
    """Return the shares that the search and the ladder find, and how often intervals cover."""
    generator = np.random.default_rng(0)
    ladder = np.linspace(0, math.log(BLOCKS), steps + 1)[1:]
    true, searched, on_ladder, covered = curve.share_at(margin), [], [], 0

    def noisy(place: float) -> float:
        return curve.drop(place) + curve.sd * float(generator.standard_normal())

    for _ in range(repeats):
        found = find_crossing(
            np.arange(BLOCKS + 1),
            BLOCKS,
            lambda block: noisy(-math.log1p(-block / BLOCKS)),
            dense_drop=noisy(0),
            margin=margin,
            sd=curve.sd,
            steps=steps,
            generator=generator,
        )
        searched.append(100 * found.pruned / BLOCKS)
        if found.low is not None and found.high is not None:
            covered += found.low <= true * BLOCKS / 100 <= found.high
        fitted = isotonic_regression([0, *(noisy(place) for place in ladder)]).x
        rung = Curve("", np.r_[0, ladder], fitted, curve.sd)
        on_ladder.append(rung.share_at(margin) if fitted[-1] > margin else 100.0)
    return searched, on_ladder, covered / repeats


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for every curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=Path, default=Path("results/trials.csv"), metavar="FILE")
    parser.add_argument("--margin", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args(arguments)
    rows = []
    for curve in curves_of(read_trials(options.trials), options.margin):
        true = curve.share_at(options.margin)
        searched, ladder, covers = simulate(curve, options.margin, options.steps, options.repeats)
        errors = [
            f"{np.mean(shares) - true:+.2f} ± {np.std(shares):.2f}" for shares in (searched, ladder)
        ]
        rows.append([curve.name, f"{curve.sd:.2f}", f"{true:.2f}", *errors, f"{100 * covers:.0f}%"])
    header = ["Curve", "SD of a retraining", "True share", "Search", "Ladder", "Intervals cover"]
    print("\n".join(table(header, rows, left=(0,))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
