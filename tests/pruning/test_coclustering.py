"""Co-clustering finds blocks that were planted, whatever the order of the filters."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from mint.gmi.estimator import contiguous_groups
from mint.pruning.coclustering import Energy, cocluster

Labels = NDArray[np.int64]


def planted(
    child: Labels, parent: Labels, matches: NDArray[np.bool_], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the energy of weights that are large in the matching blocks alone."""
    noise = generator.uniform(size=(len(child), len(parent)))
    return 0.1 * noise + matches[np.ix_(child, parent)] * generator.uniform(0.8, 1.2, noise.shape)


def shuffled(filters: int, groups: int, generator: np.random.Generator) -> Labels:
    return generator.permutation(contiguous_groups(filters, groups))


def same_groups(first: Labels, second: Labels) -> bool:
    """Return whether two groupings differ in the numbers of their groups alone."""
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second))


@pytest.mark.parametrize("groups", [(6, 6), (4, 12), (12, 4)])
def test_planted_blocks_are_found_exactly(groups: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    child, parent = shuffled(60, groups[0], generator), shuffled(96, groups[1], generator)
    # Every group of the side with more groups matches one of the other side.
    matched = tuple(np.arange(max(groups)) % number for number in groups)
    matches = np.zeros(groups, np.bool_)
    matches[matched] = True
    energy = Energy("child", "parent", planted(child, parent, matches, generator))
    found = cocluster([energy], {"child": groups[0], "parent": groups[1]})
    for labels, truth in ((found["child"], child), (found["parent"], parent)):
        # Groups that match the same group are alike: nothing tells their filters apart.
        alike = truth % min(groups)
        for group in range(labels.max() + 1):
            assert len(set(alike[labels == group])) == 1
    if groups[0] == groups[1]:
        assert same_groups(found["child"], child)
        assert same_groups(found["parent"], parent)


def test_a_layer_between_two_others_has_one_grouping_that_fits_both() -> None:
    generator = np.random.default_rng(1)
    sizes = {"first": 40, "middle": 60, "last": 30, "head": 10}
    truth = {name: shuffled(filters, 5, generator) for name, filters in sizes.items()}

    def energy(child: str, parent: str) -> Energy[str]:
        matches = np.eye(5, dtype=np.bool_)[generator.permutation(5)]
        return Energy(child, parent, planted(truth[child], truth[parent], matches, generator))

    energies = [energy("middle", "first"), energy("last", "middle"), energy("head", "last")]
    # The sum of the first layer and the last is read by another one: a loop.
    energies += [energy("first", "last")]
    found = cocluster(energies, dict.fromkeys(sizes, 5))
    assert {name: same_groups(found[name], labels) for name, labels in truth.items()} == (
        dict.fromkeys(sizes, True)
    )


def _heaviest(energy: NDArray[np.float64], found: Mapping[str, Labels], blocks: int) -> float:
    """Return the share of the energy in the heaviest blocks."""
    sums = np.zeros((found["child"].max() + 1, found["parent"].max() + 1))
    np.add.at(sums, (found["child"][:, None], found["parent"]), energy)
    return float(np.sort(sums.ravel())[-blocks:].sum() / energy.sum())


def test_blocks_of_random_weights_differ_more_in_any_order_of_the_filters() -> None:
    generator = np.random.default_rng(0)
    energy = generator.normal(size=(70, 110)) ** 2
    groups = {"child": 8, "parent": 8}
    found = cocluster([Energy("child", "parent", energy)], groups)
    for name, filters in (("child", 70), ("parent", 110)):
        np.testing.assert_array_equal(np.sort(found[name]), contiguous_groups(filters, 8))
    contiguous = {"child": contiguous_groups(70, 8), "parent": contiguous_groups(110, 8)}
    for blocks in (1, 4, 8):
        assert _heaviest(energy, found, blocks) > 1.5 * _heaviest(energy, contiguous, blocks)
    rows, columns = generator.permutation(70), generator.permutation(110)
    moved = cocluster([Energy("child", "parent", energy[rows][:, columns])], groups)
    np.testing.assert_array_equal(moved["child"], found["child"][rows])
    np.testing.assert_array_equal(moved["parent"], found["parent"][columns])


def test_layers_without_weights_are_grouped_too() -> None:
    found = cocluster([Energy("child", "parent", np.zeros((6, 9)))], {"child": 3, "parent": 3})
    assert {name: list(np.bincount(own)) for name, own in found.items()} == {
        "child": [2, 2, 2],
        "parent": [3, 3, 3],
    }
