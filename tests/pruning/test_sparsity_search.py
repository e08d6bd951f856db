"""The search finds the last step that holds, in few probes, and returns only what it saw pass."""

import numpy as np
import pytest

from mint.pruning.sparsity_search import largest_passing


def _search(pruned: list[int], last: int, probes: int, *, limited: bool) -> tuple[int, list[int]]:
    tried: list[int] = []

    def passes(step: int) -> bool:
        tried.append(step)
        return step <= last

    found = largest_passing(np.array(pruned), 400, passes, probes=probes, try_last_first=limited)
    return found, tried


@pytest.mark.parametrize("last", [0, 1, 5, 200, 380, 396, 398, 399])
def test_enough_probes_find_the_very_step(last: int) -> None:
    found, tried = _search(list(range(401)), last, 100, limited=False)
    assert found == last
    assert len(tried) <= 18
    assert 400 not in tried


@pytest.mark.parametrize("last", [300, 340, 384, 392])
def test_six_probes_come_close_on_the_kept_scale(last: int) -> None:
    found, tried = _search(list(range(401)), last, 6, limited=False)
    assert len(tried) <= 6
    assert found <= last
    assert (400 - found) / (400 - last) < 1.2


def test_a_limit_that_holds_takes_one_probe() -> None:
    assert _search(list(range(321)), 400, 6, limited=True) == (320, [320])


def test_a_limit_that_fails_is_searched_below() -> None:
    found, tried = _search(list(range(321)), 250, 100, limited=True)
    assert found == 250
    assert tried[0] == 320


def test_nothing_to_prune() -> None:
    assert _search([0], 0, 6, limited=True) == (0, [])
    assert _search([0, 400], 400, 6, limited=False) == (0, [])


def test_what_is_returned_was_seen_to_pass() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        verdicts: dict[int, bool] = {}

        def passes(step: int, verdicts: dict[int, bool] = verdicts) -> bool:
            assert step not in verdicts
            verdicts[step] = bool(generator.integers(2))
            return verdicts[step]

        found = largest_passing(
            np.arange(401), 400, passes, probes=6, try_last_first=bool(generator.integers(2))
        )
        assert found == max([0, *(step for step, passed in verdicts.items() if passed)])
