"""Settings under which the same computation gives the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from mint.machine import limited_threads


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Fix the number of CPU threads and, on a GPU, choose deterministic algorithms.

    The number binds torch, BLAS, the estimator and the decoding of images. An operation without a
    deterministic algorithm gives a warning that names it: its results stay usable, but two
    trainings differ by rounding.
    """
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(threads)
    try:
        with limited_threads(threads), threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
