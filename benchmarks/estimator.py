"""Time the estimator's trees against those of scipy, hdbscan and plain NumPy.

Run as: uv run --group benchmark python benchmarks/estimator.py [--data-dir DIR] [--quick] [--large]

For ours, one whole bootstrap with matching and distances is divided by its number of blocks. The
others get the points of a block with partners found, and compute its distances and its tree.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from mint.config.loading import load_experiment
from mint.data.datasets import load_source
from mint.data.loading import balanced_rows, split_source
from mint.gmi.bootstrap import Split
from mint.gmi.cpu.engine import count_blocks
from mint.gmi.cpu.matching import match_points
from mint.machine import threads
from mint.models.activations import collect_activations
from mint.models.layers import chosen_pairs
from mint.models.registry import build_network
from mint.models.tracing import trace
from mint.rng import torch_seeded
from mint.training.loop import train

try:
    from hdbscan._hdbscan_linkage import mst_linkage_core
except ImportError:
    mst_linkage_core = None

Floats = NDArray[np.float32]
Groups = list[NDArray[np.int64]]


class Workload(NamedTuple):
    """Activations of a parent and a child layer, and their groups."""

    name: str
    child: Floats
    parent: Floats
    child_groups: Groups
    parent_groups: Groups

    def split(self) -> Split:
        rows = np.random.default_rng(0).permutation(len(self.child))
        m = len(rows) // 3
        return Split(rows[: len(rows) - 2 * m], rows[-2 * m : -m], rows[-m:])


class Timing(NamedTuple):
    """Seconds a block, and from how many blocks."""

    method: str
    seconds: float
    blocks: int


def groups_of(filters: int, count: int) -> Groups:
    return np.array_split(np.arange(filters), count)


def mnist_workloads(data_dir: Path, *, quick: bool, samples: list[int]) -> Iterator[Workload]:
    """Yield fc1 and fc2 of the MNIST network, at several numbers of samples a class."""
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, data_dir)
    dataset = split_source(source, experiment.data, seed=0, device=torch.device("cpu"))
    with torch_seeded(0, "initial weights", torch.device("cpu")):
        network = build_network(experiment.network)
    if quick:
        kind = "random weights"
    else:
        history = train(
            network, dataset, experiment.training.model_copy(update={"epochs": 3}), seed=0
        )
        kind = f"{history[-1].validation_accuracy:.1f}%"
    traced = trace(network, torch.zeros(1, *dataset.image_shape))
    (pair,) = chosen_pairs(traced, experiment)
    for samples_per_class in samples:
        rows = balanced_rows(dataset.train.labels, samples_per_class=samples_per_class, seed=0)
        batches = dataset.train.batches(1024, rows)
        found = collect_activations(traced, (inputs for inputs, _ in batches), [pair])
        child, parent = found[pair.child_node], found[pair.parent_node]
        yield Workload(
            f"MNIST ({kind}), {samples_per_class} a class, 20 x 20 groups",
            child,
            parent,
            groups_of(child.shape[1], 20),
            groups_of(parent.shape[1], 20),
        )


def synthetic_workload(filters: int, rows: int) -> Workload:
    """Return ReLU activations of two layers that read ten common factors."""
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(rows, 10))
    parent, child = (
        np.maximum(
            factors @ generator.normal(size=(10, filters))
            + 0.3 * generator.normal(size=(rows, filters)),
            0,
        ).astype(np.float32)
        for _ in range(2)
    )
    groups = groups_of(filters, filters)
    name = f"synthetic, {filters} -> {filters} filters, {rows} rows, {filters} x {filters} groups"
    return Workload(name, child, parent, groups, groups)


def block_points(work: Workload, split: Split, i: int, j: int) -> Floats:
    """Return the points of one block: child group, swapped parent group, all other filters."""

    def scaled(values: Floats) -> Floats:
        variance = float(values.var(0, dtype=np.float64).sum())
        return values / np.float32(variance**0.5 or 1)

    columns = work.parent_groups[j]
    others = scaled(np.delete(work.parent, columns, axis=1))
    partner = split.reference[match_points(others[split.second], others[split.reference])]
    pooled = np.concatenate([split.first, split.second])
    swapped = scaled(work.parent[:, columns])[np.concatenate([split.first, partner])]
    return np.hstack([scaled(work.child[:, work.child_groups[i]])[pooled], swapped, others[pooled]])


def product_distances(points: Floats) -> Floats:
    """Return squared distances by one matrix product."""
    squares = (points * points).sum(1)
    distances: Floats = squares[:, None] + squares[None, :]
    distances -= 2 * (points @ points.T)
    return np.maximum(distances, 0, out=distances)


def scipy_tree(points: Floats) -> None:
    # The shift keeps equal rows: a sparse matrix has no zeros.
    minimum_spanning_tree(cdist(points, points, "sqeuclidean") + 1)


def hdbscan_tree(points: Floats) -> None:
    mst_linkage_core(product_distances(points).astype(np.float64))


def numpy_tree(points: Floats) -> None:
    distances = product_distances(points)
    n = len(distances)
    nearest = np.full(n, np.inf, np.float32)
    end = np.zeros(n, np.int64)
    outside = np.ones(n, np.bool_)
    newest = 0
    for _ in range(n - 1):
        outside[newest] = False
        nearest[newest] = np.inf
        closer = outside & (distances[newest] < nearest)
        nearest[closer] = distances[newest, closer]
        end[closer] = newest
        newest = int(nearest.argmin())


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def time_methods(work: Workload, *, quick: bool) -> tuple[float, list[Timing]]:
    """Return the yardstick in seconds, and every method's seconds a block, ours first."""
    split = work.split()
    n = len(split.first) + len(split.second)
    blocks = len(work.child_groups) * len(work.parent_groups)
    arguments = work.child, work.parent, work.child_groups, work.parent_groups, split
    count_blocks(*arguments)
    ours = median_seconds(lambda: count_blocks(*arguments), 3 if quick else 5) / blocks
    one, other = (np.random.default_rng(k).random((n, n), np.float32) for k in range(2))
    yardstick = median_seconds(lambda: one + other, 21)
    timings = [Timing("ours", ours, blocks)]
    methods: list[tuple[str, Callable[[Floats], None]]] = [
        ("scipy cdist + csgraph tree", scipy_tree),
        ("product + hdbscan tree", hdbscan_tree),
        ("product + NumPy Prim", numpy_tree),
    ]
    tried = 1 if quick or n > 3000 else 3
    points = [block_points(work, split, k, k) for k in range(tried)]
    for method, tree in methods:
        if tree is hdbscan_tree and mst_linkage_core is None:
            continue
        seconds = [median_seconds(lambda p=p, tree=tree: tree(p), 1) for p in points]  # type: ignore[misc]
        timings.append(Timing(method, statistics.median(seconds), tried))
    return yardstick, timings


