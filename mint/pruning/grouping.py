"""Which filters are in which group: the one place that decides it, for all criteria alike.

A grouping divides the filters of each layer, or the features of the input, into groups whose sizes
differ by at most one. Layers whose filters are added, as in a residual network, share one grouping
if they have as many groups: filter k of each of them is then in the same group. The heads of an
attention are the groups of the filters that its output projection reads.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.config.axes import Grouping
from mint.gmi.estimator import contiguous_groups
from mint.models.layers import LayerPair, Traced
from mint.pruning.coclustering import Energy, cocluster
from mint.rng import stream

Labels = NDArray[np.int64]


class PairGroups(NamedTuple):
    """The group of every child filter and of every parent filter of a layer pair."""

    child: Labels
    parent: Labels


class _Filters(NamedTuple):
    """Filters that have one grouping: those of a layer, and of all layers that it is added to."""

    layer: str
    number: int
    groups: int


def group_filters(
    grouping: Grouping,
    traced: Traced,
    pairs: Sequence[LayerPair],
    groups_of: Callable[[str, int], int],
    seed: int,
) -> dict[str, PairGroups]:
    """Return the groups of each pair, by the name of the weight that it prunes.

    Args:
        grouping: contiguous groups have neighbours, random ones any filters, and clustered ones
            those that share large weights with a group of the other layer (weights alone decide,
            see mint.pruning.coclustering).
        traced: the trained network.
        pairs: in forward order.
        groups_of: returns the number of groups for a layer's name and number of filters.
        seed: of random groups.
    """

    def filters(layer: str, number: int) -> _Filters:
        return _Filters(traced.tied.get(layer, layer), number, groups_of(layer, number))

    sides = {
        pair: (filters(pair.child, pair.child_filters), filters(pair.parent, pair.parent_filters))
        for pair in pairs
    }
    labels = {each: contiguous_groups(*each[1:]) for both in sides.values() for each in both}
    if grouping == "random":
        for each, own in labels.items():
            labels[each] = stream(seed, f"random groups of {each.layer}").permutation(own)
    if grouping == "clustered":
        energies = [
            Energy(*both, _energy(traced, pair))
            for pair, both in sides.items()
            if pair.heads is None
        ]
        labels |= cocluster(energies, {each: each.groups for each in labels})
    return {
        pair.weight: PairGroups(
            labels[child], labels[parent] if pair.heads is None else np.array(pair.heads)
        )
        for pair, (child, parent) in sides.items()
    }


def _energy(traced: Traced, pair: LayerPair) -> NDArray[np.float64]:
    """Return the squared weights between filters, summed: (child filters, parent filters)."""
    weight = traced.network.get_parameter(pair.weight).detach().cpu().double().numpy()
    weight = weight.swapaxes(0, 1) if pair.transposed else weight
    by_column = (weight**2).reshape(*weight.shape[:2], -1).sum(2)
    energy = np.zeros((pair.child_filters, pair.parent_filters))
    np.add.at(energy, (np.arange(pair.child_filters)[:, None], pair.columns()), by_column)
    return energy


def save_groups(path: Path, groups: Mapping[str, PairGroups]) -> None:
    """Write groups by the weight's name as .npz: arrays WEIGHT/child and WEIGHT/parent."""
    children = {f"{weight}/child": both.child for weight, both in groups.items()}
    parents = {f"{weight}/parent": both.parent for weight, both in groups.items()}
    np.savez(path, allow_pickle=False, **children, **parents)


def load_groups(path: Path) -> dict[str, PairGroups]:
    """Return the groups that save_groups wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        weights = dict.fromkeys(name.rpartition("/")[0] for name in arrays)
        sides = {
            weight: (arrays[f"{weight}/child"], arrays[f"{weight}/parent"]) for weight in weights
        }
    return {weight: PairGroups(*both) for weight, both in sides.items()}
