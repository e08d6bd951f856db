"""Masks prune what was asked, to the weight block, and never more of a layer than its limit."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from mint.errors import InputError
from mint.gmi.estimator import contiguous_groups
from mint.pruning.masks import BlockScores, Masks, PruningOrder, held_at_zero


def _scores(
    seed: int, *, children: int, parents: int, groups: tuple[int, int], levels: int = 10**9
) -> BlockScores:
    value = np.random.default_rng(seed).integers(levels, size=groups).astype(float)
    return BlockScores(
        value, contiguous_groups(children, groups[0]), contiguous_groups(parents, groups[1])[None]
    )


def _order(scores: dict[str, BlockScores], limit: float | None = None) -> PruningOrder:
    return PruningOrder(scores, limits=dict.fromkeys(scores, limit), generator=_generator())


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
    order = _order(scores)
    masks = order.masks(order.blocks_within(fraction, 150000))
    assert masks.pruned == round(fraction * 150000)
    assert masks.prunable == order.prunable == 150000


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
    order = _order(scores, limit)
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
    order = _order(scores, 0.6)
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
                score = layer.value[layer.child_labels[row], layer.parent_labels[0, column]]
                assert score >= highest[name]
                highest[name] = score
        before = masks


def test_equal_scores_do_not_favour_a_position() -> None:
    scores = {
        "w": BlockScores(
            np.zeros((20, 20)), contiguous_groups(20, 20), contiguous_groups(20, 20)[None]
        )
    }
    order = _order(scores)
    kept = order.masks(200)["w"].astype(int)
    assert kept.sum(0).min() > 0
    assert kept.sum(1).min() > 0
    again = _order(scores)
    assert again.masks(200).digest == order.masks(200).digest


def test_decimal_limits_are_meant_as_written() -> None:
    scores = {"w": _scores(0, children=300, parents=500, groups=(300, 500))}
    order = _order(scores, 0.7)
    assert order.pruned[-1] == 105000  # 0.7 * 150000 is 104999.99999999999 in floating point


def test_layers_have_limits_of_their_own() -> None:
    scores = {
        "a": _scores(1, children=20, parents=20, groups=(20, 20)),
        "b": _scores(2, children=20, parents=20, groups=(20, 20)),
        "c": _scores(3, children=20, parents=20, groups=(20, 20)),
    }
    limits = {"a": 0.25, "b": None, "c": 0.0}
    order = PruningOrder(scores, limits=limits, generator=_generator())
    masks = order.masks(len(order.pruned) - 1)
    assert [int((~masks[name]).sum()) for name in "abc"] == [100, 400, 0]


def test_kernels_and_flattened_filters_go_as_a_whole() -> None:
    value = np.array([[0.0, 1.0], [2.0, 3.0]])
    conv = BlockScores(value, np.array([0, 1, 1]), np.array([[0, 1, 1, 1]]), kernel=(3, 3))
    assert conv.sizes.tolist() == [[9, 27], [18, 54]]
    linear = BlockScores(value, np.array([0, 1, 1]), np.array([[0, 0, 0, 1, 1, 1]]))
    order = _order({"conv": conv, "linear": linear})
    masks = order.masks(order.blocks_within(0.5, order.prunable))
    assert masks["conv"].shape == (3, 4, 3, 3)
    assert np.all(masks["conv"] == masks["conv"][:, :, :1, :1])
    assert not masks["conv"][0].any()
    assert masks["linear"][0].tolist() == [False] * 6
    assert masks.pruned == order.pruned[order.blocks_within(0.5, order.prunable)]


def test_blocks_that_a_grouped_convolution_does_not_have_are_never_pruned() -> None:
    # Two groups: filters 0 and 1 read parents 0 and 1, filters 2 and 3 read parents 2 and 3.
    columns = np.array([[0, 1], [0, 1], [2, 3], [2, 3]])
    scores = BlockScores(np.zeros((4, 4)), np.arange(4), columns, kernel=(3,))
    assert scores.sizes.sum() == 4 * 2 * 3
    order = _order({"w": scores})
    assert len(order.pruned) - 1 == 8
    assert np.all(np.diff(order.pruned) == 3)
    assert not order.masks(8)["w"].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (2, 2), (3, 5), (6, 6)])
@pytest.mark.parametrize(("seed", "low"), [(0, False), (1, False), (2, True)])
def test_floor_keeps_a_block_of_every_group_while_it_can(
    shape: tuple[int, int], seed: int, low: bool
) -> None:
    value = np.random.default_rng(seed).random(shape)
    if low:
        value[0] = value[:, 0] = -1  # a child and a parent that everyone would cut off first
    scores = BlockScores(value, np.arange(shape[0]), np.arange(shape[1])[None])
    order = PruningOrder(
        {"w": scores}, limits={"w": None}, generator=np.random.default_rng(0), floor=True
    )
    assert order.pruned[-1] == value.size
    cut_off = []
    for blocks in range(value.size + 1):
        kept = order.masks(blocks)["w"]
        assert kept.sum() == value.size - blocks
        cut_off.append((~kept.any(1)).sum() + (~kept.any(0)).sum())
    # No kept block could go without cutting off a group once one had to be cut off.
    lost = np.diff(cut_off)
    assert (np.diff(lost) >= 0).all()
    first = int(np.argmax(np.array(cut_off) > 0)) - 1
    kept = order.masks(first)["w"]
    alone = kept & ((kept.sum(1, keepdims=True) == 1) | (kept.sum(0, keepdims=True) == 1))
    assert (alone == kept).all()
    # Where nothing would be cut off, the floor changes nothing: the lowest goes.
    if min(shape) > 1:
        lowest = np.unravel_index(value.argmin(), shape)
        assert not order.masks(1)["w"][lowest] or low


def test_floor_of_blocks_without_weights() -> None:
    columns = np.array([[0], [0], [1], [1]])  # a grouped convolution: each child reads one
    scores = BlockScores(np.arange(8.0).reshape(4, 2), np.arange(4), columns)
    order = PruningOrder(
        {"w": scores}, limits={"w": 0.5}, generator=np.random.default_rng(0), floor=True
    )
    # Any of the four blocks that have weights cuts off its child; two leave each parent a reader.
    assert order.masks(2)["w"].ravel().tolist() == [False, True, False, True]


def test_masks_of_another_network_are_refused() -> None:
    network = nn.Sequential(OrderedDict(first=nn.Linear(3, 2), second=nn.Linear(2, 2)))
    Masks({"second.weight": np.ones((2, 2), bool)}).check_fit(network)
    with pytest.raises(InputError, match=r"no weight secon\.weight; did you mean second\.weight"):
        Masks({"secon.weight": np.ones((2, 2), bool)}).check_fit(network)
    with pytest.raises(InputError, match=r"first\.weight is 2 x 2, .* weight is 2 x 3"):
        Masks({"first.weight": np.ones((2, 2), bool)}).check_fit(network)


def test_masks_come_back_from_disk(tmp_path: Path) -> None:
    masks = Masks({"w": np.eye(5, dtype=bool), "v": np.ones((2, 3), bool)})
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert loaded.digest == masks.digest
    assert loaded.pruned == 20
    assert loaded.prunable == 31
    zeros = [int((t == 0).sum()) for t in _tensors(tmp_path / "masks.safetensors")]
    assert sum(zeros) == 20


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


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
    ],
)
def test_masks_hold_in_any_training_loop_and_let_go_behind_it(
    optimizer: Callable[..., torch.optim.Optimizer], settings: dict[str, float]
) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    network.get_parameter("0.weight").requires_grad_(False)
    weights = {name: network.get_parameter(name) for name in ("0.weight", "2.weight")}
    random = np.random.default_rng(0)
    masks = Masks({name: random.random(tuple(w.shape)) < 0.5 for name, w in weights.items()})

    def train() -> None:
        trained = optimizer(network.parameters(), lr=0.01, **settings)
        for _ in range(5):
            trained.zero_grad()
            inputs = torch.randn(16, 8, generator=generator)
            network(inputs).square().sum().backward()
            trained.step()

    with held_at_zero(network, masks):
        begun = weights["2.weight"].detach().clone()
        train()
        for name, mask in masks.items():
            assert np.array_equal(weights[name].detach().numpy() != 0, mask)
        moved = (weights["2.weight"] != begun).numpy()
        assert np.array_equal(moved, masks["2.weight"])
    train()
    assert (weights["2.weight"] != 0).all()


def test_masks_of_another_network_are_put_on_none() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    weight = network.get_parameter("0.weight")
    masks = {"0.weight": np.zeros((3, 4), bool), "1.weight": np.zeros((2, 4), bool)}
    refused = pytest.raises(InputError, match=r"that of 1\.weight is 2 x 4, where .* is 2 x 3")
    with refused, held_at_zero(network, masks):
        pass
    assert (weight != 0).all()
