"""What a run shows of its trial: tags, parameters and metrics."""

from collections.abc import Sequence

from mint.config.schema import TrialConfig, format_share
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep, TrialKeys, TrialResult

NOTE_TAG = "mlflow.note.content"  # a description in Markdown


def headline(config: TrialConfig) -> str:
    """Return the title of a run."""
    return f"{config.experiment.title}, trial {config.name}"


def tags_of(config: TrialConfig, keys: TrialKeys, provenance: Provenance) -> dict[str, str]:
    """Return the tags of a run."""
    dirty, sweep = provenance.git_dirty, provenance.sweep
    return {
        "mint.key": keys.key,
        "mint.sweep": sweep or "",
        "mint.seed": str(config.seed),
        "mint.command": provenance.command,
        "mint.device": provenance.device,
        "mint.git_dirty": "unknown" if dirty is None else str(dirty).lower(),
        **{f"mint.version.{name}": text for name, text in provenance.versions.items()},
        "mlflow.source.git.commit": provenance.git_commit,
        "mlflow.source.name": f"sweeps/{sweep}.py" if sweep else "mint run",
        "mlflow.source.type": "LOCAL",
        NOTE_TAG: headline(config),
    }


def params_of(config: TrialConfig, keys: TrialKeys) -> dict[str, str | int | float | None]:
    """Return the parameters of a run: the axes of its trial, for charts."""
    axes = ("criterion", "groups", "grouping", "samples_per_class", "seed", "data_digest")
    return {
        "experiment": config.experiment.name,
        "protocol": keys.protocol,
        **{name: getattr(config, name) for name in axes},
        "upper_limit": format_share(config.upper_limit),
        # MLflow's charts leave out runs whose value is a word where others have numbers.
        "upper_limit_or_1": 1 if config.upper_limit is None else config.upper_limit,
        "fraction": format_share(config.search.fraction),
        "margin": config.search.margin,
        "bootstraps": config.estimate.bootstraps if config.uses("bootstraps") else 0,
        "retraining": config.retraining,
        "compensate": config.compensate,
        "epochs": config.experiment.training.epochs,
    }


def final_metrics(result: TrialResult) -> dict[str, float]:
    """Return the metrics of a finished trial; its result.json has every digit."""
    # MLflow's table cuts numbers with more digits.
    metrics = {name: round(value, 3) for name, value in result if isinstance(value, int | float)}
    del metrics["seconds"]  # MLflow has the duration of the run
    metrics["bootstraps_drawn"] = metrics.pop("bootstraps")
    metrics["search_steps"] = len(result.search_steps)
    metrics["multiply_adds"], metrics["pruned_multiply_adds"] = result.multiply_adds
    metrics["state_bytes"], metrics["pruned_state_bytes"] = result.state_bytes
    return metrics


def step_series(steps: Sequence[SearchStep]) -> dict[str, dict[int, float]]:
    """Return the series of the search steps so far, whose epochs are numbered through."""
    epochs = [epoch for step in steps for epoch in step.retraining.training]
    series: dict[str, list[float]] = {
        "search/params_pruned": [step.params_pruned for step in steps],
        "search/validation_accuracy": [step.retraining.validation_accuracy for step in steps],
        "search/passed": [step.passed for step in steps if step.passed is not None],
        "retrain/loss": [epoch.loss for epoch in epochs],
        "retrain/validation_accuracy": [epoch.validation_accuracy for epoch in epochs],
    }
    return {name: dict(enumerate(values, start=1)) for name, values in series.items()}
