"""Independent random streams from one seed: mint never draws from a global generator."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the random generator of one purpose.

    Streams of different purposes are independent: a stage that draws more numbers leaves all
    other stages unchanged.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


@contextmanager
def torch_seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them afterwards.

    Dropout and weight initialisation accept no generator; they draw from torch's global ones.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(stream(seed, purpose).integers(2**62)))
        yield
