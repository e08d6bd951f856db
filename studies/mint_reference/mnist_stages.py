"""The pipeline of one mnist_mlp trial on the CPU, for the benchmarks of this folder."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mint.config.schema import Experiment, TrialConfig
from mint.data.datasets import Source
from mint.store.stage_cache import StageCache
from mint.trial.pipeline import TrialPipeline
from mint.trial.provenance import Provenance

CPU = torch.device("cpu")


def argument_parser(description: str | None, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """Return a parser with options for the seeds, MNIST and finished stages."""
    parser = argparse.ArgumentParser(description=description)
    data_dir = Path(os.environ.get("MINT_DATA_DIR", "data"))
    parser.add_argument("--data-dir", type=Path, default=data_dir)
    parser.add_argument("--cache-dir", type=Path, default=Path(".mint"))
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    return parser


def mnist_stages(
    experiment: Experiment, source: Source, cache_dir: Path, *, seed: int, **axes: Any
) -> TrialPipeline:
    """Return the pipeline of a trial: 20 groups, 250 samples per class, no upper limit.

    Args:
        experiment: mnist_mlp, or a changed copy.
        source: MNIST.
        cache_dir: folder of finished stages.
        seed: of the trial.
        axes: further fields of TrialConfig.
    """
    config = TrialConfig(
        experiment=experiment,
        groups=20,
        samples_per_class=250,
        upper_limit=None,
        seed=seed,
        data_digest=source.digest,
        **axes,
    )
    return TrialPipeline(
        config,
        source,
        cache=StageCache(cache_dir),
        provenance=Provenance.of_this_process(None, sys.argv, CPU.type),
    )
