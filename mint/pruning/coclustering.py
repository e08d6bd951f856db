"""Balanced co-clustering: groups of filters such that few blocks hold most of the weights' energy.

The energy of a weight is its square, summed over the kernel. For each pair of layers a matching
gives every group of the side with more groups one group of the other side. A matched block counts
as often as it would be kept if one block a group were kept, then half as many, and so on down to
one: heavier blocks count more. The groups maximise that sum over all pairs, in which each layer's
energy is 1. An optimal assignment regroups the filters of one layer while all others stay, layer
after layer, until a round gains less than a thousandth. A layer that is the parent in one pair and
the child in another has one grouping, which counts in both.

The first pair of layers starts from heavy submatrices, found one after another (Shabalin et al.,
Finding Large Average Submatrices in High Dimensional Data, Annals of Applied Statistics 2009); the
layers behind it start from the groups that they are paired with. Nothing is drawn at random, and
the order of the filters does not matter.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mint.gmi.estimator import contiguous_groups

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_Layer = TypeVar("_Layer", bound=Hashable)

_MOST_ROUNDS = 30
_LEAST_GAIN = 1e-3


class Energy(NamedTuple, Generic[_Layer]):
    """The energy of the weights between two layers: (child filters, parent filters)."""

    child: _Layer
    parent: _Layer
    values: Floats


def cocluster(
    energies: Sequence[Energy[_Layer]], groups: Mapping[_Layer, int]
) -> dict[_Layer, Labels]:
    """Return the group of every filter of each layer.

    Args:
        energies: of all pairs of layers, in forward order.
        groups: numbers of groups of the layers; sizes are those of contiguous groups.
    """
    energies = [each._replace(values=_shares(each.values)) for each in energies]
    labels = _start(energies, groups)
    best, most = dict(labels), 0.0
    for _ in range(_MOST_ROUNDS):
        counts = [_counts(block) for block in _blocks(energies, labels, groups)]
        for layer, own in labels.items():
            benefit = np.zeros((len(own), groups[layer]))
            for (child, parent, values), count in zip(energies, counts, strict=True):
                if layer == child:
                    benefit += _sums(values.T, labels[parent], groups[parent]).T @ count.T
                if layer == parent:
                    benefit += _sums(values, labels[child], groups[child]).T @ count
            labels[layer] = _assign(benefit)
        blocks = _blocks(energies, labels, groups)
        reached = sum(float((block * _counts(block)).sum()) for block in blocks)
        if reached > most:
            best = dict(labels)
        if reached <= most * (1 + _LEAST_GAIN):
            break
        most = reached
    return best


def _start(
    energies: Sequence[Energy[_Layer]], groups: Mapping[_Layer, int]
) -> dict[_Layer, Labels]:
    labels: dict[_Layer, Labels] = {}
    for child, parent, values in energies:
        if child not in labels and parent not in labels:
            labels[child] = _heavy_submatrices(values, groups[child])
        for layer, other, own in ((parent, child, values.T), (child, parent, values)):
            if layer not in labels:
                by_group = _sums(own.T, labels[other], groups[other]).T
                labels[layer] = _regroup(_assign(by_group), by_group, groups[layer])
    return labels


def _heavy_submatrices(values: Floats, groups: int) -> Labels:
    """Return the submatrix of each row: disjoint ones, of the largest sums that are found."""
    rows, columns = values.shape
    heights, widths = _sizes(rows, groups), _sizes(columns, groups)
    labels = np.full(rows, -1)
    free = np.ones(columns, np.bool_)
    for group in range(groups):
        left_rows, left_columns = np.flatnonzero(labels < 0), np.flatnonzero(free)
        left = values[np.ix_(left_rows, left_columns)]
        chosen, largest = left.sum(1).argmax()[None], -1.0
        while True:
            wide = _largest(left[chosen].sum(0), widths[group])
            high = _largest(left[:, wide].sum(1), heights[group])
            if (found := float(left[np.ix_(high, wide)].sum())) <= largest:
                break
            chosen, largest = high, found
        labels[left_rows[chosen]] = group
        free[left_columns[wide]] = False
    return labels


def _regroup(labels: Labels, by_group: Floats, groups: int) -> Labels:
    """Return another number of groups, of the old ones in order, each by falling energy."""
    own = by_group[np.arange(len(labels)), labels]
    regrouped = np.empty_like(labels)
    regrouped[np.lexsort((-own, labels))] = contiguous_groups(len(labels), groups)
    return regrouped


def _counts(blocks: Floats) -> Floats:
    """Return how often each block counts; 0 for those outside the matching."""
    children, parents = blocks.shape
    if children < parents:
        return _counts(blocks.T).T
    matched = np.arange(children), _assign(blocks)
    kept = children // 2 ** np.arange(children.bit_length())
    rank = np.argsort(np.argsort(-blocks[matched], kind="stable"))
    counts = np.zeros_like(blocks)
    counts[matched] = (rank[:, None] < kept).sum(1)
    return counts


def _blocks(
    energies: Sequence[Energy[_Layer]],
    labels: Mapping[_Layer, Labels],
    groups: Mapping[_Layer, int],
) -> list[Floats]:
    """Return the energy of every block of each pair."""
    return [
        _sums(_sums(values, labels[child], groups[child]).T, labels[parent], groups[parent]).T
        for child, parent, values in energies
    ]


def _sums(rows: Floats, labels: Labels, groups: int) -> Floats:
    """Return the sum of the rows of every group."""
    return np.equal.outer(np.arange(groups), labels).astype(np.float64) @ rows


def _assign(benefit: Floats) -> Labels:
    """Return the group of every row, of the largest sum of benefits (rows, groups)."""
    slots = contiguous_groups(*benefit.shape)
    return slots[linear_sum_assignment(benefit[:, slots], maximize=True)[1]]


def _sizes(filters: int, groups: int) -> Labels:
    return np.bincount(contiguous_groups(filters, groups), minlength=groups)


def _largest(values: Floats, number: int) -> Labels:
    return np.argsort(-values, kind="stable")[:number]


def _shares(values: Floats) -> Floats:
    total = values.sum()
    return values / total if total > 0 else values
