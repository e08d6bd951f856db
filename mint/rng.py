"""Independent random streams from one seed: nothing in mint draws from a global generator."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose.

    Streams of different purposes are independent, so a stage that draws more numbers than
    before leaves every other stage as it was.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


@contextmanager
def torch_seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators inside the block, and give them back as they were.

    Dropout and weight initialisation take no generator, so they have to draw from torch's
    global ones; the scope keeps that from reaching anything else.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(stream(seed, purpose).integers(2**62)))
        yield
