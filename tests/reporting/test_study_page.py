"""What a study recommends, from losses that are known."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint.config.schema import TrialConfig
from mint.pruning.export import Exported
from mint.pruning.layer_table import LayerCount
from mint.reporting.study_page import Point, Study, share_within, study_page, write_study
from mint.trial.result import TrialKeys, TrialResult

DENSE = 95.0


def _trial(
    config: TrialConfig, criterion: str, share: float, seed: int, loss: float
) -> TrialResult:
    chosen = config.model_copy(
        update={"criterion": criterion, "fraction": share, "seed": seed, "retraining": "light"}
    )
    fields: Any = {
        "keys": TrialKeys(key=f"{criterion}-{share}-{seed}", protocol="p", method_version=2),
        "config": chosen,
        "params_pruned": 100 * share,
        "pruned_weights": round(150000 * share),
        "accuracy": DENSE - 2 * loss,
        "dense_accuracy": DENSE,
        "baseline_accuracy": DENSE,
        "validation_accuracy": DENSE - loss,
        "dense_validation_accuracy": DENSE,
        "test_images": 360,
        "layers": (LayerCount(name="fc2", parent="fc1", weights=185000, kept=None, reason=""),),
    }
    return TrialResult.model_construct(**fields)


def _study(
    config: TrialConfig, losses: dict[str, dict[float, list[float]]], loss: float = 2.0
) -> Study:
    trials = [
        _trial(config, criterion, share, seed, loss)
        for criterion, curve in losses.items()
        for share, seeds in curve.items()
        for seed, loss in enumerate(seeds)
    ]
    seeds = max(len(each) for curve in losses.values() for each in curve.values())
    return Study(trials, loss, seeds, {})


def test_recommended_is_the_largest_share_whose_interval_stays_within_the_loss(
    quick_trial: TrialConfig,
) -> None:
    sharp, wide = [-0.1, 0.0, 0.1], [-2.0, 0.0, 2.0]
    curve = {0.5: sharp, 0.9: sharp, 0.95: wide}
    best = _study(quick_trial, {"random": {0.5: sharp, 0.9: wide}, "mint": curve}).recommended
    assert best is not None
    assert best.criterion == "mint"
    assert best.pruned == pytest.approx(90)
    # A larger share counts only if all smaller ones are within the loss.
    assert _study(quick_trial, {"mint": {0.5: wide, 0.9: sharp}}).recommended is None


def test_of_equal_shares_the_smaller_validation_loss_wins_though_its_test_loss_is_larger(
    quick_trial: TrialConfig,
) -> None:
    study = _study(quick_trial, {"mint": {0.9: [0.0, 0.1, 0.2]}, "random": {0.9: [-0.1, 0.0, 0.1]}})
    trials = [
        trial.model_copy(update={"accuracy": 10.0}) if trial.config.criterion == "random" else trial
        for trial in study.trials
    ]
    best = Study(trials, 2.0, 3, {}).recommended
    assert best is not None
    assert best.criterion == "random"


def test_one_seed_is_judged_by_its_loss_and_the_page_says_so(quick_trial: TrialConfig) -> None:
    study = _study(quick_trial, {"mint": {0.5: [0.2], 0.9: [0.9], 0.98: [1.1]}}, 1.0)
    assert study.recommended is not None
    assert study.recommended.pruned == pytest.approx(90)
    page = study_page(study, ["Fact."])
    assert "There are too few seeds for an interval" in page
    assert "Left out, to stay within the budget: more seeds." in page


def test_no_share_within_the_loss_is_an_answer(quick_trial: TrialConfig) -> None:
    page = study_page(
        _study(quick_trial, {"mint": {0.5: [2.0, 2.1, 2.2], 0.9: [5, 6, 7]}}, 1.0), []
    )
    assert "**No measured share is certain to stay within a loss of 1 point.**" in page
    assert "50.00% by mint, loses 2.10 [" in page


def test_share_at_the_loss_is_interpolated_on_kept_weights(quick_trial: TrialConfig) -> None:
    # A loss that grows by 0.5 with each halving of the kept weights reaches 1 at a quarter.
    losses = {0.5: [0.5] * 3, 0.875: [1.5] * 3}
    (points,) = _study(quick_trial, {"mint": losses}).curves.values()
    assert share_within(points, 1.0).startswith("75.00")
    assert share_within(points, 2.0) == "above 87.50 for 3 of 3 seeds"


def test_pages_hold_the_picture_and_what_could_not_be_exported(
    quick_trial: TrialConfig, tmp_path: Path
) -> None:
    losses = {0.5: [-0.1, 0.0, 0.1], 0.9: [-0.1, 0.0, 0.1], 0.98: [4.0, 5.0, 6.0]}
    study = _study(quick_trial, {"mint": losses, "random": losses})
    small = Exported((1, 1, 8, 8), 1000, 100, 250, 2000, 400, 0.0, 2.0, 1.0, None)
    first = [trial.keys.key for trial in study.trials if trial.config.seed == 0]
    found: dict[str, Exported | str] = dict.fromkeys(first, small)
    found["random-0.98-0"] = "it cannot be traced"
    write_study(tmp_path, Study(study.trials, 2.0, 3, found, ("full retraining",)), ["Fact."])
    page, html = ((tmp_path / name).read_text() for name in ("STUDY.md", "study.html"))
    assert "has 25.0% of the weights and 20.0% of the multiply-adds, and takes 50.0%" in page
    assert "Not exported: it cannot be traced" in page
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert not re.search(r'src="(?!data:)', html)
    assert "<table>" in html
    assert "<h1>" in html


def test_a_point_without_interval_is_bounded_by_its_mean(quick_trial: TrialConfig) -> None:
    point = Point("mint", [_trial(quick_trial, "mint", 0.5, 0, 0.7)])
    assert point.most_lost(0.95) == pytest.approx(0.7)


def test_a_share_that_lacks_a_trial_is_not_recommended_nor_any_above_it(
    quick_trial: TrialConfig,
) -> None:
    good = [-0.1, 0.0, 0.1]
    curve = {0.5: good, 0.8: good[:2], 0.9: good}
    best = _study(quick_trial, {"mint": curve}).recommended
    assert best is not None
    assert best.pruned == pytest.approx(50)
    # A share that one criterion lacks altogether stops that criterion.
    study = _study(quick_trial, {"mint": {0.5: good, 0.9: good}, "random": {0.5: good, 0.8: good}})
    assert study.recommended is not None
    assert (study.recommended.criterion, study.recommended.share) == ("random", 0.8)
    assert "Failed: 1 trials" in study_page(replace(study, failed=1), [])


def test_more_criteria_need_a_wider_margin(quick_trial: TrialConfig) -> None:
    close = {0.5: [-0.15, 0.0, 0.15]}
    alone = _study(quick_trial, {"mint": close}).curves["mint"][0]
    assert alone.most_lost(0.95) < alone.most_lost(1 - 0.05 / 3)
