"""The filters that each entry of a value depends on without another layer between: its support.

Every support has a number. Values of a graph carry a tensor of these numbers, one for each of their
entries, so an operation that moves entries moves the numbers, too, by the operation itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

CONSTANT, FROM_INPUT = 0, 1  # numbers of entries that depend on no filter
Reason = Callable[[], str]
_IMAGES = (1, 2)  # bits of the two images of the example; an entry of a constant has neither


@dataclass(frozen=True)
class Support:
    """What an entry depends on.

    Attributes:
        filters: numbers of the single filters that meet in this entry, such as those of two layers
            that are added; if lost, all filters that it depends on.
        mixed: numbers of lost supports that also contribute, such as the scores of an attention.
        layer: whose filter this is called: of a sum the deepest.
        lost: why the entry belongs to no filter; None if it does.
    """

    filters: frozenset[int]
    mixed: frozenset[int] = frozenset()
    layer: str = ""
    lost: str | None = None


class Supports:
    """The table of all supports."""

    def __init__(self) -> None:
        self._all = [Support(frozenset()), Support(frozenset())]
        self._numbers: dict[Support, int] = {}
        self._depths = {"": 0}
        self._order: dict[str, int] = {}
        self._first: dict[str, int] = {}

    def __getitem__(self, number: int) -> Support:
        return self._all[number]

    def new_filters(self, layer: str, filters: int, depth: int) -> Tensor:
        """Return (filters,) the numbers of a layer's filters; depth counts the layers up to it."""
        self._depths[layer] = depth
        self._order.setdefault(layer, len(self._order))
        start = len(self._all)
        self._first[layer] = start
        self._all += [Support(frozenset([start + i]), layer=layer) for i in range(filters)]
        return torch.arange(start, len(self._all), dtype=torch.int32)

    def filter(self, number: int) -> tuple[str, int]:
        """Return the layer and the index of a single filter."""
        layer = self._all[number].layer
        return layer, number - self._first[layer]

    def lost(self, reason: str, filters: frozenset[int] = frozenset(), layer: str = "") -> int:
        """Return the number of a support that is no single filter."""
        return self._number(Support(filters, layer=layer, lost=reason))

    def depth_of(self, layer: str) -> int:
        """Return the length of the longest chain of layers up to this one."""
        return self._depths[layer]

    def depth(self, numbers: Tensor) -> int:
        """Return the length of the longest chain of layers that lead to any of these."""
        return max(self._depths[self._all[number].layer] for number in distinct(numbers))

    def reach(self, number: int) -> frozenset[int]:
        """Return the numbers of all filters that an entry depends on."""
        support = self._all[number]
        return support.filters.union(*(self._all[other].filters for other in support.mixed))

    def layers(self, numbers: Iterable[int]) -> list[str]:
        """Return the layers of all filters that entries depend on, in forward order."""
        filters = frozenset[int]().union(*map(self.reach, numbers))
        named = {self._all[f].layer for f in filters} | {self._all[n].layer for n in numbers}
        return sorted(named - {""}, key=lambda name: self._order[name])

    def joined(self, one: int, other: int, reason: Reason, *, keep_first: bool = False) -> int:
        """Return the number for an entry that is computed from an entry of each.

        Args:
            one: number of the first.
            other: number of the second.
            reason: returns why the filter is lost, if it is.
            keep_first: the filter keeps the name of the first, as when the second is a gate.
        """
        if one == other or min(one, other) <= FROM_INPUT:
            return max(one, other)
        a, b = self._all[one], self._all[other]
        if a.lost and b.lost:
            return self._lost((one, other), a.lost)
        if a.lost or b.lost:
            whole, lost = (b, one) if a.lost else (a, other)
            if whole.filters & self._all[lost].filters:
                return self._lost((one, other), reason())
            return self._number(replace(whole, mixed=whole.mixed | {lost}))
        layer = a.layer if keep_first else self._deepest([a.layer, b.layer])
        if not (a.mixed or b.mixed):
            return self._number(Support(a.filters | b.filters, layer=layer))
        if a.filters & (self.reach(other) - b.filters) or b.filters & (self.reach(one) - a.filters):
            return self._lost((one, other), reason())
        return self._number(Support(a.filters | b.filters, a.mixed | b.mixed, layer))

    def mixture(self, numbers: Iterable[int], reason: Reason) -> int:
        """Return the number for an entry that is computed from entries of all these."""
        mixed = sorted({number for number in numbers if number > FROM_INPUT} or set(numbers))
        if len(mixed) == 1 or mixed[-1] <= FROM_INPUT:
            return mixed[-1]
        supports = [self._all[number] for number in mixed]
        if any(support.lost for support in supports):
            return self._lost(mixed, next(s.lost for s in supports if s.lost))
        filters = frozenset[int]().union(*(support.filters for support in supports))
        layers = [self._all[number].layer for number in filters]
        if len(set(layers)) < len(layers):  # several filters of one layer
            return self._lost(mixed, reason())
        number = mixed[0]
        for other in mixed[1:]:
            number = self.joined(number, other, reason)
        return number

    def heads(self, classes: list[int]) -> tuple[int, ...] | None:
        """Return for each of these supports its attention head; None if there is only one head."""
        groups: list[tuple[set[int], set[int]]] = []  # places, and the filters that they depend on
        by_mixed: dict[frozenset[int], tuple[set[int], set[int]]] = {}
        for place, number in enumerate(classes):
            mixes = self._all[number].mixed
            if not mixes:
                return None
            places, filters = by_mixed.setdefault(mixes, (set(), set()))
            places.add(place)
            filters |= self._all[number].filters
        for mixes, (places, filters) in by_mixed.items():
            filters = filters.union(*(self._all[each].filters for each in mixes))
            joined = [group for group in groups if group[1] & filters]
            groups = [group for group in groups if not group[1] & filters]
            groups.append(
                (
                    places.union(*(group[0] for group in joined)),
                    filters.union(*(group[1] for group in joined)),
                )
            )
        if len(groups) == 1:
            return None
        heads = {
            place: head
            for head, (places, _) in enumerate(sorted(groups, key=lambda g: min(g[0])))
            for place in places
        }
        return tuple(heads[place] for place in range(len(classes)))

    def tied(self) -> dict[str, str]:
        """Return for layers whose filters meet those of earlier layers the first of these.

        Filter k of both meets in the same entries, as in the channels of a sum.
        """
        together, apart = set[frozenset[str]](), set[frozenset[str]]()
        for support in self._all:
            if support.lost or len(support.filters) < 2:
                continue
            filters = [self.filter(number) for number in support.filters]
            together.add(frozenset(layer for layer, _ in filters))
            if len({index for _, index in filters}) > 1:
                apart |= {frozenset([a, b]) for a, i in filters for b, k in filters if i != k}
        first: dict[str, str] = {}
        for pair in {frozenset([a, b]) for each in together for a in each for b in each}:
            if len(pair) > 1 and pair not in apart:
                one, other = sorted(
                    (_root(first, name) for name in pair), key=self._order.__getitem__
                )
                if one != other:
                    first[other] = one
        return {name: _root(first, name) for name in first}

    def _deepest(self, layers: list[str]) -> str:
        return max(layers, key=lambda name: (self._depths[name], -self._order[name]))

    def _lost(self, numbers: Iterable[int], reason: str | None) -> int:
        filters = frozenset[int]().union(*map(self.reach, numbers))
        layers = [self._all[number].layer for number in numbers if self._all[number].layer]
        layer = self._deepest(layers) if layers else ""
        return self._number(Support(filters, layer=layer, lost=reason))

    def _number(self, support: Support) -> int:
        if support not in self._numbers:
            self._numbers[support] = len(self._all)
            self._all.append(support)
        return self._numbers[support]


