"""The page of a study: how much of a network can be pruned at a stated loss, and what is left."""

import base64
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.pruning.export import Exported
from mint.pruning.sparsity_search import share_at_loss
from mint.reporting.aggregate import order_of_criteria
from mint.reporting.figure_style import COLOURS, MARKERS, add_grid, new_panels, save
from mint.reporting.markdown import table
from mint.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, Difference
from mint.store.atomic import write_atomic
from mint.trial.result import TrialResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, HTML_PAGE, PICTURE = "STUDY.md", "study.html", "study.png"
_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } img { max-width: 100% } table { border-collapse: collapse; display: block;
overflow-x: auto } th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd }"""


@dataclass(frozen=True)
class Point:
    """The trials of one criterion at one share, a trial for each seed."""

    criterion: str
    trials: Sequence[TrialResult]

    @property
    def share(self) -> float:
        """The share that was asked for."""
        return _share(self.trials[0])

    @property
    def pruned(self) -> float:
        """Pruned share of the counted weights, in percent."""
        return float(np.mean([trial.params_pruned for trial in self.trials]))

    @property
    def accuracy(self) -> float:
        """Mean test accuracy, in percent."""
        return float(np.mean([trial.accuracy for trial in self.trials]))

    @cached_property
    def loss(self) -> Difference:
        """Test accuracy lost to pruning: the dense control's less the pruned network's."""
        resolution = 100 / self.trials[0].test_images
        lost = [_dense_accuracy(trial) - trial.accuracy for trial in self.trials]
        return _difference(lost, resolution)

    @cached_property
    def validation_loss(self) -> Difference:
        """The same on the validation images, which choose."""
        lost = [_lost(trial) for trial in self.trials]
        resolution = 100 / self.trials[0].config.experiment.data.validation_size
        return _difference(lost, resolution)

    def most_lost(self, confidence: float) -> float:
        """Return the upper end of the interval of the validation loss.

        It is the mean for fewer than three seeds.
        """
        half_width = self.validation_loss.half_width(confidence)
        return self.validation_loss.mean + (0 if math.isnan(half_width) else half_width)


def _dense_accuracy(trial: TrialResult) -> float:
    """Return the test accuracy of the dense control; only results of older versions have none."""
    assert trial.dense_accuracy is not None
    return trial.dense_accuracy


def _lost(trial: TrialResult) -> float:
    """Return the lost validation accuracy (percentage points)."""
    assert trial.dense_validation_accuracy is not None
    return trial.dense_validation_accuracy - trial.validation_accuracy


def _share(trial: TrialResult) -> float:
    """Return the share that was asked for; whole blocks prune about as much."""
    assert trial.config.fraction is not None
    return trial.config.fraction


def _difference(values: Sequence[float], resolution: float) -> Difference:
    difference = Difference.of(values, resolution)
    assert difference
    return difference


@dataclass(frozen=True)
class Study:
    """The finished trials of a study, and the question that they answer.

    Attributes:
        trials: of all criteria, shares and seeds, with one retraining.
        loss: accuracy that may be lost (percentage points).
        seeds: number of trials of a complete point.
        exported: by key of a point's first trial its exported network, or why there is none.
        left_out: what the budget did not allow.
        failed: number of trials without a result.
    """

    trials: Sequence[TrialResult]
    loss: float
    seeds: int
    exported: Mapping[str, Exported | str]
    left_out: Sequence[str] = ()
    failed: int = 0

    @cached_property
    def curves(self) -> dict[str, list[Point]]:
        """For each criterion its points, by ascending share."""
        found: dict[tuple[str, float], list[TrialResult]] = defaultdict(list)
        for trial in self.trials:
            found[trial.config.criterion, _share(trial)].append(trial)
        curves: dict[str, list[Point]] = defaultdict(list)
        for (criterion, _), own in sorted(found.items(), key=lambda item: item[0][1]):
            curves[criterion].append(Point(criterion, own))
        return dict(sorted(curves.items(), key=lambda item: order_of_criteria(item[0])))

    @cached_property
    def recommended(self) -> Point | None:
        """The point that prunes most and loses no more than allowed, by validation images.

        It and all smaller shares of its criterion stay within the allowed loss, and none of them
        lacks a trial; of two criteria at one share the one that loses less. None if no share does.
        """
        # Bonferroni's correction: the best of several criteria is chosen.
        confidence = 1 - (1 - CONFIDENCE) / len(self.curves)
        shares = sorted(set(map(_share, self.trials)))
        within: list[tuple[float, float, Point]] = []
        for points in self.curves.values():
            for share, point in zip(shares, points, strict=False):
                complete = share == point.share and len(point.trials) == self.seeds
                if not complete or point.most_lost(confidence) > self.loss:
                    break
                within.append((share, -point.validation_loss.mean, point))
        return max(within, key=lambda each: each[:2])[2] if within else None


def share_within(points: Sequence[Point], loss: float) -> str:
    """Return the share at which a criterion's validation loss reaches an allowed one, as text."""
    by_seed: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for point in points:
        for trial in point.trials:
            by_seed[trial.config.seed].append((trial.params_pruned / 100, _lost(trial)))
    crossings = [share_at_loss(pairs, loss) for pairs in by_seed.values()]
    known = [100 * share for share in crossings if share is not None]
    if beyond := len(crossings) - len(known):
        return f"above {points[-1].pruned:.2f} for {beyond} of {len(crossings)} seeds"
    half_width = _difference(known, 0.0).half_width()
    mean = float(np.mean(known))
    if math.isnan(half_width):
        return f"{mean:.2f}"
    return f"{mean:.2f} [{max(0.0, mean - half_width):.2f}, {min(100.0, mean + half_width):.2f}]"


