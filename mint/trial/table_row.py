"""Records: one flat row a trial, in records.csv; all that the report is made from."""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mint.config.schema import TrainingConfig, TrialConfig, format_share
from mint.errors import InputError
from mint.pruning.layer_table import layers_text, parse_layers

if TYPE_CHECKING:  # they bring torch along, which reading and writing of records can do without
    from mint.trial.failed_trials import FailedTrial
    from mint.trial.result import TrialResult

# Percent for accuracies and params_pruned, percentage points for accuracy_drop.
# groups, samples_per_class and bootstraps are 0 where the criterion uses none.
# bootstraps is what was asked for, bootstraps_drawn what a reliability that was reached took.
# fraction is of the counted weights, none where a search found how much to prune.
# layers is every layer with its weights and how many are kept (mint.pruning.layer_table), unknown where a run
# has no result to tell them from.
# Where status is failed or stopped, reason says why, figures are nan, counts 0, layers empty.
COLUMNS: dict[str, type] = {
    "experiment": str,
    "protocol": str,
    "setting": str,
    "criterion": str,
    "upper_limit": str,
    "groups": int,
    "samples_per_class": int,
    "fraction": str,
    "bootstraps": int,
    "seed": int,
    "status": str,
    "reason": str,
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
    "layers": str,
    "key": str,
    "run_id": str,
    "git_commit": str,
}
_EMPTY = {int: 0, float: math.nan, str: ""}
NO_FIGURES = {column: _EMPTY[kind] for column, kind in COLUMNS.items()}
UNKNOWN_LAYERS = "unknown"
# Not figures: the same trial has others in another tracking store, or at another commit.
ORIGIN = ["run_id", "git_commit"]
# What a trial is one of: trials that share these differ in their seed alone.
AXES = ["upper_limit", "groups", "samples_per_class", "fraction", "criterion", "bootstraps"]
_ROUNDING = 1e-9  # of figures that are computed from others
_SHARE = r"none|[01]|0\.\d+|\d(\.\d+)?e-\d+"
_PATTERNS = {
    "experiment": r"[a-z0-9][a-z0-9_-]*",
    "protocol": r"[0-9a-f]{8}",
    "criterion": r"[a-z0-9][a-z0-9-]*",
    "upper_limit": _SHARE,
    "fraction": _SHARE,
    "status": "finished|failed|stopped",
}
_ORDER = [
    *("experiment", "protocol", "groups", "samples_per_class", "upper_limit", "fraction"),
    *("bootstraps", "criterion", "seed", "key"),
]


def trial_columns(config: TrialConfig) -> dict[str, str | int]:
    """Return the columns that a trial's configuration decides."""
    return {
        "experiment": config.experiment.name,
        "protocol": config.protocol,
        "setting": setting(config),
        "criterion": config.criterion,
        "upper_limit": format_share(config.upper_limit),
        "groups": config.groups,
        "samples_per_class": config.samples_per_class,
        "fraction": format_share(config.search.fraction),
        "bootstraps": config.estimate.bootstraps if config.uses("bootstraps") else 0,
        "seed": config.seed,
        "key": config.key,
    }


def result_record(result: "TrialResult", run_id: str) -> dict[str, object]:
    """Return the row of a finished trial.

    Args:
        result: of the trial.
        run_id: of its run; empty where no tracking store has one.
    """
    values = {
        **result.model_dump(include=set(COLUMNS)),
        **trial_columns(result.config),
        "protocol": result.keys.protocol,
        "key": result.keys.key,
        "status": "finished",
        "reason": "",
        "probes": len(result.search_steps),
        "bootstraps_drawn": result.bootstraps,
        "reliability": _nan(result.reliability),
        "layers": layers_text(result.layers),
        "run_id": run_id,
        "git_commit": result.provenance.git_commit,
    }
    return {column: values[column] for column in COLUMNS}


