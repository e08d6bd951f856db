"""Which masking variant keeps most accuracy; the origin of keep_connected.

Run as: uv run python studies/mint_reference/masking.py [--data-dir DIR] [--seeds 0 1 2]

This prunes 98 and 99% of mnist_mlp's fc1 -> fc2 in 20 x 20 blocks and retrains for one epoch: then
masks differ in accuracy. It varies the score: MINT's value, its z-score, without a condition, or
with a few principal components of the other parents as the condition; magnitude and random blocks
are controls. It varies the groups, neighbours or correlated filters, and keep_connected. With three
epochs it compares 99% at once with 90, 97 and 99%, an epoch and new scores between them. Accuracy
is that of validation images, for a variant is chosen by it. masking.csv is for PUZZLES.md.
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmark_tables import MASKING
from mnist_stages import CPU, argument_parser, mnist_stages
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import nn

from mint.config.loading import load_experiment
from mint.data.datasets import load_source
from mint.gmi.estimator import contiguous_groups, gmi_scores
from mint.pruning.masks import Masks
from mint.pruning.ranking import BlockRanking
from mint.pruning.scores import BlockScores
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
FRACTIONS = (0.98, 0.99)
STEPS = (0.9, 0.97, 0.99)


def main() -> int:
    """Prune and retrain; print and write the table."""
    parser = argument_parser(__doc__, seeds=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, options.data_dir)
    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        with reproducible(experiment.threads, CPU):
            stages = mnist_stages(experiment, source, options.cache_dir, seed=seed)
            for row in _variants(stages):
                rows.append({"seed": seed, **row})
                print(" ".join(map(str, rows[-1].values())), flush=True)
    table = pd.DataFrame(rows)
    shown = table.groupby(["steps", "grouping", "keep_connected", "fraction", "score"])["accuracy"]
    print(shown.agg(["mean", "std"]).round(2).to_string())
    content = table.to_csv(index=False, lineterminator="\n").encode()
    write_atomic(options.output / MASKING, content)
    return 0


def _variants(stages: TrialPipeline) -> list[dict[str, object]]:
    baseline = stages.network(stages.baseline)
    child, parent = _activations(stages, baseline)
    contiguous = contiguous_groups(child.shape[1], GROUPS), contiguous_groups(500, GROUPS)
    correlated = _correlated(child), _correlated(parent)
    rows: list[dict[str, object]] = []

    def add(steps: str, grouping: str, connected: bool, name: str, accuracy: float) -> None:
        rows.append(
            {
                "steps": steps,
                "grouping": grouping,
                "keep_connected": int(connected),
                "fraction": fraction,
                "score": name,
                "accuracy": accuracy,
            }
        )

    for grouping, labels in (("contiguous", contiguous), ("correlated", correlated)):
        scores = {
            name: score(baseline)
            for name, score in _scores(stages, *labels).items()
            if grouping == "contiguous" or "components" not in name
        }
        for fraction in FRACTIONS:
            for connected in (False, True):
                for name, value in scores.items():
                    masks = _masks(stages, value, labels, fraction, connected)
                    accuracy = _retrained(stages, baseline, masks, 1)[1]
                    add("one step", grouping, connected, name, accuracy)
    fraction = STEPS[-1]
    for name in ("mint, unconditional", "block-magnitude", "random"):
        score = _scores(stages, *contiguous)[name]
        masks = _masks(stages, score(baseline), contiguous, fraction, True)
        accuracy = _retrained(stages, baseline, masks, len(STEPS))[1]
        add("one step, 3 epochs", "contiguous", True, name, accuracy)
        network = baseline
        for step in STEPS:
            masks = _masks(stages, score(network), contiguous, step, True)
            network, accuracy = _retrained(stages, network, masks, 1)
        add("three steps, 3 epochs", "contiguous", True, name, accuracy)
    return rows


def _activations(stages: TrialPipeline, network: nn.Module) -> tuple[Floats, Floats]:
    """Return (n, 300) of fc2 and (n, 500) of fc1, after their ReLUs, for the estimation rows."""
    network.eval()
    children, parents = [], []
    with torch.inference_mode():
        for inputs, _ in stages.dataset.train.batches(1024, stages.rows):
            parents.append(network.get_submodule("fc1")(inputs.flatten(1)).relu())
            children.append(network.get_submodule("fc2")(parents[-1]).relu())
    return torch.cat(children).double().numpy(), torch.cat(parents).double().numpy()


def _correlated(activations: Floats) -> Labels:
    """Label filters with groups of equal size along the tree of their correlations."""
    deviation = activations.std(0)
    similar = np.eye(len(deviation))
    alive = np.flatnonzero(deviation > 0)
    similar[np.ix_(alive, alive)] = np.abs(np.corrcoef(activations[:, alive].T))
    distances = squareform((1 - (similar + similar.T) / 2).clip(0), checks=False)
    labels = np.empty(len(deviation), np.int64)
    labels[leaves_list(linkage(distances, "average"))] = contiguous_groups(len(deviation), GROUPS)
    return labels


def _scores(stages: TrialPipeline, children: Labels, parents: Labels) -> dict[str, Score]:
    """Return every score of the blocks of these groups, as a function of the network."""
    seed = stages.config.seed

    @cache
    def estimated(network: nn.Module, conditional: bool) -> tuple[Floats, Floats]:
        scores = gmi_scores(
            *_activations(stages, network),
            children,
            parents,
            bootstraps=30 if conditional else 10,
            seed=seed,
            conditional=conditional,
        )
        return scores.value, scores.z_score

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
        "mint": lambda network: estimated(network, True)[0],
        "mint, z-score": lambda network: estimated(network, True)[1],
        "mint, unconditional": lambda network: estimated(network, False)[0],
        "mint, 10 components": partial(given_components, count=10),
        "block-magnitude": magnitude,
        "random": random,
    }


def _masks(
    stages: TrialPipeline,
    value: Floats,
    labels: tuple[Labels, Labels],
    fraction: float,
    connected: bool,
) -> Masks:
    children, parents = labels
    ranking = BlockRanking(
        {WEIGHT: BlockScores(value, children, parents[None])},
        limits={WEIGHT: None},
        generator=stream(stages.config.seed, "order of equal scores"),
        keep_connected=connected,
    )
    return ranking.masks(ranking.blocks_within(fraction, stages.counted))


def _retrained(
    stages: TrialPipeline, start: nn.Module, masks: Masks, epochs: int
) -> tuple[nn.Module, float]:
    """Return a copy of the network retrained under the masks, and its validation accuracy."""
    network = stages.network(stages.baseline)
    network.load_state_dict(start.state_dict())
    settings = stages.experiment.retraining_settings("full").model_copy(update={"epochs": epochs})
    history = train(
        network, stages.dataset, settings, seed=stages.config.seed, masks=masks.tensors()
    )
    return network, history[-1].validation_accuracy


if __name__ == "__main__":
    sys.exit(main())