def _root(first: Mapping[str, str], name: str) -> str:
    while name in first:
        name = first[name]
    return name


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, for an example of two images.

    Attributes:
        numbers: int32 of the tensor's shape: the support of each entry. Dimensions along which
            they do not vary have a stride of zero.
        images: the same for the images that each entry depends on, as bits.
        sources: all layers that it is computed from.
    """

    numbers: Tensor
    images: Tensor
    sources: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.numbers.shape)

    @classmethod
    def of(cls, numbers: Tensor, images: Tensor, sources: frozenset[str]) -> "Value":
        """Return a value of tensors that may repeat themselves in memory."""
        own, of_images = (repeated(each.to(torch.int32)) for each in (numbers, images))
        return cls(own, of_images, sources)

    def expanded(self, shape: Sequence[int]) -> "Value":
        """Return the value broadcast to a shape."""
        return replace(self, numbers=self.numbers.expand(*shape), images=self.images.expand(*shape))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Value":
        """Return the value after an operation that only moves entries."""
        return replace(
            self, numbers=repeated(move(self.numbers)), images=repeated(move(self.images))
        )


def input_value(shape: tuple[int, ...]) -> Value:
    """Return the value of the network's input, two images of (2, ...)."""
    images = torch.tensor(_IMAGES, dtype=torch.int32).view(-1, *(1 for _ in shape[1:]))
    return Value(torch.full((), FROM_INPUT, dtype=torch.int32).expand(shape), images.expand(shape))


