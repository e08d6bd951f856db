"""RESULTS.md answers in a few lines, whatever was run."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from trial_rows import finished_row, searched_row, table, with_accuracy

from mint.reporting.overview import findings_of, sentences
from mint.reporting.pages import make_report
from mint.reporting.protocols import protocols_of
from mint.reporting.reference import ReferenceResults, read_reference
from mint.reporting.trials_csv import AXES

STUDY = Path(__file__).resolve().parents[2] / "studies" / "mint_reference"
_IDENTITY = ("experiment", "protocol", *AXES, "seed", "margin")
REGIMES = {"full": 0.0, "light": 0.4, "none": 2.0}  # by how many points of share MINT is ahead


@pytest.fixture(scope="module")
def references() -> list[ReferenceResults]:
    return [read_reference(file) for file in sorted(STUDY.glob("experiment*.yaml"))]


def _measured(
    name: str, reference: ReferenceResults, rng: np.random.Generator, protocol: str
) -> Iterator[dict[str, Any]]:
    """Yield all that experiment 1 asks for: five seeds, three regimes, both readings."""
    searched, given = searched_row(name, share=90.0), finished_row(name, fraction=0.9)
    cells = {(*row.axes, row.params_pruned) for row in (*reference.groups, *reference.samples)}
    cells.add(("none", 20, 250, 96.01))
    names = ("mint", "mint-unconditional", "random", "block-magnitude")
    for (limit, groups, samples, percent), seed, criterion, regime in product(
        sorted(cells), range(5), names, REGIMES
    ):
        own = {"seed": seed, "criterion": criterion, "retraining": regime, "upper_limit": limit}
        own |= {"groups": groups, "samples_per_class": samples if "mint" in criterion else 0}
        own |= {"bootstraps": 50 if "mint" in criterion else 0, "dense_accuracy": 98.6}
        own |= {"protocol": f"{len(protocol):08x}", "protocol_name": protocol}
        accuracy = 97.9 + 0.05 * rng.normal()
        yield with_accuracy(given, accuracy) | own | {"fraction": f"{(percent or 0) / 100:.4g}"}
        share = 97.0 - REGIMES[regime] + REGIMES[regime] * (criterion == "mint") + groups / 50
        yield searched | own | {"share_at_margin": share + 0.05 * rng.normal()}


@pytest.fixture(scope="module")
def full(references: list[ReferenceResults]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for name, protocol in (
        ("mnist_mlp", "retrained 12 epochs"),
        ("mnist_mlp", "retrained 12 epochs, keep connected"),
        ("mnist_mlp_fine", "retrained 12 epochs, keep connected"),
    ):
        rows += _measured(name, references[0], rng, protocol)
    for name, reference in (("vgg16_cifar10_short", 1), ("resnet56_cifar10_short", 2)):
        row = finished_row(name, fraction=0.9)
        fractions = [method.params_pruned for method in references[reference].methods]
        for fraction, criterion, regime, seed in product(
            fractions, ("mint", "random", "block-magnitude"), REGIMES, (0, 1, 2)
        ):
            axes = {"criterion": criterion, "retraining": regime, "seed": seed}
            accuracy = with_accuracy(row, 90 + rng.normal())
            rows.append(accuracy | axes | {"fraction": f"{(fraction or 0) / 100:.4g}"})
    rows += [finished_row(), finished_row("mnist_mlp_input")]
    unique = {tuple(str(row.get(column)) for column in _IDENTITY): row for row in rows}
    return table(*(row | {"key": f"{at:016x}"} for at, row in enumerate(unique.values())))


def test_overview_of_all_that_can_be_run_has_150_lines(
    full: pd.DataFrame, references: list[ReferenceResults]
) -> None:
    report = make_report(full, references)
    text = report.pages["RESULTS.md"]
    assert len(text.splitlines()) <= 150
    first = text.split("\n## ")[1]
    assert "Full retraining: equivalent within 0.5, " in first
    assert re.search(r"Light retraining: better, \+0\.\d\d \[\+0\.\d\d, \+0\.\d\d\]", first)
    assert re.search(r"No retraining: better, \+[12]\.\d\d \[", first)
    assert re.search(r"from 5 to 50 groups more, \+0\.[89]", first)
    assert "not run" not in first
    assert len(report.pages["mnist_mlp.md"].splitlines()) > 300


def test_sentences_say_how_many_settings_agree_and_what_is_missing() -> None:
    rows = [
        with_accuracy(finished_row(criterion=name, fraction=0.9, seed=seed), accuracy)
        | {"protocol": f"{at:08x}", "protocol_name": f"p{at}", "key": f"{at} {name} {seed}"}
        for at, gain in enumerate((0.0, 0.01, -2.0))
        for name in ("mint", "random")
        for seed in range(4 + (at == 0))
        for accuracy in [90 + seed + (name == "mint") * (gain + seed / 100)]
    ]
    random, magnitude, axes = sentences(findings_of(protocols_of(table(*rows))), "digits_mlp")
    assert random == (
        "- **MINT against random blocks.** Full retraining: equivalent within 0.2, +0.02 [+0.00, "
        "+0.04] points of accuracy at the same share (digits_mlp, p0; 5 seeds). Other settings: 1 "
        "equivalent within 0.2, 1 worse. Light and no retraining: not run."
    )
    assert "Not run: `mint sweep criteria --experiment digits_mlp`" in magnitude
    assert "Not run: `mint sweep groups_vs_samples --experiment digits_mlp`" in axes