def network_folder(trial: TrialResult) -> str:
    """Return the name of the folder of a trial's exported network, beside the page."""
    return f"network-{trial.keys.key[:8]}"


def write_study(output: Path, study: Study, facts: Sequence[str]) -> None:
    """Write the page as Markdown and as HTML with its picture inside.

    Args:
        output: folder.
        study: to describe.
        facts: lines on how it was measured.
    """
    buffer = io.BytesIO()
    save(draw_study(study), buffer)
    text = study_page(study, facts)
    write_atomic(output / PICTURE, buffer.getvalue())
    write_atomic(output / PAGE, text.encode())
    write_atomic(output / HTML_PAGE, _html(text, buffer.getvalue()).encode())


def study_page(study: Study, facts: Sequence[str]) -> str:
    """Return the page as Markdown."""
    experiment = study.trials[0].config.experiment
    loss = f"{study.loss:g} {'point' if study.loss == 1 else 'points'}"
    of_criteria = [
        [criterion, share_within(points, study.loss)] for criterion, points in study.curves.items()
    ]
    rows = [_row(point, study.exported) for points in study.curves.values() for point in points]
    exported = ["Weights exported", "Multiply-adds exported", "Latency exported"]
    header = ["Criterion", "Pruned", "Test accuracy", "Test loss", "Validation loss", *exported]
    reasons = sorted({why for why in study.exported.values() if isinstance(why, str)})
    parts = [
        [f"# How much of {experiment.network.name} on {experiment.data.name} can be pruned"],
        [_answer(study, loss)],
        [f"![accuracy against what is pruned, multiply-adds and latency]({PICTURE})"],
        ["## The share at a loss"],
        [
            "The share of the weights, in percent, at which the loss of validation accuracy "
            f"reaches {loss}: mean over the seeds and its {CONFIDENCE:.0%} interval, interpolated "
            "between the measured shares."
        ],
        table(["Criterion", f"Share at a loss of {loss}"], of_criteria, left=(0,)),
        ["## Every measured share"],
        [
            "Loss is the accuracy of the unpruned network, retrained alike, less that of the "
            "pruned one, in percentage points. Exported figures are percent of the unpruned "
            "network's: mint export removes filters that no kept weight needs."
        ],
        table(header, rows, left=(0,)),
        [f"Not exported: {why}" for why in reasons],
        ["## How it was measured"],
        [f"- {fact}" for fact in (*facts, *_rules(study, loss))],
        _where(study),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _answer(study: Study, loss: str) -> str:
    """Return what the study recommends, in one paragraph."""
    point = study.recommended
    if point is None:
        least = min(
            (points[0] for points in study.curves.values()),
            key=lambda each: each.validation_loss.mean,
        )
        return (
            f"**No measured share is certain to stay within a loss of {loss}.** The smallest, "
            f"{least.pruned:.2f}% by {least.criterion}, loses {_interval(least.validation_loss)} "
            "points of validation accuracy. More seeds or validation images narrow the interval."
        )
    answer = (
        f"**{point.pruned:.2f}% of {_counted(point)} can be pruned by {point.criterion}.** Test "
        f"accuracy is then {point.accuracy:.2f}%; the loss is {_interval(point.loss)} points. The "
        f"unpruned network has {_mean(point, 'baseline_accuracy')}%, and retrained alike "
        f"{_mean(point, 'dense_accuracy')}%."
    )
    if len(point.trials) < FEWEST_SEEDS:
        answer += " There are too few seeds for an interval."
    small = _exported(point, study.exported)
    if small is None:
        return answer
    if small.exported_weights == small.dense_weights:
        return f"{answer} All filters have kept weights, so mint export cannot make it smaller."
    return (
        f"{answer} The exported network has {_part(small.exported_weights, small.dense_weights)}% "
        f"of the weights and {_part(small.exported_multiply_adds, small.dense_multiply_adds)}% of "
        f"the multiply-adds, and takes {_part(small.exported_ms, small.dense_ms)}% of the time."
    )


def _where(study: Study) -> list[str]:
    """Return a line on where the recommended network is."""
    if study.recommended is None or _exported(study.recommended, study.exported) is None:
        return []
    trial = study.recommended.trials[0]
    folder = network_folder(trial)
    return [
        f"The recommended network is in [{folder}]({folder}/network.py). It is that of seed "
        f"{trial.config.seed}: test accuracy {trial.accuracy:.2f}%, validation loss "
        f"{_lost(trial):.2f} points."
    ]


def _counted(point: Point) -> str:
    """Return which weights the shares of a point refer to."""
    trial = point.trials[0]
    if trial.config.experiment.count == "all":
        return "all weights"
    total = sum(layer.weights for layer in trial.layers)
    of_all = 100 * trial.pruned_weights / total
    return f"the weights of the pruned layers, which is {of_all:.2f}% of all weights,"


def _mean(point: Point, figure: str) -> str:
    return f"{np.mean([getattr(trial, figure) for trial in point.trials]):.2f}"


def _rules(study: Study, loss: str) -> Iterable[str]:
    seeds = {trial.config.seed for trial in study.trials}
    bound = f"the upper end of the {CONFIDENCE:.0%} interval of the validation loss"
    yield (
        f"Recommended is the largest share where {bound}, corrected for the number of criteria, is "
        f"at most {loss}, there and at all smaller shares. With fewer than three seeds the mean "
        "decides, without a margin for chance. Test images chose nothing."
    )
    threads = study.trials[0].config.experiment.threads
    yield f"Latency is that of one image on the CPU, with {threads} threads."
    if study.failed:
        yield f"Failed: {study.failed} trials; a share that lacks one is not recommended."
    if study.left_out or len(seeds) < FEWEST_SEEDS:
        left = [*study.left_out, *(["more seeds"] if len(seeds) < FEWEST_SEEDS else [])]
        yield f"Left out, to stay within the budget: {', '.join(left)}."


def _row(point: Point, exported: Mapping[str, Exported | str]) -> list[str]:
    small = _exported(point, exported)
    sizes = ["N/A"] * 3
    if small:
        sizes = [
            _part(small.exported_weights, small.dense_weights),
            _part(small.exported_multiply_adds, small.dense_multiply_adds),
            _part(small.exported_ms, small.dense_ms),
        ]
    figures = f"{point.pruned:.2f}", f"{point.accuracy:.2f}"
    losses = _interval(point.loss), _interval(point.validation_loss)
    return [point.criterion, *figures, *losses, *sizes]


def _exported(point: Point, exported: Mapping[str, Exported | str]) -> Exported | None:
    """Return the exported network of a point's first trial; None if there is none."""
    found = exported.get(point.trials[0].keys.key)
    return found if isinstance(found, Exported) else None


def _interval(difference: Difference) -> str:
    return f"{difference.mean:z.2f} {difference.interval}".strip()


def _part(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}"


def draw_study(study: Study) -> "Figure":
    """Draw test accuracy against what is pruned, and against what the export leaves."""
    figure, panels = new_panels(3, 3.4, sharey=True)
    for (criterion, points), colour, marker in zip(
        study.curves.items(), cycle(COLOURS), cycle(MARKERS), strict=False
    ):
        accuracies = [point.accuracy for point in points]
        style: Any = {"color": colour, "marker": marker, "markersize": 4, "label": criterion}
        panels[0].plot([100 - point.pruned for point in points], accuracies, **style)
        small = [(_exported(point, study.exported), point.accuracy) for point in points]
        made = [(each, accuracy) for each, accuracy in small if each]
        for axes, part, whole, line in (
            (panels[1], "exported_multiply_adds", "dense_multiply_adds", "-"),
            (panels[2], "exported_ms", "dense_ms", ""),  # noisy: a line would go to and fro
        ):
            places = [100 * getattr(each, part) / getattr(each, whole) for each, _ in made]
            axes.plot(places, [accuracy for _, accuracy in made], linestyle=line, **style)
    dense = {trial.config.seed: _dense_accuracy(trial) for trial in study.trials}
    pruned = sorted(
        {round(100 - point.pruned, 2) for points in study.curves.values() for point in points}
    )
    unpruned = float(np.mean(list(dense.values())))
    for axes in panels:
        axes.axhline(unpruned, color="0.45", linestyle="--", linewidth=1)
        add_grid(axes)
    panels[0].set_xscale("log")
    panels[0].invert_xaxis()
    panels[0].set_xticks(pruned, [f"{100 - kept:g}" for kept in pruned])
    panels[0].minorticks_off()
    panels[0].set(xlabel="weights pruned (%)", ylabel="test accuracy (%)")
    for axes, name in zip(panels[1:], ("multiply-adds", "latency"), strict=True):
        axes.invert_xaxis()
        axes.set_xlabel(f"{name}, exported (%)")
    panels[0].legend(fontsize=9)
    if point := study.recommended:
        panels[0].plot(
            100 - point.pruned,
            point.accuracy,
            "o",
            markersize=12,
            markerfacecolor="none",
            color="0.2",
        )
    figure.supxlabel(
        "dashed: the unpruned network, retrained alike; circle: recommended", fontsize=9
    )
    return figure


def _html(text: str, picture: bytes) -> str:
    """Return the page as one HTML file that needs no other."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(text)
    inside = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    title = re.sub(r"^# ", "", text.partition("\n")[0])
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n"
        f"{body.replace(PICTURE, inside)}</html>\n"
    )
