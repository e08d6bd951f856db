"""The trial table, trials.csv: one row per trial; the report is made from it.

Accuracies, shares and params_pruned are in percent, accuracy_drop and margin in percentage points.
An axis that the criterion does not use is 0. A failed or stopped trial has a reason, but no
figures. A figure that a trial does not have is nan.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from mint.config.axes import Compensate, Grouping, Retraining
from mint.config.schema import TrainingConfig, TrialConfig, format_share
from mint.errors import InputError
from mint.pruning.layer_table import layers_text, parse_layers

if TYPE_CHECKING:  # pandas and torch take seconds, and a check of a table does without them
    import pandas as pd

    from mint.trial.failed_trials import FailedTrial
    from mint.trial.result import TrialKeys, TrialResult

# The same trial has others in another tracking store, or at another commit.
ORIGIN = ("run_id", "git_commit")
# Trials that share these differ only in their seed.
AXES = (
    *("retraining", "upper_limit", "groups", "grouping", "samples_per_class", "fraction"),
    *("criterion", "bootstraps", "compensate"),
)
_ORDER = [
    *("experiment", "protocol", "retraining", "groups", "grouping", "samples_per_class"),
    *("upper_limit", "fraction", "bootstraps", "criterion", "compensate", "seed", "key"),
]
# A finished trial has all other figures.
_MAY_BE_MISSING = {
    *("margin", "share_at_margin", "share_low", "share_high", "reliability"),
    *("accuracy_before_retraining", "dense_accuracy"),
}
_ROUNDING = 1e-9  # of figures that are computed from others

Row = Mapping[str, Any]
"""A row of the trial table by column; in a report, `line` is its line in trials.csv."""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_Share = Annotated[str, Field(pattern=r"^(none|[01]|0\.\d+|\d(\.\d+)?e-\d+)$")]
_Line = Annotated[str, Field(pattern=r"^[^\n]*$")]
_Count = Annotated[int, Field(ge=0)]


class _Row(BaseModel, frozen=True):
    """Columns of the table, in their order.

    protocol_name is short and readable. bootstraps is the allowed number. fraction is none if a
    search found it: share_at_margin is the share at which the drop crosses the margin, between
    share_low and share_high with 95% confidence, or more if there is a share_bound. layers has the
    kept and total weights of every layer, as mint.pruning.layer_table writes them. test_images is 0
    if their number is unknown.
    """

    experiment: _Name
    protocol: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    protocol_name: _Line = ""
    method_version: _Count
    setting: _Line
    retraining: Retraining = "full"
    compensate: Compensate = "no"
    criterion: Annotated[str, Field(pattern=r"^\w[\w.:@-]*$")]
    upper_limit: _Share
    groups: _Count
    grouping: Grouping = "contiguous"
    samples_per_class: _Count
    fraction: _Share
    bootstraps: _Count
    seed: _Count
    status: Annotated[str, Field(pattern="^(finished|failed|stopped)$")]
    reason: _Line = ""
    margin: float = math.nan
    share_at_margin: float = math.nan
    share_low: float = math.nan
    share_high: float = math.nan
    share_bound: Literal["", "limit", "steps"] = ""
    params_pruned: float = math.nan
    accuracy: float = math.nan
    accuracy_before_retraining: float = math.nan
    dense_accuracy: float = math.nan
    baseline_accuracy: float = math.nan
    accuracy_drop: float = math.nan
    validation_accuracy: float = math.nan
    baseline_validation_accuracy: float = math.nan
    test_images: _Count = 0
    pruned_weights: _Count = 0
    counted_weights: _Count = 0
    search_steps: _Count = 0
    bootstraps_drawn: _Count = 0
    reliability: float = math.nan
    layers: _Line = ""
    key: _Line
    run_id: _Line
    git_commit: _Line

    @model_validator(mode="after")
    def _figures_agree(self) -> Self:
        if self.status != "finished":
            if self.layers:
                raise ValueError("column layers: must be empty, for the trial has no result")
            return self
        for column, value in self:
            needed = COLUMNS[column] is float and column not in _MAY_BE_MISSING
            if needed and not math.isfinite(value):
                raise ValueError(f"column {column}: {value} in a finished trial")
        pruned, counted = self.pruned_weights, self.counted_weights
        if abs(self.baseline_accuracy - self.accuracy - self.accuracy_drop) > _ROUNDING:
            raise ValueError("column accuracy_drop: is not baseline_accuracy - accuracy")
        if abs(100 * pruned - self.params_pruned * counted) > _ROUNDING * counted:
            raise ValueError("column params_pruned: is not pruned_weights / counted_weights")
        try:
            layers = parse_layers(self.layers)
        except ValueError as error:
            raise ValueError(f"column layers: {error}") from None
        by_layers = sum(layer.weights - (layer.kept or 0) for layer in layers)
        if by_layers != pruned:
            raise ValueError(f"column layers: {by_layers} pruned weights, pruned_weights {pruned}")
        return self


COLUMNS = {
    name: str if get_origin(field.annotation) is Literal else cast(type, field.annotation)
    for name, field in _Row.model_fields.items()
}
_ROWS = TypeAdapter(list[_Row])


def trial_columns(config: TrialConfig, keys: "TrialKeys") -> dict[str, str | float]:
    """Return the columns that a trial has before it has a result."""
    return {
        "experiment": config.experiment.name,
        "protocol": keys.protocol,
        "protocol_name": protocol_name(config),
        "method_version": keys.method_version,
        "setting": describe_setting(config),
        "retraining": config.retraining,
        "compensate": config.compensate,
        "criterion": config.criterion,
        "upper_limit": format_share(config.upper_limit),
        "groups": config.groups,
        "grouping": config.grouping,
        "samples_per_class": config.samples_per_class,
        "fraction": format_share(config.search.fraction),
        "margin": math.nan if config.search.margin is None else config.search.margin,
        "bootstraps": config.estimate.bootstraps if config.uses("bootstraps") else 0,
        "seed": config.seed,
        "key": keys.key,
    }


def trial_table(results: Iterable[tuple[str, "TrialResult | FailedTrial"]]) -> "pd.DataFrame":
    """Return the table of trials: of each the id of its MLflow run, or "", and its result."""
    return table_of_rows(_row(run_id, result) for run_id, result in results)


def _row(run_id: str, result: "TrialResult | FailedTrial") -> Row:
    from mint.trial.failed_trials import FailedTrial

    origin = {"run_id": run_id, "git_commit": result.provenance.git_commit}
    shared = trial_columns(result.config, result.keys) | origin
    if isinstance(result, FailedTrial):
        return shared | {"status": result.status, "reason": result.reason}
    figures = result.model_dump(include=set(COLUMNS))
    return {
        **{name: math.nan if value is None else value for name, value in figures.items()},
        **shared,
        "status": "finished",
        "search_steps": len(result.search_steps),
        "bootstraps_drawn": result.bootstraps,
        "layers": layers_text(result.layers),
    }


def table_of_rows(rows: Iterable[Row]) -> "pd.DataFrame":
    """Return the sorted table of rows; a ValueError names the line and column of a bad value."""
    import pandas as pd

    content = [row.model_dump() for row in _checked(rows)]
    return sort_trials(pd.DataFrame(content, columns=list(COLUMNS)).astype(COLUMNS))


def _checked(rows: Iterable[Row]) -> list[_Row]:
    try:
        return _ROWS.validate_python(list(rows))
    except ValidationError as error:
        first = error.errors()[0]
        line, *column = first["loc"]
        problem = f"column {column[0]}: {first['input']!r}: {first['msg']}" if column else ""
        # The first row is behind the header.
        raise ValueError(f"line {int(line) + 2}, {problem or first['ctx']['error']}") from None


def records(trials: "pd.DataFrame") -> list[Row]:
    """Return the rows of a table."""
    return cast(list[Row], trials.to_dict("records"))


def read_trials(path: str | Path) -> "pd.DataFrame":
    """Read trials.csv: one row per trial with its axes, accuracies (percent) and counts.

    For example `read_trials("results/trials.csv").groupby("criterion")["accuracy"].max()`.

    Raises:
        InputError: the file cannot be read, or is not a trial table.
    """
    return table_of_rows(row.model_dump() for row in read_rows(path))


def read_rows(path: str | Path) -> "list[_Row]":
    """Read and check the rows of trials.csv, as read_trials does, without pandas."""
    try:
        return _parsed(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not a trial table: {error}") from None


def parse_trials(content: bytes) -> "pd.DataFrame":
    """Return the trial table of a CSV file's content; raise ValueError if it is none."""
    return table_of_rows(row.model_dump() for row in _parsed(content))


