"""Figures of seed groups as text: no finer than the test images allow."""

import pytest
from trial_rows import finished_row, searched_row, table, with_accuracy

from mint.reporting.aggregate import SeedGroup, format_mean
from mint.reporting.protocols import protocols_of


def _group(*rows: dict) -> SeedGroup:  # type: ignore[type-arg]
    ((group,),) = (protocol.groups for protocol in protocols_of(table(*rows)))
    return group


@pytest.mark.parametrize(
    ("values", "text"),
    [([98.0], "98.00"), ([98.0, 98.0], "98.00 ± < 0.28"), ([97.0, 99.0], "98.00 ± 1.41")],
)
def test_standard_deviation_is_not_below_one_image(values: list[float], text: str) -> None:
    assert format_mean(values, 100 / 360) == text


def test_accuracy_has_the_resolution_of_its_images_and_a_share_has_none() -> None:
    rows = [
        with_accuracy(finished_row(fraction=0.9, seed=seed), 97.5) | {"test_images": images}
        for seed, images in ((0, 360), (1, 10000))
    ]
    group = _group(*rows)
    assert group.mean("accuracy") == "97.50 ± < 0.28"
    assert group.mean("params_pruned") == "90.00 ± 0.00"
    assert group.mean("dense_accuracy") == "not run"


def test_share_of_one_search_has_the_interval_of_its_own_retrainings() -> None:
    rows = [searched_row(share=98.5, seed=0), searched_row(share=98.7, seed=1)]
    assert _group(rows[0]).share == "98.50 [98.20, 98.80]"
    assert _group(*rows).share == "98.60 ± 0.14"


def test_other_margins_are_other_seed_groups() -> None:
    rows = [searched_row(share=98.5), searched_row(share=99.2) | {"margin": 1.0, "key": "x"}]
    (protocol,) = protocols_of(table(*rows))
    assert [group.margin for group in protocol.groups] == [0.5, 1.0]
    assert "to a drop of 0.5 points" in protocol.groups[0].summary