def print_table(works: Iterator[Workload], *, quick: bool) -> None:
    print(f"{'':30}{'ms a block':>12}{'x yardstick':>13}{'ours faster':>13}{'blocks':>8}")
    for work in works:
        yardstick, timings = time_methods(work, quick=quick)
        print(f"{work.name} (yardstick {1e3 * yardstick:.2f} ms)", flush=True)
        for timing in timings:
            print(
                f"  {timing.method:28}{1e3 * timing.seconds:12.3f}"
                f"{timing.seconds / yardstick:13.2f}"
                f"{timing.seconds / timings[0].seconds:12.1f}x{timing.blocks:8}",
                flush=True,
            )


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list that at the end holds the growth of the peak resident memory in bytes."""

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    grown: list[int] = []
    before = peak()
    yield grown
    grown.append(peak() - before)


def time_large(work: Workload) -> None:
    """Print time and peak memory at the size of the largest trial of the reference results."""
    child_groups = groups_of(work.child.shape[1], 100)
    parent_groups = groups_of(work.parent.shape[1], 250)
    start = time.perf_counter()
    with peak_memory() as grown:
        count_blocks(work.child, work.parent, child_groups, parent_groups, work.split())
    seconds = time.perf_counter() - start
    print(
        f"250 x 100 groups, {len(work.child)} rows: {seconds:.0f} s, "
        f"{1e3 * seconds / 25000:.2f} ms a block, "
        f"{grown[0] / 2**20:.0f} MiB beside the activations"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path(os.environ.get("MINT_DATA_DIR", "data"))
    parser.add_argument("--data-dir", type=Path, default=default, help="holds MNIST/raw")
    parser.add_argument("--quick", action="store_true", help="random weights, one block a peer")
    parser.add_argument("--large", action="store_true", help="250 x 100 groups at 650 a class too")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {threads()} threads of ours; "
        "medians of one run. Yardstick: NumPy adding two n x n float32 matrices. Slow "
        "methods run on a sample of the blocks."
    )
    if mst_linkage_core is None:
        print("hdbscan is not installed (--group benchmark), so it is left out.")
    works = list(mnist_workloads(options.data_dir, quick=options.quick, samples=[250, 650]))
    print_table(iter([*works, synthetic_workload(64, 5000)]), quick=options.quick)
    if options.large:
        time_large(works[-1])


if __name__ == "__main__":
    main()