def _parsed(content: bytes) -> list[_Row]:
    header, *lines = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    needed = [name for name, field in _Row.model_fields.items() if field.is_required()]
    if missing := [column for column in needed if column not in header]:
        raise ValueError(f"the columns {', '.join(missing)} are missing")
    keys: set[str] = set()
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ValueError(f"line {number}: has {len(line)} values for {len(header)} columns")
        rows.append(dict(zip(header, line, strict=True)))
        if rows[-1]["key"] in keys:
            raise ValueError(f"line {number}, column key: an earlier line has the same key")
        keys.add(rows[-1]["key"])
    return _checked(rows)


def trials_csv(trials: "pd.DataFrame") -> bytes:
    """Return the table as CSV, with every digit of its floating point numbers."""
    text: str = trials.to_csv(index=False, lineterminator="\n", na_rep="nan")
    return text.encode()


def sort_trials(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table in the order in which it is written."""
    return trials.sort_values(_ORDER).reset_index(drop=True)


def merge_trials(kept: "pd.DataFrame", newer: "pd.DataFrame") -> "pd.DataFrame":
    """Return both tables as one, in which newer rows replace those of the same key.

    A finished row stays when the newer one failed.
    """
    import pandas as pd

    finished_last = newer.sort_values("status", key=lambda status: status == "finished")
    newer = finished_last.drop_duplicates("key", keep="last")
    done = kept.loc[kept["status"] == "finished", "key"]
    newer = newer[(newer["status"] == "finished") | ~newer["key"].isin(done)]
    frames = [frame for frame in (kept[~kept["key"].isin(newer["key"])], newer) if len(frame)]
    return sort_trials(pd.concat(frames)) if frames else kept


def protocol_name(config: TrialConfig) -> str:
    """Return what the trials of a protocol share, in a few words."""
    chosen = config.experiment
    epochs = chosen.retraining_settings("full").epochs
    parts = [
        f"full retraining {epochs} epoch{'s' if epochs != 1 else ''}",
        "keep connected" if chosen.keep_connected else "",
        "limits by layer" if chosen.limits else "",
        "as in the MINT paper" if chosen.estimate.paper else "",
    ]
    return ", ".join(filter(None, parts))


def describe_setting(config: TrialConfig) -> str:
    """Return what the trials of a protocol share, in sentences."""
    chosen = config.experiment
    limits = ", ".join(f"{name} {format_share(limit)}" for name, limit in chosen.limits.items())
    groups = ", ".join(f"{name} {number}" for name, number in chosen.groups.items())
    training = "Baseline" if chosen.retraining else "Baseline and retraining"
    training += f": {_describe_training(chosen.training)}."
    if chosen.retraining:
        training += f" Retraining: {_describe_training(chosen.retraining)}."
    if chosen.light:
        training += f" Light retraining: {_describe_training(chosen.light)}."
    scores = "Scores: mean over bootstraps"
    if chosen.estimate.reliability is not None:
        scores += f", until their reliability is {chosen.estimate.reliability:g}"
    if chosen.estimate.paper:
        scores += ", estimated as in the MINT paper"
    sentences = [
        f"{chosen.title}. Data: {chosen.data.name}.",
        f"Network: {chosen.network.name}, source {config.network_digest[:8]}."
        if config.network_digest
        else "",
        f"The baseline starts from trained weights ({config.init.digest})." if config.init else "",
        f"Upper limits by layer: {limits}." if limits else "",
        f"Groups by layer: {groups}." if groups else "",
        f"{training} {scores}.",
        "Keep connected: every group of filters keeps one block while the fraction allows it."
        if chosen.keep_connected
        else "",
        f"Search: {chosen.search.steps} retrainings for the share at a margin of "
        f"{chosen.search.margin:g} points of validation accuracy."
        if chosen.search.margin is not None
        else "",
    ]
    return " ".join(" ".join(sentences).split())  # a title may have several lines


def _describe_training(training: TrainingConfig) -> str:
    if training.epochs == 0:
        return "no training"
    epochs = f"{training.epochs} epoch{'s' if training.epochs != 1 else ''}"
    cosine = ", cosine schedule" if training.schedule == "cosine" else ""
    return f"{epochs}, batch size {training.batch_size}, learning rate {training.lr:g}{cosine}"
