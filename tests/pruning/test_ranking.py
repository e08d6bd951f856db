"""Blocks are pruned by score, to the requested fraction, within each layer's limit."""

import numpy as np
import pytest

from mint.errors import InputError
from mint.gmi.estimator import contiguous_groups
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores


def _scores(
    seed: int, *, children: int, parents: int, groups: tuple[int, int], levels: int = 10**9
) -> BlockScores:
    value = np.random.default_rng(seed).integers(levels, size=groups).astype(float)
    return BlockScores(
        value, contiguous_groups(children, groups[0]), contiguous_groups(parents, groups[1])[None]
    )


def _ranking(scores: dict[str, BlockScores], limit: float | None = None) -> BlockRanking:
    return BlockRanking(scores, limits=dict.fromkeys(scores, limit), generator=_generator())


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("groups", [1, 5, 20, 30, 40, 50, 299, 300])
def test_groups_hold_every_filter_once_and_evenly(groups: int) -> None:
    labels = contiguous_groups(300, groups)
    sizes = np.bincount(labels, minlength=groups)
    assert sizes.sum() == 300
    assert sizes.max() - sizes.min() <= 1
    assert np.all(np.diff(labels) >= 0)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.7, 0.75, 0.96, 1.0])
def test_a_fraction_is_exact_if_the_blocks_allow_it(fraction: float) -> None:
    scores = {"fc2.weight": _scores(1, children=300, parents=500, groups=(20, 20), levels=44)}
    ranking = _ranking(scores)
    masks = ranking.masks(ranking.blocks_within(fraction, 150000))
    assert masks.pruned == round(fraction * 150000)
    assert masks.prunable == ranking.prunable == 150000


@pytest.mark.parametrize("seed", range(20))
def test_a_limit_holds_exactly_in_every_layer(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = {
        f"{name}.weight": _scores(
            seed, children=int(c), parents=int(p), groups=(int(g), int(h)), levels=9
        )
        for name, c, p, g, h in zip(
            "abc",
            generator.integers(10, 40, 3),
            generator.integers(10, 40, 3),
            generator.integers(2, 10, 3),
            generator.integers(2, 10, 3),
            strict=True,
        )
    }
    limit = round(float(generator.uniform()), 3)
    ranking = _ranking(scores, limit)
    masks = ranking.masks(len(ranking.pruned) - 1)
    for name, mask in masks.items():
        pruned = mask.size - int(mask.sum())
        assert pruned <= limit * mask.size
        # No remaining block would have fitted.
        assert pruned + int(scores[name].sizes.max()) > limit * mask.size
    assert masks.pruned == ranking.pruned[-1]


def test_masks_are_nested_and_follow_the_scores() -> None:
    scores = {
        "a.weight": _scores(3, children=30, parents=40, groups=(7, 9)),
        "b.weight": _scores(4, children=20, parents=30, groups=(6, 7)),
    }
    ranking = _ranking(scores, 0.6)
    before = ranking.masks(0)
    assert before.pruned == 0
    highest = dict.fromkeys(scores, -np.inf)
    for blocks in range(1, len(ranking.pruned)):
        masks = ranking.masks(blocks)
        assert masks.pruned == ranking.pruned[blocks] > before.pruned
        for name, mask in masks.items():
            assert not np.any(mask & ~before[name])
            if np.any(mask != before[name]):
                layer = scores[name]
                row, column = np.argwhere(mask != before[name])[0]
                score = layer.value[layer.child_labels[row], layer.parent_labels[0, column]]
                assert score >= highest[name]
                highest[name] = score
        before = masks


def test_equal_scores_are_not_ordered_by_position() -> None:
    scores = {
        "w": BlockScores(
            np.zeros((20, 20)), contiguous_groups(20, 20), contiguous_groups(20, 20)[None]
        )
    }
    ranking = _ranking(scores)
    kept = ranking.masks(200)["w"].astype(int)
    assert kept.sum(0).min() > 0
    assert kept.sum(1).min() > 0
    again = _ranking(scores)
    assert again.masks(200).digest == ranking.masks(200).digest


def test_decimal_limits_are_exact() -> None:
    scores = {"w": _scores(0, children=300, parents=500, groups=(300, 500))}
    ranking = _ranking(scores, 0.7)
    assert ranking.pruned[-1] == 105000  # 0.7 * 150000 is 104999.99999999999 in floating point


def test_each_layer_has_its_own_limit() -> None:
    scores = {
        "a": _scores(1, children=20, parents=20, groups=(20, 20)),
        "b": _scores(2, children=20, parents=20, groups=(20, 20)),
        "c": _scores(3, children=20, parents=20, groups=(20, 20)),
    }
    limits = {"a": 0.25, "b": None, "c": 0.0}
    ranking = BlockRanking(scores, limits=limits, generator=_generator())
    masks = ranking.masks(len(ranking.pruned) - 1)
    assert [int((~masks[name]).sum()) for name in "abc"] == [100, 400, 0]


def test_kernels_and_flattened_filters_are_pruned_as_a_whole() -> None:
    value = np.array([[0.0, 1.0], [2.0, 3.0]])
    conv = BlockScores(value, np.array([0, 1, 1]), np.array([[0, 1, 1, 1]]), kernel=(3, 3))
    assert conv.sizes.tolist() == [[9, 27], [18, 54]]
    linear = BlockScores(value, np.array([0, 1, 1]), np.array([[0, 0, 0, 1, 1, 1]]))
    ranking = _ranking({"conv": conv, "linear": linear})
    masks = ranking.masks(ranking.blocks_within(0.5, ranking.prunable))
    assert masks["conv"].shape == (3, 4, 3, 3)
    assert np.all(masks["conv"] == masks["conv"][:, :, :1, :1])
    assert not masks["conv"][0].any()
    assert masks["linear"][0].tolist() == [False] * 6
    assert masks.pruned == ranking.pruned[ranking.blocks_within(0.5, ranking.prunable)]


def test_blocks_without_weights_are_never_pruned() -> None:
    # Two groups: filters 0 and 1 read parents 0 and 1, filters 2 and 3 read parents 2 and 3.
    columns = np.array([[0, 1], [0, 1], [2, 3], [2, 3]])
    scores = BlockScores(np.zeros((4, 4)), np.arange(4), columns, kernel=(3,))
    assert scores.sizes.sum() == 4 * 2 * 3
    ranking = _ranking({"w": scores})
    assert len(ranking.pruned) - 1 == 8
    assert np.all(np.diff(ranking.pruned) == 3)
    assert not ranking.masks(8)["w"].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (2, 2), (3, 5), (6, 6)])
