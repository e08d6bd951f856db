"""Rows of the trial table for tests, without a trial."""

import math
from typing import Any

import pandas as pd

from mint.config.loading import load_experiment
from mint.config.schema import TrialConfig
from mint.reporting.trials_csv import table_of_rows, trial_columns
from mint.trial.result import TrialKeys


def finished_row(
    name: str = "digits_mlp", *, pruned: float = 90.0, seed: int = 0, **axes: Any
) -> dict[str, Any]:
    """Return the row of a finished trial.

    Args:
        name: of the experiment.
        pruned: percent of 150000 weights.
        seed: of the trial; accuracy rises with it.
        axes: fields of TrialConfig.
    """
    axes = {"groups": 20, "samples_per_class": 100, "upper_limit": None} | axes
    config = TrialConfig(
        experiment=load_experiment(name), seed=seed, data_digest="0123456789abcdef", **axes
    )
    weights = round(pruned * 1500)
    return trial_columns(config, TrialKeys.of(config)) | {
        "status": "finished",
        "margin": math.nan,
        "params_pruned": 100 * weights / 150000,
        "accuracy": 98.0 + seed / 7,
        "baseline_accuracy": 98.5 + seed / 7,
        "accuracy_drop": 0.5,
        "validation_accuracy": 98.1,
        "baseline_validation_accuracy": 98.2,
        "test_images": 10000,
        "pruned_weights": weights,
        "counted_weights": 150000,
        "search_steps": 6,
        "bootstraps_drawn": 4,
        "reliability": 0.25,
        "layers": "Input > fc1: 32000/32000 (reads the input); "
        f"fc1 > fc2: {150000 - weights}/150000; fc2 > fc3: 3000/3000 (left out)",
        "run_id": f"run-{seed}",
        "git_commit": "c0ffee",
    }


def searched_row(
    name: str = "mnist_mlp", *, share: float, seed: int = 0, **axes: Any
) -> dict[str, Any]:
    """Return the row of a finished search for the share at a drop of 0.5 points."""
    axes = {"samples_per_class": 250} | axes
    return finished_row(name, pruned=share, seed=seed, **axes) | {
        "margin": 0.5,
        "share_at_margin": share,
        "share_low": share - 0.3,
        "share_high": share + 0.3,
    }


def with_accuracy(row: dict[str, Any], accuracy: float, baseline: float = 98.0) -> dict[str, Any]:
    """Return a row with another accuracy (percent)."""
    drop = baseline - accuracy
    return row | {"accuracy": accuracy, "baseline_accuracy": baseline, "accuracy_drop": drop}


def failed_row(row: dict[str, Any], reason: str) -> dict[str, Any]:
    """Return the row of the same trial if it had failed."""
    known = list(row)[: list(row).index("status")]
    kept = {column: row[column] for column in (*known, "run_id", "git_commit")}
    return kept | {"status": "failed", "reason": reason}


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return the trial table of rows."""
    return table_of_rows(rows)
