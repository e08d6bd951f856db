"""Measure how many bootstraps make the scores of MNIST's fc1 -> fc2 reliable.

Run as: uv run python benchmarks/reliability.py [--data-dir DIR] [--bootstraps 200]

Draws bootstraps of the scores of the mnist_mlp baseline at 20 x 20 groups and 250 samples a class,
conditional and unconditional. Prints the noise of one bootstrap. Writes the reliability by number
of bootstraps, and the Spearman-Brown curve: reliability-mnist_mlp-g20-s250.csv and .png.
"""

import argparse
import math
import os
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mint.config.loading import load_experiment
from mint.config.schema import TrialConfig
from mint.data.datasets import load_source
from mint.gmi.estimator import gmi_bootstraps
from mint.gmi.reliability import reliability
from mint.reporting.figure_style import COLOURS, MARKERS, save
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache
from mint.training.determinism import reproducible
from mint.trial.pipeline import TrialPipeline
from mint.trial.provenance import Provenance

COUNTS = (2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400)
NAME = "reliability-mnist_mlp-g20-s250"


def main() -> int:
    """Draw, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    data_dir = Path(os.environ.get("MINT_DATA_DIR", "data"))
    parser.add_argument("--data-dir", type=Path, default=data_dir)
    parser.add_argument("--cache-dir", type=Path, default=Path(".mint"))
    parser.add_argument("--bootstraps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, options.data_dir)
    config = TrialConfig(
        experiment=experiment,
        groups=20,
        samples_per_class=250,
        upper_limit=None,
        seed=0,
        data_digest=source.digest,
    )
    provenance = Provenance.of_this_process(None, sys.argv)
    cache = StageCache(options.cache_dir)
    stages = TrialPipeline(config, source, cache=cache, provenance=provenance)
    with reproducible(experiment.threads, torch.device("cpu")):
        (pair,) = stages.pairs
        child, parent = stages.activations[pair.child_node], stages.activations[pair.parent_node]
    rows = []
    for kind, conditional in (("conditional", True), ("unconditional", False)):
        start = time.perf_counter()
        endless = gmi_bootstraps(child, parent, 20, 20, seed=0, conditional=conditional)
        values = []
        for bootstrap in islice(endless, options.bootstraps):
            values.append(bootstrap.value)
            if sys.stderr.isatty():
                print(f"\r{kind} {len(values)}/{options.bootstraps}", end="", file=sys.stderr)
        seconds = (time.perf_counter() - start) / len(values)
        print(f"{kind}: {seconds:.2f} s a bootstrap; {_noise(np.stack(values))}", flush=True)
        rows += [
            {"scores": kind, "bootstraps": count, "reliability": reliability(values[:count])}
            for count in COUNTS
            if count <= len(values)
        ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write_atomic(options.output / f"{NAME}.csv", table.to_csv(index=False).encode())
    _draw(options.output / f"{NAME}.png", table)
    return 0


def _noise(values: NDArray[np.float64]) -> str:
    """Describe the spread of blocks, and a bootstrap's noise: common, per column, per block."""
    count = len(values)
    noise = values - values.mean(0)
    common = noise.mean((1, 2), keepdims=True)
    column = noise.mean(1, keepdims=True) - common
    own = noise - common - column
    parts = [
        float((part**2).sum() / part.size) * count / (count - 1) for part in (common, column, own)
    ]
    # The variance of the means contains a share of the noise, which is subtracted.
    blocks = float(values.mean(0).var()) - (parts[1] + parts[2]) / count
    named = zip(("of all blocks", "of a column", "of one block"), parts, strict=True)
    return f"SD of blocks {math.sqrt(max(blocks, 0)):.4f}, noise of a bootstrap " + ", ".join(
        f"{name} {math.sqrt(part):.4f}" for name, part in named
    )


def _draw(path: Path, table: pd.DataFrame) -> None:
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for (kind, own), colour, marker in zip(
        table.groupby("scores"), COLOURS[:2], MARKERS[:2], strict=True
    ):
        axes.plot(
            own["bootstraps"], own["reliability"], color=colour, marker=marker, label=str(kind)
        )
        known = own[own["bootstraps"] == own["bootstraps"].max()].iloc[0]
        single = known["reliability"] / (
            known["bootstraps"] - (known["bootstraps"] - 1) * known["reliability"]
        )
        counts = np.geomspace(2, table["bootstraps"].max())
        expected = counts * single / (1 + (counts - 1) * single)
        axes.plot(counts, expected, color=colour, linewidth=1, linestyle=":")
    axes.axhline(0.8, color="0.5", linewidth=1, linestyle="--")
    axes.set(
        xscale="log",
        xlabel="bootstraps",
        ylabel="reliability (dotted: Spearman-Brown)",
        ylim=(-0.25, 1.03),  # noise takes a rank correlation below 0
        title="MNIST fc1 -> fc2, 20 x 20 groups, 250 samples per class",
    )
    axes.grid(color="0.9")
    axes.legend()
    save(figure, path)


if __name__ == "__main__":
    raise SystemExit(main())