@pytest.mark.parametrize(("seed", "low"), [(0, False), (1, False), (2, True)])
def test_keep_connected_keeps_a_block_of_every_group_while_it_can(
    shape: tuple[int, int], seed: int, low: bool
) -> None:
    value = np.random.default_rng(seed).random(shape)
    if low:
        value[0] = value[
            :, 0
        ] = -1  # by score alone, this child and parent would be disconnected first
    scores = BlockScores(value, np.arange(shape[0]), np.arange(shape[1])[None])
    ranking = BlockRanking(
        {"w": scores}, limits={"w": None}, generator=np.random.default_rng(0), keep_connected=True
    )
    assert ranking.pruned[-1] == value.size
    disconnected = []
    for blocks in range(value.size + 1):
        kept = ranking.masks(blocks)["w"]
        assert kept.sum() == value.size - blocks
        disconnected.append((~kept.any(1)).sum() + (~kept.any(0)).sum())
    # Once a group is disconnected, every remaining block is the last of a group.
    lost = np.diff(disconnected)
    assert (np.diff(lost) >= 0).all()
    first = int(np.argmax(np.array(disconnected) > 0)) - 1
    kept = ranking.masks(first)["w"]
    alone = kept & ((kept.sum(1, keepdims=True) == 1) | (kept.sum(0, keepdims=True) == 1))
    assert (alone == kept).all()
    # If no group would be disconnected, the lowest block is pruned first, as without the option.
    if min(shape) > 1:
        lowest = np.unravel_index(value.argmin(), shape)
        assert not ranking.masks(1)["w"][lowest] or low


def test_keep_connected_ignores_blocks_without_weights() -> None:
    columns = np.array([[0], [0], [1], [1]])  # a grouped convolution: each child reads one parent
    scores = BlockScores(np.arange(8.0).reshape(4, 2), np.arange(4), columns)
    ranking = BlockRanking(
        {"w": scores}, limits={"w": 0.5}, generator=np.random.default_rng(0), keep_connected=True
    )
    # Each of the four blocks with weights is the last of its child; two can be pruned while every
    # parent is still read.
    assert ranking.masks(2)["w"].ravel().tolist() == [False, True, False, True]


def test_a_score_that_is_not_a_number_is_refused() -> None:
    value = np.array([[0.5, np.nan], [0.1, 0.2]])
    scores = {"fc2.weight": BlockScores(value, np.arange(2), np.arange(2)[None])}
    with pytest.raises(InputError, match=r"fc2.weight: some are not a number"):
        BlockRanking(scores, limits={"fc2.weight": None}, generator=np.random.default_rng(0))
