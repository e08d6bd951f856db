"""Time one bootstrap of 20 x 20 blocks on a GPU: `python -m benchmarks.cuda`.

Run it as a module: a script's folder is the first that Python imports from, where the name `cuda`
would hide NVIDIA's package.
"""

import sys
import time

import numpy as np
import torch

from mint.gmi.bootstrap import Split
from mint.gmi.gpu.engine import count_blocks_on

ROWS = (2500, 6500)
GROUPS = 20
CHILD_FILTERS, PARENT_FILTERS = 300, 500
REPEATS = 3
# The differences show the cost of partners: none, the nearest, and an assignment.
MATCHINGS: dict[str, dict[str, bool]] = {
    "X and Y only": {"conditional": False},
    "nearest in Z": {"one_to_one": False},
    "one to one in Z": {"one_to_one": True},
}


def _features(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two layers of ReLU features of a few latent inputs, (rows, filters) each."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(rows, 30))
    parent = np.maximum(inputs @ generator.normal(size=(30, PARENT_FILTERS)), 0)
    child = np.maximum(parent @ generator.normal(size=(PARENT_FILTERS, CHILD_FILTERS)), 0)
    return child.astype(np.float32), parent.astype(np.float32)


def main() -> int:
    """Print a table of seconds; return 2 if there is no GPU."""
    if not torch.cuda.is_available():
        print("torch finds no GPU, so there is nothing to time", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {GROUPS} x {GROUPS} groups")
    print(f"{'rows':>6}  {'partners':<16} {'median s':>9} {'ms a block':>11} {'peak MiB':>9}")
    for rows in ROWS:
        child, parent = _features(rows)
        order = np.random.default_rng(1).permutation(rows)
        third = rows // 3
        split = Split(*np.split(order, [rows - 2 * third, rows - third]))
        child_groups = np.array_split(np.arange(CHILD_FILTERS), GROUPS)
        parent_groups = np.array_split(np.arange(PARENT_FILTERS), GROUPS)
        arguments = child, parent, child_groups, parent_groups, split
        # Compile the kernels for this size.
        count_blocks_on("cuda", *arguments, conditional=False)
        for name, options in MATCHINGS.items():
            torch.cuda.reset_peak_memory_stats()
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                count_blocks_on("cuda", *arguments, **options)  # type: ignore[arg-type]
                seconds.append(time.perf_counter() - start)
            median = float(np.median(seconds))
            peak = torch.cuda.max_memory_allocated() / 2**20
            block = 1000 * median / GROUPS**2
            print(f"{rows:>6}  {name:<16} {median:>9.3f} {block:>11.3f} {peak:>9.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
