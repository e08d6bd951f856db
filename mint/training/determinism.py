"""Settings under which the same computation gives the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch
from threadpoolctl import threadpool_limits


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Fix the number of CPU threads and, on a GPU, choose deterministic algorithms."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    numba.get_num_threads()  # starts numba's threads, which would reset torch's number later
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)