def gap_record(gap: "FailedTrial", run_id: str) -> dict[str, object]:
    """Return the row of a trial without a result. See result_record."""
    values = {
        **NO_FIGURES,
        **trial_columns(gap.config),
        "protocol": gap.keys.protocol,
        "key": gap.keys.key,
        "status": gap.status,
        "reason": gap.reason,
        "run_id": run_id,
        "git_commit": gap.provenance.git_commit,
    }
    return {column: values[column] for column in COLUMNS}


def as_records(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Return rows of all columns as records."""
    return sort_records(pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS))


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def setting(config: TrialConfig) -> str:
    """Return the protocol as a sentence for the report."""
    chosen = config.experiment
    search = config.search
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
            f"Search: the largest pruning, out of at most {search.steps} tried, whose accuracy "
            f"on {chosen.data.validation_size} validation images is no more than "
            f"{search.max_drop:g} percentage points below the baseline's."
        )
    else:
        pruned = "Pruned: a share of the counted weights that was chosen beforehand."
    parts = [f"{chosen.title}."]
    parts.append(f"Data: {chosen.data.name}.")
    if config.init:
        parts.append(f"The baseline starts from trained weights ({config.init.digest}).")
    limits = ", ".join(f"{name} {format_share(limit)}" for name, limit in chosen.limits.items())
    if limits:
        parts.append(f"Limits of their own: {limits}.")
    groups = ", ".join(f"{name} {number}" for name, number in chosen.groups.items())
    if groups:
        parts.append(f"Groups of their own: {groups}.")
    way = ", estimated as in the paper" if chosen.estimate.paper else ""
    parts += [training, f"Scores: the mean of the bootstraps told{stop}{way}."]
    if chosen.keep_connected:
        parts.append("Floor: every group of filters keeps a block as long as the share allows.")
    parts.append(pruned)
    return " ".join(" ".join(parts).split())  # a title may have several lines, a record has one


def _schedule(training: TrainingConfig) -> str:
    if training.epochs == 0:
        return "no training"
    cosine = ", cosine" if training.schedule == "cosine" else ""
    return (
        f"{training.epochs} epochs, batch {training.batch_size}, learning rate "
        f"{training.lr:g}{cosine}"
    )


def read_records(path: str | Path, *, option: str = "--records") -> pd.DataFrame:
    """Read records.csv: a row for every trial, with its axes, accuracies (percent) and counts.

    Example:
        ```python
        records = read_records("results/records.csv")
        records.groupby(["experiment", "criterion"])["accuracy"].max()
        ```

    Args:
        path: of the file.
        option: of the command line that a complaint names.

    Raises:
        InputError: the file is missing, or is not one of records.
    """
    try:
        return parse_records(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"{option} {path}: is no file of records: {error}") from error


def parse_records(content: bytes) -> pd.DataFrame:
    """Return the records of a CSV file's content.

    Raises:
        ValueError: columns are missing, or a value is none that its column can have beside the
            others of its row; the first one is named by its line and column.
    """
    text = written_records(content)
    for column in COLUMNS:
        _refuse(text, column, text[column].str.contains("\n", regex=False), "has several lines")
    records = pd.DataFrame({name: _typed(text[name], kind) for name, kind in COLUMNS.items()})
    for column, pattern in _PATTERNS.items():
        _refuse(records, column, ~records[column].str.fullmatch(pattern), "is not allowed")
    finished = records["status"] == "finished"
    for column in records.select_dtypes("number").columns.drop("reliability"):
        wrong = finished & ~np.isfinite(records[column])
        _refuse(records, column, wrong, "is nan or infinite, and the trial is finished")
    _check_arithmetic(records, finished)
    repeated = records["key"].duplicated()
    _refuse(records, "key", repeated, "stands there twice")
    return sort_records(records)


def written_records(content: bytes) -> pd.DataFrame:
    """Return what stands in a CSV file of records, as it is written there.

    Raises:
        ValueError: columns are missing.
    """
    text = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=str, encoding="utf-8")
    missing = [column for column in COLUMNS if column not in text.columns]
    if missing:
        raise ValueError(f"the columns {', '.join(missing)} are missing")
    return text[list(COLUMNS)]


def _typed(text: "pd.Series[str]", kind: type) -> "pd.Series[Any]":
    try:
        return text.astype(kind)
    except (ValueError, OverflowError):
        for at, value in enumerate(text):
            try:
                pd.Series([value]).astype(kind)
            except (ValueError, OverflowError):
                what = "whole number" if kind is int else "number"
                raise _wrong(at, str(text.name), value, f"is no {what}") from None
        raise


def _check_arithmetic(records: pd.DataFrame, finished: "pd.Series[bool]") -> None:
    """Refuse figures of a row that do not belong together, and layers that are none."""
    figures = records.where(finished)
    off = {
        "accuracy_drop": figures["baseline_accuracy"] - figures["accuracy"],
        "params_pruned": 100 * figures["pruned_weights"] / figures["counted_weights"],
    }
    for (column, computed), how in zip(
        off.items(),
        ("baseline_accuracy - accuracy", "pruned_weights / counted_weights"),
        strict=True,
    ):
        wrong = (figures[column] - computed).abs() > _ROUNDING
        _refuse(records, column, wrong, f"is not {how}")
    pruned_of: dict[str, int] = {}
    told = zip(records["layers"], records["pruned_weights"], finished, strict=True)
    for at, (layers, pruned, is_finished) in enumerate(told):
        if not is_finished:
            if layers:
                raise _wrong(at, "layers", layers, "belongs to no trial without a result")
            continue
        if layers == UNKNOWN_LAYERS:
            continue
        if layers not in pruned_of:
            try:
                counts = parse_layers(layers)
            except ValueError as error:
                raise _wrong(at, "layers", layers, f"is not allowed: {error}") from None
            pruned_of[layers] = sum(layer.weights - (layer.kept or 0) for layer in counts)
        if pruned_of[layers] != pruned:
            why = f"prunes {pruned_of[layers]} weights, and pruned_weights is {pruned}"
            raise _wrong(at, "layers", layers, why)


def _refuse(records: pd.DataFrame, column: str, wrong: "pd.Series[bool]", why: str) -> None:
    if wrong.any():
        at = int(wrong.to_numpy().argmax())
        raise _wrong(at, column, records[column].iloc[at], why)


def _wrong(at: int, column: str, value: object, why: str) -> ValueError:
    shown = repr(value) if isinstance(value, str) else str(value)
    return ValueError(f"line {at + 2}, column {column}: {shown} {why}")


def sort_records(records: pd.DataFrame) -> pd.DataFrame:
    """Return the records in the one order in which they are written."""
    return records.sort_values(_ORDER).reset_index(drop=True)


def merge_records(kept: pd.DataFrame, newer: pd.DataFrame) -> pd.DataFrame:
    """Return all records, those of `newer` in place of kept ones of the same key.

    A trial that has a result keeps it, whatever became of it when it was run again. Of several
    newer ones, as two machines may leave them in one store, one is taken.
    """
    finished_last = newer.sort_values("status", key=lambda status: status == "finished")
    newer = finished_last.drop_duplicates("key", keep="last")
    done = kept.loc[kept["status"] == "finished", "key"]
    newer = newer[(newer["status"] == "finished") | ~newer["key"].isin(done)]
    frames = [frame for frame in (kept[~kept["key"].isin(newer["key"])], newer) if len(frame)]
    return sort_records(pd.concat(frames)) if frames else kept


def records_bytes(records: pd.DataFrame) -> bytes:
    """Return the records as CSV; floating point in full, so that reading gives them back."""
    text: str = records.to_csv(index=False, lineterminator="\n", na_rep="nan")
    return text.encode()
