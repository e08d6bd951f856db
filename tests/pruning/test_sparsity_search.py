"""The search finds the largest passing number of blocks in few steps."""

import numpy as np
import pytest

from mint.pruning.sparsity_search import largest_passing


def _search(pruned: list[int], last: int, steps: int, *, limited: bool) -> tuple[int, list[int]]:
    tried: list[int] = []

    def passes(blocks: int) -> bool:
        tried.append(blocks)
        return blocks <= last

    found = largest_passing(np.array(pruned), 400, passes, steps=steps, try_last_first=limited)
    return found, tried


@pytest.mark.parametrize("last", [0, 1, 5, 200, 380, 396, 398, 399])
def test_enough_steps_find_the_last_passing_number(last: int) -> None:
    found, tried = _search(list(range(401)), last, 100, limited=False)
    assert found == last
    assert len(tried) <= 18
    assert 400 not in tried


@pytest.mark.parametrize("last", [300, 340, 384, 392])
def test_six_steps_come_close_in_kept_weights(last: int) -> None:
    found, tried = _search(list(range(401)), last, 6, limited=False)
    assert len(tried) <= 6
    assert found <= last
    assert (400 - found) / (400 - last) < 1.2


def test_a_passing_limit_takes_one_step() -> None:
    assert _search(list(range(321)), 400, 6, limited=True) == (320, [320])


def test_the_search_goes_below_a_failing_limit() -> None:
    found, tried = _search(list(range(321)), 250, 100, limited=True)
    assert found == 250
    assert tried[0] == 320


def test_nothing_to_prune() -> None:
    assert _search([0], 0, 6, limited=True) == (0, [])
    assert _search([0, 400], 400, 6, limited=False) == (0, [])


def test_the_result_was_tried_and_passed() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        verdicts: dict[int, bool] = {}

        def passes(blocks: int, verdicts: dict[int, bool] = verdicts) -> bool:
            assert blocks not in verdicts
            verdicts[blocks] = bool(generator.integers(2))
            return verdicts[blocks]

        found = largest_passing(
            np.arange(401), 400, passes, steps=6, try_last_first=bool(generator.integers(2))
        )
        assert found == max([0, *(blocks for blocks, passed in verdicts.items() if passed)])
