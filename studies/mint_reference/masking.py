"""Which way of masking keeps most accuracy: where --floor comes from, and what was left out.

Run as: uv run python benchmarks/masking.py [--data-dir DIR] [--seeds 0 1 2]

Prunes 98 and 99% of mnist_mlp's fc1 -> fc2 in 20 x 20 blocks and retrains for one epoch, which is
where masks differ. What is varied is the score (MINT's value, its z-score, without a condition, or
given a few principal components of the other parents in place of all of them; magnitude and random
blocks beside them), groups of neighbours or of correlated filters, and the floor. Then, for three
epochs: 99% at once, or 90, 97 and 99% with an epoch and new scores between. Accuracy is that of
validation images, for a way is chosen by it. Writes masking.csv, which PUZZLES.md is made from.
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mnist_stages import CPU, command_line, mnist_stages
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import nn

from mint.config.loading import load_experiment
from mint.data.datasets import load_source
from mint.gmi.estimator import Scores, contiguous_groups, gmi_scores
from mint.pruning.masks import Masks
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores
from mint.reporting.measured import MASKING
from mint.rng import stream
from mint.store.atomic import write_atomic
from mint.training.determinism import reproducible
from mint.training.loop import train
from mint.trial.pipeline import TrialPipeline

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Score = Callable[[nn.Module], Floats]

GROUPS = 20
WEIGHT = "fc2.weight"
STEPS = (0.9, 0.97, 0.99)


def main() -> int:
    """Mask, retrain, print, write."""
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, options.data_dir)
    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        with reproducible(experiment.threads, CPU):
            stages = mnist_stages(experiment, source, options.cache_dir, seed=seed)
            for row in _compared(stages):
                rows.append({"seed": seed, **row})
                print(" ".join(map(str, rows[-1].values())), flush=True)
    table = pd.DataFrame(rows)
    shown = table.groupby(["ways", "grouping", "floor", "share", "score"])["accuracy"]
    print(shown.agg(["mean", "std"]).round(2).to_string())
    content = table.to_csv(index=False, lineterminator="\n").encode()
    write_atomic(options.output / MASKING, content)
    return 0


def _compared(stages: TrialPipeline) -> list[dict[str, object]]:
    baseline = stages.network(stages.baseline)
    child, parent = _activations(stages, baseline)
    contiguous = contiguous_groups(child.shape[1], GROUPS), contiguous_groups(500, GROUPS)
    correlated = _correlated(child), _correlated(parent)
    rows: list[dict[str, object]] = []
    for grouping, labels in (("contiguous", contiguous), ("correlated", correlated)):
        scores = {
            name: score(baseline)
            for name, score in _scores(stages, *labels).items()
            if grouping == "contiguous" or "components" not in name
        }
        for share in (0.98, 0.99):
            for floor in (False, True):
                for name, value in scores.items():
                    masks = _masks(stages, value, labels, share, floor)
                    accuracy = _retrained(stages, baseline, masks, 1)[1]
                    rows.append(_row("one step", grouping, floor, share, name, accuracy))
    for name in ("mint, unconditional", "block-magnitude", "random"):
        score = _scores(stages, *contiguous)[name]
        masks = _masks(stages, score(baseline), contiguous, STEPS[-1], True)
        accuracy = _retrained(stages, baseline, masks, len(STEPS))[1]
        rows.append(_row("one step, 3 epochs", "contiguous", True, STEPS[-1], name, accuracy))
        network = baseline
        for share in STEPS:
            masks = _masks(stages, score(network), contiguous, share, True)
            network, accuracy = _retrained(stages, network, masks, 1)
        rows.append(_row("three steps, 3 epochs", "contiguous", True, STEPS[-1], name, accuracy))
    return rows


def _row(
    ways: str, grouping: str, floor: bool, share: float, score: str, accuracy: float
) -> dict[str, object]:
    return {
        "ways": ways,
        "grouping": grouping,
        "floor": int(floor),
        "share": share,
        "score": score,
        "accuracy": accuracy,
    }


def _activations(stages: TrialPipeline, network: nn.Module) -> tuple[Floats, Floats]:
    """Return (n, 300) of fc2 and (n, 500) of fc1, behind their ReLUs, for the estimation rows."""
    network.eval()
    children, parents = [], []
    with torch.inference_mode():
        for inputs, _ in stages.dataset.train.batches(1024, stages.rows):
            parents.append(network.get_submodule("fc1")(inputs.flatten(1)).relu())
            children.append(network.get_submodule("fc2")(parents[-1]).relu())
    return torch.cat(children).double().numpy(), torch.cat(parents).double().numpy()


def _correlated(activations: Floats) -> Labels:
    """Label filters with groups of one size along the tree of their correlations."""
    spread = activations.std(0)
    similar = np.eye(len(spread))
    alive = np.flatnonzero(spread > 0)
    similar[np.ix_(alive, alive)] = np.abs(np.corrcoef(activations[:, alive].T))
    distances = squareform((1 - (similar + similar.T) / 2).clip(0), checks=False)
    labels = np.empty(len(spread), np.int64)
    labels[leaves_list(linkage(distances, "average"))] = contiguous_groups(len(spread), GROUPS)
    return labels


def _scores(stages: TrialPipeline, children: Labels, parents: Labels) -> dict[str, Score]:
    """Return every score of the blocks of these groups, as a function of the network."""
    seed = stages.config.seed

    @cache
    def estimated(network: nn.Module, conditional: bool) -> Scores:
        return gmi_scores(
            *_activations(stages, network),
            children,
            parents,
            bootstraps=30 if conditional else 10,
            seed=seed,
            conditional=conditional,
        )

    def given_components(network: nn.Module, *, count: int) -> Floats:
        child, parent = _activations(stages, network)
        columns = []
        for label in range(GROUPS):
            own, rest = parent[:, parents == label], parent[:, parents != label]
            left, size, _ = np.linalg.svd(rest - rest.mean(0), full_matrices=False)
            given = np.hstack([own, left[:, :count] * size[:count]])
            of_given = np.repeat([0, 1], [own.shape[1], count])
            scores = gmi_scores(child, given, children, of_given, bootstraps=3, seed=seed)
            columns.append(scores.value[:, 0])
        return np.stack(columns, axis=1)

    def magnitude(network: nn.Module) -> Floats:
        weight = np.abs(network.get_parameter(WEIGHT).detach().double().numpy())
        rows = np.stack([weight[children == label].mean(0) for label in range(GROUPS)])
        return np.stack([rows[:, parents == label].mean(1) for label in range(GROUPS)], axis=1)

    def random(_: nn.Module) -> Floats:
        return stream(seed, "random scores of fc2").random((GROUPS, GROUPS))

    return {
        "mint": lambda network: estimated(network, True).value,
        "mint, z-score": lambda network: estimated(network, True).z_score,
        "mint, unconditional": lambda network: estimated(network, False).value,
        "mint, 10 components": partial(given_components, count=10),
        "block-magnitude": magnitude,
        "random": random,
    }


def _masks(
    stages: TrialPipeline, value: Floats, labels: tuple[Labels, Labels], share: float, floor: bool
) -> Masks:
    children, parents = labels
    order = BlockRanking(
        {WEIGHT: BlockScores(value, children, parents[None])},
        limits={WEIGHT: None},
        generator=stream(stages.config.seed, "order of equal scores"),
        keep_connected=floor,
    )
    return order.masks(order.blocks_within(share, stages.counted))


def _retrained(
    stages: TrialPipeline, start: nn.Module, masks: Masks, epochs: int
) -> tuple[nn.Module, float]:
    """Return a copy of the network retrained under the masks, and its validation accuracy."""
    network = stages.network(stages.baseline)
    network.load_state_dict(start.state_dict())
    settings = stages.experiment.retraining_settings.model_copy(update={"epochs": epochs})
    history = train(
        network, stages.dataset, settings, seed=stages.config.seed, masks=masks.tensors()
    )
    return network, history[-1].validation_accuracy


if __name__ == "__main__":
    sys.exit(main())
