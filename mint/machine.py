"""The resources of this machine, and how many threads this process may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Limits of a container, version 2 and version 1 of control groups.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_chosen_threads: int | None = None


def memory_bytes(device: str = "cpu") -> int:
    """Return the memory in bytes of a GPU (cuda), or that this machine or its container allows."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or the word max
            sizes.append(int(Path(file).read_text()))
    return min(sizes)


def threads() -> int:
    """Return how many threads work at a time: those of limited_threads, else one for each core."""
    return _chosen_threads or os.cpu_count() or 1


@contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Let the estimator and the decoding of images use so many threads in the whole process."""
    global _chosen_threads
    before, _chosen_threads = _chosen_threads, number
    try:
        yield
    finally:
        _chosen_threads = before
