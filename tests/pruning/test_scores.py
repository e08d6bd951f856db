"""Scores survive their file, and know the weights of their blocks."""

from pathlib import Path

import numpy as np

from mint.pruning.scores import BlockScores, load_scores, save_scores

VALUE = np.array([[0.0, 1.0], [2.0, 3.0]])
BOOTSTRAPPED = BlockScores(
    VALUE,
    np.array([0, 1, 1]),
    np.array([[0, 1, 1, 1]]),
    kernel=(3, 3),
    reliability=0.5,
    standard_error=VALUE / 10,
    z_score=VALUE + 1,
    bootstraps=np.stack([VALUE, VALUE]),
)
PLAIN = BlockScores(VALUE, np.array([0, 1]), np.array([[0, 0, 1]]))


def test_scores_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    scores = {"layer.conv.weight": BOOTSTRAPPED, "fc.weight": PLAIN}
    save_scores(path, scores, rows=np.arange(4))
    loaded = load_scores(path)
    assert list(loaded) == list(scores)
    conv, linear = loaded.values()
    assert (conv.kernel, conv.reliability, linear.kernel) == ((3, 3), 0.5, ())
    assert np.isnan(linear.reliability)
    assert linear.standard_error is linear.z_score is linear.bootstraps is None
    for name in ("value", "child_labels", "parent_labels", "standard_error", "bootstraps"):
        np.testing.assert_array_equal(getattr(conv, name), getattr(BOOTSTRAPPED, name))
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["rows"], np.arange(4))
        np.testing.assert_array_equal(arrays["layer.conv.weight/value"], VALUE)


def test_sizes_and_masks_of_blocks_with_kernels() -> None:
    np.testing.assert_array_equal(BOOTSTRAPPED.sizes, [[9, 27], [18, 54]])
    mask = BOOTSTRAPPED.expand(np.array([[True, False], [False, True]]))
    assert mask.shape == (3, 4, 3, 3)
    np.testing.assert_array_equal(mask[:, :, 1, 2], [[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]])
    assert (mask == mask[:, :, :1, :1]).all()


def test_positions_of_a_kernel_can_be_blocks() -> None:
    positions = np.arange(4).reshape(1, 1, 2, 2)
    scores = BlockScores(np.zeros((3, 4)), np.arange(3), positions, kernel=(2, 2))
    np.testing.assert_array_equal(scores.sizes, np.ones((3, 4)))
    kept = np.ones((3, 4), bool)
    kept[1, 2] = False
    np.testing.assert_array_equal(scores.expand(kept)[1, 0], [[1, 1], [0, 1]])
