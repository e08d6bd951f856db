"""Values that the command line, the driver and the workers of a sweep exchange."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mint.config.grid import Grid
from mint.config.schema import TrialConfig
from mint.store.stage_cache import StageCache
from mint.trial.provenance import Provenance
from mint.trial.setup import PlannedTrials


@dataclass(frozen=True)
class SweepSettings:
    """Where and how the workers run a sweep's trials.

    Attributes:
        name: of the sweep and its experiment.
        own_code: files and packages of the user's own network and criteria.
        storage: URI of the folder where nodes share finished stages; None for one machine.
        gpus_per_trial: share of a GPU, or a number of GPUs; 0 for the CPU.
        threads: CPU threads of one trial.
        search: grid runs all trials, asha stops those that fall behind, optuna draws them.
        live: report every epoch of the running trials.
        ray_address: of a cluster, whose nodes may have folders of their own in MINT_DATA_DIR and
            MINT_CACHE_DIR; None for this machine alone.
    """

    name: str
    provenance: Provenance
    data_dir: Path
    cache_root: Path
    storage: str | None
    threads: int
    own_code: Sequence[str] = ()
    gpus_per_trial: float = 0
    search: Literal["grid", "asha", "optuna"] = "grid"
    live: bool = False
    ray_address: str | None = None

    def sharing_memory(self, at_once: int | None) -> int:
        """Return how many of so many trials share the memory of a machine like this one."""
        fitting = max(1, (os.cpu_count() or 1) // self.threads)
        return min(at_once or fitting, fitting)


@dataclass(frozen=True)
class SweepRequest:
    """A sweep to run; its values were checked.

    Attributes:
        settings: of its workers.
        planned: trials of the grid; for Optuna, the corners of its search space.
        tracking_uri: of the MLflow store.
        cache: of finished stages.
        output: results folder.
        references: files of published rows that the report prints beside the measured ones.
        space: axes that Optuna draws from; its fractions are the bounds.
        draws: number of trials that Optuna draws.
        init: file of weights to start from.
        max_concurrent_trials: None for as many as fit.
    """

    settings: SweepSettings
    planned: PlannedTrials
    tracking_uri: str
    cache: StageCache
    output: Path
    references: Sequence[Path]
    space: Grid
    draws: int
    init: Path | None
    max_concurrent_trials: int | None

    @property
    def base(self) -> TrialConfig:
        """A trial with what all trials share."""
        return self.planned.configs[0]


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        interrupted: by Ctrl-C or SIGTERM; the report was not rebuilt.
        problems: lines on what is missing in the report or in MLflow.
        experiment_id: MLflow's id of the experiment.
    """

    interrupted: bool
    problems: Sequence[str]
    experiment_id: str
