"""What an epoch reports, and the size of the batches that evaluate a network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch."""

    epoch: int  # number, from 1
    loss: float  # mean over the training batches (nats)
    validation_accuracy: float  # top-1, in percent
    seconds: float  # of training and validation


def evaluation_batch_size(values: int) -> int:
    """Return how many images of so many values hold four million, from 128 to 4096."""
    return min(4096, max(128, 2**22 // values))