def values_in(given: Any) -> list[Value]:
    """Return the values in nested arguments of an operation."""
    return [each for each in tree_leaves(given) if isinstance(each, Value)]


def distinct(numbers: Tensor) -> list[int]:
    """Return the different numbers in a tensor, ascending."""
    found: list[int] = core(numbers).unique().tolist()
    return found


def core(tensor: Tensor) -> Tensor:
    """Return a tensor whose repeated dimensions have size 1."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def repeated(tensor: Tensor) -> Tensor:
    """Return an equal tensor with a stride of zero in each dimension along which it is constant."""
    small = core(tensor)
    for dim in reversed(range(small.dim())):
        if small.shape[dim] > 1:
            first = small.narrow(dim, 0, 1)
            if torch.equal(small, first.expand_as(small)):
                small = first
    if small.numel() < tensor.numel():
        return small.contiguous().expand(tensor.shape)
    return tensor


def joined(
    supports: Supports, one: Value, other: Value, reason: Reason, *, keep_first: bool = False
) -> Value:
    """Return the value of an operation on each entry of two, which broadcasts."""
    shape = torch.broadcast_shapes(one.shape, other.shape)
    a, b = torch.broadcast_tensors(*map(core, _same_dims(one.numbers, other.numbers)))
    if torch.equal(a, b):
        numbers = a
    else:
        both, where = torch.stack([a.flatten(), b.flatten()]).unique(dim=1, return_inverse=True)
        found = [supports.joined(x, y, reason, keep_first=keep_first) for x, y in both.T.tolist()]
        numbers = torch.tensor(found, dtype=torch.int32)[where].view(a.shape)
    images = torch.bitwise_or(*map(core, _same_dims(one.images, other.images)))
    sources = one.sources | other.sources
    return Value(repeated(numbers).expand(shape), repeated(images).expand(shape), sources)


def mixed(supports: Supports, value: Value, dims: Iterable[int], reason: Reason) -> Value:
    """Return the value of an operation that mixes entries along dimensions; they keep size 1."""
    over = sorted({dim % len(value.shape) for dim in dims})
    keep = [dim for dim in range(len(value.shape)) if dim not in over]
    shape = [1 if dim in over else size for dim, size in enumerate(value.shape)]
    small = core(value.numbers)
    rest = [small.shape[dim] for dim in keep]
    rows = small.permute(*keep, *over).reshape(prod(rest), -1)
    if rows.shape[1] > 1:
        # Rows of the same contents become one number, whatever the order of their entries.
        different, where = rows.sort(dim=1).values.unique(dim=0, return_inverse=True)
        found = [supports.mixture(set(row), reason) for row in different.tolist()]
        rows = torch.tensor(found, dtype=torch.int32)[where]
    numbers = rows.reshape([1 if dim in over else small.shape[dim] for dim in range(small.dim())])
    images = merged_images(value.images, over)
    return Value(repeated(numbers).expand(shape), images.expand(shape), value.sources)


def merged_images(images: Tensor, dims: Iterable[int]) -> Tensor:
    """Return the images that any entry along dimensions depends on; they keep size 1."""
    small = core(images)
    for dim in dims:
        parts = small.split(1, dim)
        small = reduce(torch.bitwise_or, parts)
    return repeated(small)


def _same_dims(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    dims = max(one.dim(), other.dim())
    return one[(None,) * (dims - one.dim())], other[(None,) * (dims - other.dim())]
