"""Effects are paired by seed over all settings that share the rest, and leave out bounds."""

import pytest
from trial_rows import finished_row, searched_row, table, with_accuracy

from mint.reporting.comparison import effects_of_axes, effects_of_criteria
from mint.reporting.protocols import protocols_of


def test_effect_of_a_criterion_is_the_mean_over_settings() -> None:
    gains = {(0.8, 0): 1.0, (0.8, 1): 2.0, (0.8, 2): 3.0, (0.9, 0): 3.0, (0.9, 1): 2.0}
    gains[0.9, 2] = 4.0
    rows = [
        with_accuracy(
            finished_row(criterion=name, fraction=fraction, seed=seed),
            90 + 2 * seed + gain * (name == "mint"),
        )
        for (fraction, seed), gain in gains.items()
        for name in ("mint", "random")
    ]
    (protocol,) = protocols_of(table(*rows))
    (effect,) = effects_of_criteria(protocol.groups)
    assert (effect.low, effect.high, effect.of.share) == ("random", "mint", None)
    assert effect.of.accuracy is not None
    assert effect.of.accuracy.mean == pytest.approx(2.5)  # of 2, 2 and 3.5
    assert effect.of.accuracy.seeds == 3
    assert effect.of.accuracy.error == pytest.approx(0.5)


def test_effect_of_groups_is_that_of_the_share_under_each_retraining() -> None:
    rows = [
        searched_row(share=90 + groups / 10 + seed * groups / 100, groups=groups, seed=seed, **more)
        for groups in (5, 10, 20)
        for seed in (0, 1, 2)
        for more in ({}, {"retraining": "light"})
    ]
    (protocol,) = protocols_of(table(*rows))
    found = effects_of_axes(protocol.groups)
    assert [(each.retraining, each.axis, each.low, each.high) for each in found] == [
        *(("full", "groups", "5", "10"), ("full", "groups", "5", "20")),
        *(("light", "groups", "5", "10"), ("light", "groups", "5", "20")),
    ]
    assert [each.of.share and each.of.share.mean for each in found[:2]] == [
        *(pytest.approx(0.55), pytest.approx(1.65)),
    ]


def test_a_share_that_a_limit_sets_is_a_bound_and_no_figure_to_compare() -> None:
    rows = [
        searched_row(share=80 + seed, criterion=name, seed=seed)
        | ({"share_bound": "limit"} if (name, seed) == ("random", 2) else {})
        for name in ("mint", "random")
        for seed in (0, 1, 2)
    ]
    (protocol,) = protocols_of(table(*rows))
    (effect,) = effects_of_criteria(protocol.groups)
    assert effect.of.share is not None
    assert effect.of.share.seeds == 2
    shown = {group.criterion: group.share for group in protocol.groups}
    assert shown == {"mint": "81.00 ± 1.00", "random": "≥ 81.00 ± 1.00"}
