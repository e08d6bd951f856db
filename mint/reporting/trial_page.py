"""The page of one trial: its setting and every figure."""

from pathlib import Path

from mint.config.schema import format_share
from mint.reporting.aggregate import format_axis
from mint.reporting.layer_text import layer_lines
from mint.reporting.markdown import table
from mint.reporting.trials_csv import describe_setting
from mint.store.atomic import write_atomic
from mint.trial.result import TrialResult


def page_path(output: Path, result: TrialResult) -> Path:
    """Return the file of a trial's page in a results folder."""
    config = result.config
    name = f"{config.experiment.name}-{result.keys.protocol}-{config.name}.md"
    return output / "trials" / name


def write_trial_page(output: Path, result: TrialResult) -> Path:
    """Write the page of a finished trial into a results folder, and return its path."""
    page = page_path(output, result)
    write_atomic(page, trial_page(result).encode())
    return page


def trial_page(result: TrialResult) -> str:
    """Return the page as markdown."""
    config = result.config
    scoring = [
        [
            *(f"{layer.parent} -> {layer.child}", str(layer.blocks)),
            *(format_axis(layer.bootstraps), f"{layer.seconds:.1f}", _number(layer.reliability)),
        ]
        for layer in result.scoring
    ]
    scoring_header = ["Layer pair", "Blocks", "Bootstraps", "Seconds", "Reliability"]
    parts = [
        [f"# {config.experiment.name} {config.name}"],
        [f"{describe_setting(config)} Protocol {result.keys.protocol}."],
        table(["Figure", "Value"], _figures(result), left=(0, 1)),
        ["## Layer breakdown"],
        layer_lines(result.layers, star=r"\*"),
        ["## Cost of the scores"],
        table(scoring_header, scoring, left=(0,)),
    ]
    for number, step in enumerate(result.search_steps, start=1):
        epochs = [
            [str(e.epoch), f"{e.loss:.4f}", f"{e.validation_accuracy:.2f}", f"{e.seconds:.0f}"]
            for e in step.retraining.training
        ]
        parts += [
            [f"## Retraining {number}: {step.params_pruned:.2f}% pruned"],
            table(["Epoch", "Loss", "Validation accuracy", "Seconds"], epochs),
        ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _figures(result: TrialResult) -> list[list[str]]:
    config = result.config
    training = config.retraining_settings
    dense, kept = result.multiply_adds
    dense_bytes, sparse_bytes = result.state_bytes
    return [
        ["Params pruned", f"{result.params_pruned:.2f}% of {result.counted_weights} counted"],
        ["of prunable weights", _percent(result.pruned_weights, result.prunable_weights)],
        ["Test accuracy", f"{result.accuracy:.2f}%"],
        ["before retraining", _percentage(result.accuracy_before_retraining)],
        ["of the dense control", _percentage(result.dense_accuracy)],
        ["of the baseline", f"{result.baseline_accuracy:.2f}%"],
        ["Drop", f"{result.accuracy_drop:z.2f} points"],
        ["Validation accuracy", f"{result.validation_accuracy:.2f}%"],
        ["of the dense control", _percentage(result.dense_validation_accuracy)],
        ["of the baseline", f"{result.baseline_validation_accuracy:.2f}%"],
        ["Share at the margin", _share(result)],
        ["Multiply-adds per image", f"{kept} of {dense}, {_percent(kept, dense)}"],
        ["Bytes of sparse weights", f"{sparse_bytes} of {dense_bytes}"],
        ["Groups", format_axis(config.groups)],
        *([] if config.grouping == "contiguous" else [["Grouping", config.grouping]]),
        ["Samples per class", format_axis(config.samples_per_class)],
        ["Upper limit", format_share(config.upper_limit)],
        ["Fraction", format_share(config.search.fraction)],
        ["Bootstraps", format_axis(result.bootstraps)],
        ["Lowest reliability", _number(result.reliability)],
        ["Seconds of scoring", f"{result.score_seconds:.0f}"],
        ["Seed", str(config.seed)],
        ["Threads, device", f"{config.experiment.threads}, {result.device}"],
        [
            "Retraining",
            f"{config.retraining}, {training.precision}, "
            f"label smoothing {training.label_smoothing:g}",
        ],
        ["Key", result.keys.key],
        ["Digest of the data", config.data_digest],
    ]


def _share(result: TrialResult) -> str:
    """Return the share at the margin with its interval, and the margin."""
    if result.share_at_margin is None:
        return "N/A"
    share = f"{'at least ' if result.share_bound else ''}{result.share_at_margin:.2f}%"
    if result.share_low is not None:
        share += f" [{result.share_low:.2f}, {result.share_high:.2f}]"
    return f"{share} at a drop of {result.config.search.margin} points"


def _percentage(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.2f}%"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%"


def _number(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.2f}"
