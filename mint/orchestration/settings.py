"""What a sweep's driver and its trials on Ray tell each other."""

from dataclasses import dataclass
from pathlib import Path

from mint.trial.provenance import Provenance


@dataclass(frozen=True)
class SweepSettings:
    """Where and how a sweep's trials run.

    Attributes:
        name: of the sweep and its experiment.
        data_dir: of the data sets; a node of a cluster may have its own in MINT_DATA_DIR.
        cache_root: folder of finished stages; a node may have its own in MINT_CACHE_DIR.
        storage: URI of the folder where nodes share finished stages; None for one machine.
        gpus_per_trial: a share of a card, or 0 for the CPU.
        threads: of one trial.
        provenance: of the trials.
        owner: the folder of stages (StageCache.identity) that holds the sweep.
        every_epoch: whether a scheduler is to hear of every epoch of retraining.
        live: whether somebody watches the trials as they run.
        on_cluster: whether trials may run on other machines.
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
    """How far a trial has come.

    Attributes:
        stage: baseline, scores or retraining.
        epoch: that has ended; 0 outside of a training.
        epochs: of how many.
        validation_accuracy: after it, percent; None outside of a training.
        seconds_left: of the stage; None where nobody can tell.
    """

    stage: str
    epoch: int = 0
    epochs: int = 0
    validation_accuracy: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        status: finished, failed or stopped (by a scheduler).
        reason: in a line; empty for a finished one.
        details: such as a traceback.
        seconds: that it ran.
    """

    status: str
    reason: str
    details: str
    seconds: float
