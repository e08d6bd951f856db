"""Questions about upper limits: ties of the original's quantile, and the limits of VGG16."""

from collections.abc import Iterable

import pandas as pd
from conclusions import Answer, answer

from mint.reporting.aggregate import ACCURACY, SeedGroup, format_count, format_mean
from mint.reporting.markdown import table
from mint.reporting.reference import ReferenceResults

_PRUNABLE_OF_BREAKDOWN = 13275136


def limit_of_80(limits: pd.DataFrame | None) -> Answer:
    """Return the answer on the limit of 80%, from the table of limits.py."""
    question = "Why did a limit of 80% leave 13%?"
    background = (
        "The original takes the limit as a quantile of the unique scores. One bootstrap counts "
        "edges, so there are few different scores, and most blocks share the lowest of them."
    )
    if limits is None or limits.empty:
        return answer(question, background, [], [])
    header = ["Limit (%)", "Different scores of 400", "By their quantile (%)", "Exactly (%)"]
    rows = [
        [
            f"{100 * float(limit):g}",  # type: ignore[arg-type]
            *(format_mean(own[name].to_numpy(float)) for name in list(limits)[2:]),
        ]
        for limit, own in limits.groupby("limit")
    ]
    of_80 = limits[limits["limit"] == 0.8]["by_quantile"]
    seeds = format_count(int(limits["seed"].nunique()), "seed")
    sentences = [
        "Measured by `studies/mint_reference/limits.py` on one-bootstrap scores of fc1 -> fc2 "
        f"(20 x 20 groups, {seeds}). With a limit of 80%, the original's rule prunes "
        f"{of_80.min():.1f} to {of_80.max():.1f}%, and so keeps {100 - of_80.max():.1f} to "
        f"{100 - of_80.min():.1f}%: near the 13% of the reference results. An exact limit keeps "
        "20%. It is certain, by arithmetic, that with ties a quantile of unique values prunes more "
        "than the limit. The scores of the authors' own run are not known"
    ]
    return answer(question, background, sentences, table(header, rows))


def limits_of_vgg16(groups: Iterable[SeedGroup], reference: ReferenceResults) -> Answer:
    """Return the answer on VGG16's limits.

    Args:
        groups: of all trials.
        reference: results of the authors' experiment on VGG16.
    """
    layers = reference.layers
    total = sum(layer.weights for layer in layers)
    prunable = {
        "of the authors' layer breakdown": _PRUNABLE_OF_BREAKDOWN,
        "of their run of 83.43%, as here": sum(
            layer.weights for layer in layers if not layer.reason
        ),
    }
    header = ["Limit", *(f"Prunable {name}: {weights} (%)" for name, weights in prunable.items())]
    rows = [
        [f"{limit:g}", *(f"{100 * limit * weights / total:.2f}" for weights in prunable.values())]
        for limit in (0.75, 0.8, 0.85)
    ]
    evidence = table(header, rows)
    measured = [
        [
            *(group.experiment, group.upper_limit, group.criterion),
            *(group.mean("params_pruned"), group.mean(ACCURACY), group.seeds),
        ]
        for group in sorted(groups, key=lambda group: (group.protocol, group.upper_limit))
        if group.finished
        and group.experiment.startswith("vgg16_cifar10")
        and group.upper_limit != "none"
    ]
    if measured:
        header = ["Experiment", "Limit", "Criterion", "Pruned (%)", "Test accuracy (%)", "Seeds"]
        trials = table(header, measured, left=(0, 2))
        evidence = [*evidence, "", "Trials with limits:", "", *trials]
    return answer(
        "Do limits per layer change VGG16 as the authors expect?",
        "They expect at most 66.47% of all weights pruned with a limit of 75%, and 70.90% with "
        "80%.",
        [
            f"Of all {total} weights a limit allows at most its product with the prunable ones. "
            "The authors' expectation is right for the prunable weights of their breakdown; their "
            "best run could prune more weights. This is certain, by arithmetic"
            + ("" if measured else ". Accuracy under these limits was not run")
        ],
        evidence,
    )
