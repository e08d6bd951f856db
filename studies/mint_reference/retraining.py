"""Time that shorter retraining of the MNIST MLP saves, and accuracy that it costs.

Run as: uv run python studies/mint_reference/retraining.py [--data-dir DIR] [--seeds 0 1 2 3 4]

For every seed, this prunes 96% of fc1 -> fc2 of the published baseline in random blocks, and
retrains it under each schedule in one process. Accuracy is that of the last epoch on validation
images; the test images are not read, for a schedule is chosen by it. It prints each schedule
against the published one, paired by seed, and the seconds per epoch. It also prints the seconds of
an epoch without the filters of fc1 that no kept weight reads.
"""

import statistics
import sys
from collections.abc import Mapping

import pandas as pd
from mnist_stages import CPU, argument_parser, mnist_stages
from torch import nn

from mint.config.loading import load_experiment
from mint.config.schema import TrainingConfig
from mint.data.datasets import load_source
from mint.models.mlp import mlp
from mint.reporting.statistics import Difference
from mint.training.determinism import reproducible
from mint.training.loop import train
from mint.trial.pipeline import TrialPipeline

FRACTION = 0.96


def schedules(published: TrainingConfig) -> Mapping[str, TrainingConfig]:
    """Return the schedules to compare, the published one first."""

    def cosine(epochs: int, **update: object) -> TrainingConfig:
        changed = {"schedule": "cosine", "milestones": (), "epochs": epochs, **update}
        return published.model_copy(update=changed)

    return {
        "30 epochs, steps (published)": published,
        "12 epochs, cosine": cosine(12),
        "12 epochs, cosine, bfloat16": cosine(12, precision="bfloat16"),
        "12 epochs, cosine, batch 512, lr 0.2": cosine(12, batch_size=512, lr=0.2),
        "8 epochs, cosine": cosine(8),
        "8 epochs, cosine, lr 0.05": cosine(8, lr=0.05),
    }


def main() -> int:
    """Retrain, and print the table."""
    options = argument_parser(__doc__, seeds=[0, 1, 2, 3, 4]).parse_args()
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, options.data_dir)
    rows: list[dict[str, object]] = []
    for seed in options.seeds:
        with reproducible(experiment.threads, CPU):
            stages = mnist_stages(
                experiment,
                source,
                options.cache_dir,
                seed=seed,
                criterion="random",
                fraction=FRACTION,
            )
            masks = stages.ranking.masks(stages.ranking.blocks_within(FRACTION, stages.counted))
            for name, settings in schedules(experiment.training).items():
                network = stages.network(stages.baseline)
                history = train(network, stages.dataset, settings, seed=seed, masks=masks.tensors())
                seconds = statistics.median(epoch.seconds for epoch in history)
                rows.append(
                    {
                        "schedule": name,
                        "seed": seed,
                        "accuracy": history[-1].validation_accuracy,
                        "epoch": seconds,
                        "whole": seconds * settings.epochs,
                    }
                )
                print(f"seed {seed}: {name}: {rows[-1]['accuracy']:.2f}%", flush=True)
            alive = int(masks["fc2.weight"].any(0).sum())
            rows += _narrow(stages, alive, seed)
    _show(pd.DataFrame(rows))
    return 0


def _narrow(stages: TrialPipeline, alive: int, seed: int) -> list[dict[str, object]]:
    """Time an epoch with all filters of fc1, and with those that a kept weight reads."""
    timed = []
    once = stages.experiment.training.model_copy(update={"epochs": 1})
    for name, width in (("all filters of fc1", 500), ("those that are read", alive)):
        network: nn.Module = mlp((784, width, 300, 10), 0.2)
        seconds = [train(network, stages.dataset, once, seed=seed)[0].seconds for _ in range(2)]
        timed.append({"schedule": name, "seed": seed, "epoch": min(seconds)})
    return timed


def _show(rows: pd.DataFrame) -> None:
    names = list(dict.fromkeys(rows["schedule"]))
    published = rows[rows["schedule"] == names[0]]
    epoch = float(published["epoch"].median())
    print(f"\n{'':38}{'validation':>11}{'against published':>27}{'s an epoch':>12}{'x faster':>10}")
    for name in names:
        own = rows[rows["schedule"] == name]
        if own["accuracy"].isna().all():
            read = float(own["epoch"].median())
            print(f"{name:38}{'':11}{'':27}{read:12.2f}{epoch / read:10.2f}")
            continue
        paired = own.merge(published, on="seed", suffixes=("", "_published"))
        difference = Difference.of((paired["accuracy"] - paired["accuracy_published"]).tolist())
        assert difference is not None
        faster = float(published["whole"].median() / own["whole"].median())
        change = f"{difference.mean:+.2f} {difference.interval}"
        print(
            f"{name:38}{own['accuracy'].mean():10.2f}%{change:>27}"
            f"{own['epoch'].median():12.2f}{faster:10.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
