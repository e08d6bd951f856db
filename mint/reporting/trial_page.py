"""The page of one trial: its protocol and every figure of it."""

from mint.config.schema import TrialConfig, format_share
from mint.reporting.aggregate import used
from mint.reporting.layer_text import layer_lines
from mint.reporting.markdown import table
from mint.trial.result import TrialResult
from mint.trial.table_row import setting

TRIAL_PAGES = "trials"
"""The folder of these pages, in that of the results."""


def page_name(config: TrialConfig) -> str:
    """Return the name of the file of a trial's page."""
    return f"{config.experiment.name}-{config.protocol}-{config.name}.md"


def trial_page(result: TrialResult) -> str:
    """Return the page as markdown."""
    config = result.config
    training = config.experiment.retraining_settings
    dense, kept = result.multiply_adds
    dense_bytes, sparse_bytes = result.state_bytes
    figures = [
        ["Params pruned", f"{result.params_pruned:.2f}% of {result.counted_weights} counted"],
        ["of prunable weights", f"{_percent(result.pruned_weights, result.prunable_weights)}"],
        ["Test accuracy", f"{result.accuracy:.2f}%"],
        ["of the baseline", f"{result.baseline_accuracy:.2f}%"],
        ["Drop", f"{result.accuracy_drop:z.2f} points"],
        ["Validation accuracy", f"{result.validation_accuracy:.2f}%"],
        ["of the baseline", f"{result.baseline_validation_accuracy:.2f}%"],
        ["Multiply-adds an image", f"{kept} of {dense}, {_percent(kept, dense)}"],
        ["Bytes of weights, sparse", f"{sparse_bytes} of {dense_bytes}"],
        ["Groups", used(config.groups)],
        ["Samples per class", used(config.samples_per_class)],
        ["Upper limit", format_share(config.upper_limit)],
        ["Bootstraps", used(result.bootstraps)],
        ["Lowest reliability", _number(result.reliability)],
        ["Seconds of scores", f"{result.score_seconds:.0f}"],
        ["Seed", str(config.seed)],
        ["Threads, device", f"{config.experiment.threads}, {result.device}"],
        ["Retraining", f"{training.precision}, label smoothing {training.label_smoothing:g}"],
        ["Key", config.key],
        ["Digest of the data", config.data_digest],
    ]
    scoring = [
        [
            f"{layer.parent} -> {layer.child}",
            str(layer.blocks),
            used(layer.bootstraps),
            f"{layer.seconds:.1f}",
            _number(layer.reliability),
        ]
        for layer in result.scoring
    ]
    lines = [
        f"# {config.experiment.name} {config.name}",
        "",
        f"{setting(config)} Protocol {config.protocol}.",
        "",
        *table(["Figure", "Value"], figures, left=(0, 1)),
        "",
        "## Layer breakdown",
        "",
        *layer_lines(result.layers, star=r"\*"),
        "",
        "## Cost of the scores",
        "",
        *table(
            ["Layer pair", "Blocks", "Bootstraps", "Seconds", "Reliability"], scoring, left=(0,)
        ),
    ]
    for number, probe in enumerate(result.search_steps, start=1):
        epochs = [
            [str(e.epoch), f"{e.loss:.4f}", f"{e.validation_accuracy:.2f}", f"{e.seconds:.0f}"]
            for e in probe.retraining.training
        ]
        lines += [
            "",
            f"## Retraining {number}: {probe.params_pruned:.2f}% pruned",
            "",
            *table(["Epoch", "Loss", "Validation accuracy", "Seconds"], epochs),
        ]
    return "\n".join(lines) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%"


def _number(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.2f}"
