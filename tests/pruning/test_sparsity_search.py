"""The search finds where a drop of accuracy crosses the margin, in few retrainings."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from mint.pruning.sparsity_search import MarginCrossing, find_crossing

Drop = Callable[[float], float]


def _find(
    drop: Drop, *, blocks: int = 400, allowed: int | None = None, steps: int = 5, **options: float
) -> tuple[MarginCrossing, list[int]]:
    """Search among blocks of one weight; drop is a function of the pruned share."""
    tried: list[int] = []

    def drop_of(block: int) -> float:
        assert block not in tried
        tried.append(block)
        return drop(block / blocks)

    settings = {"dense_drop": 0.0, "margin": 0.5, "sd": 0.05} | options
    found = find_crossing(
        np.arange((blocks if allowed is None else allowed) + 1),
        blocks,
        drop_of,
        steps=steps,
        generator=np.random.default_rng(0),
        **settings,
    )
    return found, tried


def _log_line(at: float) -> Drop:
    """Return a drop that grows evenly with the logarithm of the kept share, 0.5 points at `at`."""
    return lambda share: 0.5 * math.log1p(-share) / math.log1p(-at)


@pytest.mark.parametrize("at", [0.3, 0.5, 0.8, 0.95, 0.985])
def test_a_line_is_found_exactly(at: float) -> None:
    found, tried = _find(_log_line(at))
    assert found.pruned == pytest.approx(400 * at, rel=1e-9)
    assert found.bound == ""
    assert len(tried) <= 5


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9, 0.98])
def test_a_cliff_is_found_closely(at: float) -> None:
    found, _ = _find(lambda share: 0.05 if share <= at else 40.0)
    assert (400 - found.pruned) / (400 - 400 * at) == pytest.approx(1, abs=0.3)


def test_noise_moves_the_crossing_by_less_than_half_a_point() -> None:
    generator = np.random.default_rng(1)
    # The drops of MNIST's MLP after twelve epochs of retraining, and their noise.
    kept = np.log([0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005])[::-1]
    drops = np.array([0.06, 0.09, 0.13, 0.22, 0.36, 0.5, 0.84, 1.7])[::-1]

    def noisy(share: float) -> float:
        return float(np.interp(math.log1p(-share), kept, drops) + 0.08 * generator.normal())

    found = [_find(noisy, sd=0.08)[0] for _ in range(60)]
    shares = np.array([crossing.pruned / 4 for crossing in found])
    assert shares.std(ddof=1) < 0.3
    assert shares.mean() == pytest.approx(98.5, abs=0.15)
    inside = [
        crossing.low <= 394 <= crossing.high
        for crossing in found
        if crossing.low is not None and crossing.high is not None
    ]
    assert np.mean(inside) > 0.8


def test_a_limit_that_binds_takes_one_step() -> None:
    found, tried = _find(_log_line(0.9), allowed=320)
    assert found == MarginCrossing(320, bound="limit")
    assert tried == [320]


def test_a_limit_that_does_not_bind_only_starts_the_search() -> None:
    found, tried = _find(_log_line(0.5), allowed=320)
    assert found.pruned == pytest.approx(200)
    assert tried[0] == 320


def test_a_margin_that_is_never_reached_gives_a_lower_bound() -> None:
    found, tried = _find(lambda share: 0.1, steps=3)
    assert (found.bound, found.low) == ("steps", None)
    assert found.pruned == max(tried)
    found, tried = _find(lambda share: 0.1, blocks=4)
    assert found == MarginCrossing(3, bound="limit")


def test_nothing_is_pruned_where_the_dense_network_drops_further() -> None:
    assert _find(_log_line(0.9), dense_drop=0.6) == (MarginCrossing(0, 0, 0), [])
    assert _find(_log_line(0.9), allowed=0) == (MarginCrossing(0, 0, 0), [])


def test_the_same_drops_give_the_same_crossing() -> None:
    assert _find(_log_line(0.9)) == _find(_log_line(0.9))


def test_the_interval_widens_with_the_noise() -> None:
    narrow, wide = (_find(_log_line(0.9), sd=sd)[0] for sd in (0.01, 0.1))
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.low < narrow.pruned < narrow.high
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
