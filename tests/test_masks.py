"""Masks prune what was asked, to the weight block, and never more of a layer than its limit."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mint.errors import InputError
from mint.information import contiguous_groups
from mint.masks import BlockScores, Masks, PruningOrder, prune


def _scores(
    seed: int, *, children: int, parents: int, groups: tuple[int, int], levels: int = 10**9
) -> BlockScores:
    value = np.random.default_rng(seed).integers(levels, size=groups).astype(float)
    return BlockScores(
        value, contiguous_groups(children, groups[0]), contiguous_groups(parents, groups[1])
    )


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
def test_fraction_is_exact_where_blocks_allow(fraction: float) -> None:
    scores = {"fc2.weight": _scores(1, children=300, parents=500, groups=(20, 20), levels=44)}
    masks = prune(scores, fraction, upper_limit=None, generator=_generator())
    assert masks.pruned == round(fraction * 150000)
    assert masks.counted == 150000


@pytest.mark.parametrize("seed", range(20))
def test_limit_holds_to_the_weight_in_every_layer(seed: int) -> None:
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
    order = PruningOrder(scores, upper_limit=limit, generator=_generator())
    masks = order.masks(len(order.pruned) - 1)
    for name, mask in masks.items():
        pruned = mask.size - int(mask.sum())
        assert pruned <= limit * mask.size
        # And no block that is left would have fitted next.
        assert pruned + int(scores[name].sizes.max()) > limit * mask.size
    assert masks.pruned == order.pruned[-1]


def test_masks_of_one_order_are_nested_and_follow_the_scores() -> None:
    scores = {
        "a.weight": _scores(3, children=30, parents=40, groups=(7, 9)),
        "b.weight": _scores(4, children=20, parents=30, groups=(6, 7)),
    }
    order = PruningOrder(scores, upper_limit=0.6, generator=_generator())
    before = order.masks(0)
    assert before.pruned == 0
    highest = dict.fromkeys(scores, -np.inf)
    for blocks in range(1, len(order.pruned)):
        masks = order.masks(blocks)
        assert masks.pruned == order.pruned[blocks] > before.pruned
        for name, mask in masks.items():
            assert not np.any(mask & ~before[name])
            if np.any(mask != before[name]):
                layer = scores[name]
                row, column = np.argwhere(mask != before[name])[0]
                score = layer.value[layer.child_labels[row], layer.parent_labels[column]]
                assert score >= highest[name]
                highest[name] = score
        before = masks


def test_equal_scores_do_not_favour_a_position() -> None:
    scores = {
        "w": BlockScores(np.zeros((20, 20)), contiguous_groups(20, 20), contiguous_groups(20, 20))
    }
    order = PruningOrder(scores, upper_limit=None, generator=_generator())
    kept = order.masks(200)["w"].astype(int)
    assert kept.sum(0).min() > 0
    assert kept.sum(1).min() > 0
    again = PruningOrder(scores, upper_limit=None, generator=_generator())
    assert again.masks(200).digest == order.masks(200).digest


def test_decimal_limits_are_meant_as_written() -> None:
    scores = {"w": _scores(0, children=300, parents=500, groups=(300, 500))}
    order = PruningOrder(scores, upper_limit=0.7, generator=_generator())
    assert order.pruned[-1] == 105000  # 0.7 * 150000 is 104999.99999999999 in floating point


def test_masks_come_back_from_disk(tmp_path: Path) -> None:
    masks = Masks({"w": np.eye(5, dtype=bool), "v": np.ones((2, 3), bool)})
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert loaded.digest == masks.digest
    assert loaded.pruned == 20
    assert loaded.counted == 31
    zeros = [int((t == 0).sum()) for t in _tensors(tmp_path / "masks.safetensors")]
    assert loaded.params_pruned == 100 * sum(zeros) / 31


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        Masks.load(path)
    safetensors.numpy.save_file({"w": np.full((2, 2), 2, np.uint8)}, path)
    with pytest.raises(InputError, match="other than 0 and 1"):
        Masks.load(path)
    with pytest.raises(TypeError, match="booleans"):
        Masks({"w": np.ones((2, 2), np.uint8)})


def _tensors(path: Path) -> list[np.ndarray]:
    return list(safetensors.numpy.load_file(path).values())
