"""Compiling the kernels of the CPU in a process of its own, beside other work."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def compiling_kernels() -> Iterator[None]:
    """Compile the kernels that this machine lacks while the block runs.

    Whoever needs one meanwhile waits for it: see mint.gmi.cpu.kernel_cache.
    """
    # -P: a numba.py in the current folder would be found first.
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __name__], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def _compile() -> None:
    import numpy as np

    from mint.gmi.estimator import gmi_scores

    values = np.random.default_rng(0).normal(size=(60, 8))
    gmi_scores(values, values[:, ::-1], 2, 2)


if __name__ == "__main__":
    _compile()
