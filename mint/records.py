"""Records: one flat row a finished trial, in records.csv; all that the report is made from."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from mint.config import TrainingConfig, TrialConfig, format_limit
from mint.errors import InputError

# Percent for accuracies and params_pruned, percentage points for accuracy_drop.
# bootstraps is what was asked for, bootstraps_drawn what a reliability that was reached took.
COLUMNS: dict[str, type] = {
    "experiment": str,
    "protocol": str,
    "setting": str,
    "upper_limit": str,
    "groups": int,
    "samples_per_class": int,
    "bootstraps": int,
    "seed": int,
    "params_pruned": float,
    "accuracy": float,
    "baseline_accuracy": float,
    "accuracy_drop": float,
    "validation_accuracy": float,
    "baseline_validation_accuracy": float,
    "pruned_weights": int,
    "counted_weights": int,
    "probes": int,
    "bootstraps_drawn": int,
    "reliability": float,
    "key": str,
    "run_id": str,
    "git_commit": str,
}
_PATTERNS = {
    "experiment": r"[a-z0-9][a-z0-9_-]*",
    "protocol": r"[0-9a-f]{8}",
    "upper_limit": r"none|[01]|0\.\d+|\d(\.\d+)?e-\d+",
}
_ORDER = [
    *("experiment", "protocol", "groups", "samples_per_class", "upper_limit", "bootstraps"),
    *("seed", "key"),
]


def trial_columns(config: TrialConfig) -> dict[str, str | int]:
    """Return the columns that a trial's configuration decides."""
    return {
        "experiment": config.experiment.name,
        "protocol": config.protocol,
        "setting": setting(config),
        "upper_limit": format_limit(config.upper_limit),
        "groups": config.groups,
        "samples_per_class": config.samples_per_class,
        "bootstraps": config.estimate.bootstraps,
        "seed": config.seed,
        "key": config.key,
    }


def setting(config: TrialConfig) -> str:
    """Return the protocol as a sentence for the report."""
    chosen = config.experiment
    search = chosen.search
    reliability = chosen.estimate.reliability
    stop = "" if reliability is None else f", or as many as reach a reliability of {reliability:g}"
    if chosen.retraining is None:
        training = f"Baseline and every retraining: {_schedule(chosen.training)}, last epoch."
    else:
        training = (
            f"Baseline: {_schedule(chosen.training)}. Retraining: "
            f"{_schedule(chosen.retraining)}, last epoch."
        )
    if search.fraction is None:
        pruned = (
            f"Search: the largest pruning, out of at most {search.probes} tried, whose accuracy "
            f"on {chosen.data.validation_size} validation images is no more than "
            f"{search.max_drop:g} percentage points below the baseline's."
        )
    else:
        pruned = f"Pruned: {search.fraction:g} of the counted weights, chosen beforehand."
    parts = [f"{chosen.title}."]
    parts.append(f"Data: {chosen.data.name}.")
    if config.init:
        parts.append(f"The baseline starts from trained weights ({config.init.digest}).")
    limits = ", ".join(f"{name} {format_limit(limit)}" for name, limit in chosen.limits.items())
    if limits:
        parts.append(f"Limits of their own: {limits}.")
    return " ".join([*parts, training, f"Scores: the mean of the bootstraps told{stop}.", pruned])


def _schedule(training: TrainingConfig) -> str:
    if training.epochs == 0:
        return "no training"
    cosine = ", cosine" if training.schedule == "cosine" else ""
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, learning rate "
        f"{training.lr:g}{cosine}"
    )


def read_records(path: Path, *, option: str = "--records") -> pd.DataFrame:
    """Read records.csv.

    Args:
        path: of the file.
        option: of the command line that a complaint names.

    Raises:
        InputError: the file is missing, or is not one of records.
    """
    try:
        return parse_records(path.read_bytes())
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"{option} {path}: is no file of records: {error}") from error


def parse_records(content: bytes) -> pd.DataFrame:
    """Return the records of a CSV file's content.

    Raises:
        ValueError: columns are missing, or a value is none that its column can have.
    """
    records = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=str, encoding="utf-8")
    missing = [column for column in COLUMNS if column not in records.columns]
    if missing:
        raise ValueError(f"the columns {', '.join(missing)} are missing")
    records = records[list(COLUMNS)].astype(COLUMNS)
    for column, pattern in _PATTERNS.items():
        wrong = records.loc[~records[column].str.fullmatch(pattern), column]
        if len(wrong):
            raise ValueError(f"{column} {wrong.iloc[0]!r} is not allowed")
    numbers = records.select_dtypes("number").drop(columns="reliability")
    if not np.isfinite(numbers.to_numpy()).all():
        raise ValueError("a figure is nan or infinite")
    repeated = records.loc[records["key"].duplicated(), "key"]
    if len(repeated):
        raise ValueError(f"the key {repeated.iloc[0]} stands there twice")
    return sort_records(records)


def sort_records(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records in the one order in which they are written."""
    return records.sort_values(_ORDER).reset_index(drop=True)


def merge_records(kept: pd.DataFrame, newer: pd.DataFrame) -> pd.DataFrame:
    """Return all records, those of `newer` in place of kept ones of the same key."""
    frames = [frame for frame in (kept[~kept["key"].isin(newer["key"])], newer) if len(frame)]
    return sort_records(pd.concat(frames)) if frames else kept


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its name and rename it, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(partial).chmod(0o644)  # mkstemp's file is for its owner alone
    Path(partial).replace(path)


def records_bytes(records: pd.DataFrame) -> bytes:
    """Return the records as CSV; floating point in full, so that reading gives them back."""
    text: str = records.to_csv(index=False, lineterminator="\n", na_rep="nan")
    return text.encode()
