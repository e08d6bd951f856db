"""Records: one flat row a finished trial, in records.csv; all that the report is made from."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from mint.config import METHOD_VERSION, TrialConfig, content_key, format_limit
from mint.errors import InputError

# Percent for accuracies and params_pruned, percentage points for accuracy_drop.
COLUMNS: dict[str, type] = {
    "experiment": str,
    "protocol": str,
    "setting": str,
    "upper_limit": str,
    "groups": int,
    "samples_per_class": int,
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
    "key": str,
    "run_id": str,
    "git_commit": str,
}
_ORDER = ["experiment", "protocol", "groups", "samples_per_class", "upper_limit", "seed", "key"]


def trial_columns(config: TrialConfig) -> dict[str, str | int]:
    """Return the columns that a trial's configuration decides."""
    return {
        "experiment": config.experiment.name,
        "protocol": protocol(config),
        "setting": setting(config),
        "upper_limit": format_limit(config.upper_limit),
        "groups": config.groups,
        "samples_per_class": config.samples_per_class,
        "seed": config.seed,
        "key": config.key,
    }


def protocol(config: TrialConfig) -> str:
    """Return eight hex digits that trials share if they differ in nothing but the sweep's axes."""
    return content_key(METHOD_VERSION, config.experiment.model_dump(), config.data_digest)[:8]


def setting(config: TrialConfig) -> str:
    """Return the protocol as a sentence for the report."""
    chosen = config.experiment
    training, search = chosen.training, chosen.search
    bootstraps = chosen.estimate.bootstraps
    return (
        f"{chosen.title}. Baseline and every retraining: {training.epochs} epochs, batch "
        f"{training.batch_size}, learning rate {training.lr:g}, last epoch. Scores: "
        f"{bootstraps} bootstrap{'s' if bootstraps > 1 else ''}. Search: the largest pruning, "
        f"out of at most {search.probes} tried, whose accuracy on "
        f"{chosen.data.validation_size} validation images is no more than {search.max_drop:g} "
        "percentage points below the baseline's."
    )


def read_records(path: Path) -> pd.DataFrame:
    """Read records.csv.

    Raises:
        InputError: the file is missing, or is not one of records.
    """
    try:
        records = pd.read_csv(path, keep_default_na=False, dtype=str, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"--records {path}: cannot be read: {error}") from error
    missing = [column for column in COLUMNS if column not in records.columns]
    if missing:
        raise InputError(f"--records {path}: lacks the columns {', '.join(missing)}")
    try:
        return sort_records(records[list(COLUMNS)].astype(COLUMNS))
    except ValueError as error:
        raise InputError(f"--records {path}: {error}") from error


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
    text: str = records.to_csv(index=False, lineterminator="\n")
    return text.encode()
