"""Values of a graph that are averaged over each filter: what scores are estimated from."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mint.models.supports import Value, core, merged_images


@dataclass(frozen=True)
class Recorded:
    """A value of the graph whose entries are averaged over each filter.

    Attributes:
        node: name of its node.
        dim: dimension of the images.
        interleaved: whether each image has every n-th of n images' positions there, and not
            consecutive ones.
        filters: int of the shape of one image, its positions along dim first: the filter of each
            entry, or -1 for none.
        count: number of filters.
    """

    node: str
    dim: int
    interleaved: bool
    filters: Tensor
    count: int

    def equals(self, other: "Recorded") -> bool:
        """Return whether the other averages the same entries."""
        same = (self.node, self.dim, self.interleaved) == (other.node, other.dim, other.interleaved)
        return same and torch.equal(self.filters, other.filters)

    def means(self, value: Tensor) -> Tensor:
        """Return (images, count) means in float32 of the node's value, for any number of images."""
        parts = len(self.filters)
        value = value.movedim(self.dim, 0)
        if self.interleaved:
            value = value.reshape(parts, -1, *value.shape[1:]).transpose(0, 1)
        sizes, strides = self.filters.shape, self.filters.stride()
        varying = [dim for dim, size in enumerate(sizes) if size > 1 and strides[dim]]
        dim = varying[0] if varying else 0
        before, size, after = prod(sizes[:dim]), sizes[dim], prod(sizes[dim + 1 :])
        line = self.filters[(0,) * dim + (slice(None),) + (0,) * (len(sizes) - dim - 1)]
        own = torch.arange(self.count).repeat_interleave(max(1, size // self.count))
        if len(varying) <= 1 and (self.count == 1 or torch.equal(line.long(), own)):
            own_entries = after * (size // self.count)
            if before == 1:
                return value.reshape(-1, self.count, own_entries).mean(2, dtype=torch.float32)
            parted = value.reshape(-1, before, self.count, own_entries)
            return parted.mean((1, 3), dtype=torch.float32)
        places = self.filters.reshape(-1).long().to(value.device)
        entries = value.reshape(-1, len(places))[:, places >= 0].double()
        places = places[places >= 0]
        sums = entries.new_zeros(len(entries), self.count).index_add_(1, places, entries)
        return (sums / places.bincount(minlength=self.count)).float()


def record(node: str, value: Value, filters: Tensor, count: int) -> Recorded | None:
    """Return how to average a value over each filter; None if its images are not in order."""
    for dim, size in enumerate(value.shape):
        images = merged_images(
            value.images, [each for each in range(len(value.shape)) if each != dim]
        )
        half = size // 2
        along = images.expand(*(size if d == dim else 1 for d in range(images.dim())))
        found: list[int] = along.flatten().tolist()
        if size > 1 and found in ([1] * half + [2] * half, [1, 2] * half):
            break
    else:
        return None
    by_image = filters.movedim(dim, 0)
    interleaved = found[1] == 2 and half > 1
    parts = (by_image[::2], by_image[1::2]) if interleaved else (by_image[:half], by_image[half:])
    one, other = parts
    if not torch.equal(one, other):
        return None
    return Recorded(node, dim, interleaved, one, count)


def places(numbers: Tensor, classes: Sequence[int]) -> Tensor:
    """Return for each number its place among the classes; -1 for none."""
    small = core(numbers)
    known, order = torch.tensor(classes, dtype=torch.int32).sort()
    found = torch.searchsorted(known, small.contiguous()).clamp(max=len(classes) - 1)
    return torch.where(known[found] == small, order[found], -1).expand(numbers.shape)
