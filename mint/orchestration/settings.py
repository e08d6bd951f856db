"""Values that the command line, the driver and the workers of a sweep exchange."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mint.config.grid import Grid
from mint.config.schema import Experiment
from mint.store.stage_cache import StageCache
from mint.trial.provenance import Provenance
from mint.trial.setup import PlannedTrials

Search = Literal["grid", "asha", "optuna"]


@dataclass(frozen=True)
class SweepRequest:
    """A sweep to run; its values were checked.

    Attributes:
        name: of the sweep.
        command: words of the command line, program first.
        experiment: of all trials.
        planned: trials of the grid; for Optuna, the corners of its search space.
        tracking_uri: of the MLflow store.
        cache: of finished stages.
        data_dir: folder of the data sets.
        output: results folder.
        references: files of published rows that the report prints beside the measured ones.
        search: grid runs all trials, asha stops those that fall behind, optuna draws them.
        space: axes that Optuna draws from; its fractions are the bounds. None for the others.
        draws: number of trials that Optuna draws.
        init: file of weights to start from.
        gpus_per_trial: share of a GPU, or a number of GPUs; 0 for the CPU.
        max_concurrent_trials: None for as many as fit.
        ray_address: of a cluster; None for this machine alone.
        live: report every epoch of the running trials.
    """

    name: str
    command: Sequence[str]
    experiment: Experiment
    planned: PlannedTrials
    tracking_uri: str
    cache: StageCache
    data_dir: Path
    output: Path
    references: Sequence[Path] = ()
    search: Search = "grid"
    space: Grid | None = None
    draws: int = 30
    init: Path | None = None
    gpus_per_trial: float = 0
    max_concurrent_trials: int | None = None
    ray_address: str | None = None
    live: bool = False


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        to_run: number of trials that were missing.
        finished: number of them that finished.
        failed: number of them that failed.
        interrupted: by Ctrl-C or SIGTERM; the report was not rebuilt.
        unwritten: number of trials whose MLflow runs are not up to date.
        store_error: why the store could not be written or read at the end; empty if it could.
        experiment_id: MLflow's id of the experiment.
    """

    to_run: int
    finished: int
    failed: int
    interrupted: bool
    unwritten: int
    store_error: str
    experiment_id: str

    @property
    def complete(self) -> bool:
        """Whether every trial has a result, in the report and in MLflow."""
        return not (self.failed or self.interrupted or self.unwritten or self.store_error)


@dataclass(frozen=True)
class SweepSettings:
    """Where and how the workers run a sweep's trials.

    Attributes:
        name: of the sweep and its experiment.
        storage: URI of the folder where nodes share finished stages; None for one machine.
        threads: CPU threads of one trial.
        owner: identity of the driver's stage cache.
        every_epoch: report every epoch of retraining to the scheduler.
        live: report the progress inside stages.
        on_cluster: trials may run on other machines, which may have folders of their own in
            MINT_DATA_DIR and MINT_CACHE_DIR.
    """

    name: str
    data_dir: Path
    cache_root: Path
    storage: str | None
    gpus_per_trial: float
    threads: int
    provenance: Provenance
    owner: str
    every_epoch: bool = False
    live: bool = False
    on_cluster: bool = False


@dataclass(frozen=True)
class Progress:
    """The progress of a trial in a stage (baseline, scores, retraining); accuracy in percent."""

    stage: str
    epoch: int = 0
    epochs: int = 0
    validation_accuracy: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended, or was stopped by a scheduler, after how many seconds.

    Attributes:
        reason: in one line; empty for a finished trial.
        details: such as a traceback.
    """

    status: Literal["finished", "failed", "stopped"]
    seconds: float
    reason: str = ""
    details: str = ""
