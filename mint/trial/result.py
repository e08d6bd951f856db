"""What the stages of a trial leave behind, as records that are written and read as JSON."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from mint.config.schema import TrialConfig
from mint.pruning.layer_table import LayerCount
from mint.training.loop import Epoch
from mint.trial.provenance import Provenance

ACTIVATIONS_FILE = "activations.npz"
MASKS_FILE = "masks.safetensors"
RESULT_FILE = "result.json"
SCORES_FILE = "scores.npz"
SCORES_PLOT = "scores.png"
WEIGHTS_FILE = "weights.safetensors"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def save(self, folder: Path) -> None:
        """Write the record into the folder of its stage."""
        (folder / RESULT_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of a finished stage."""
        return cls.model_validate_json((folder / RESULT_FILE).read_bytes())


class Baseline(_Record):
    """The trained network before pruning; accuracy in percent on the validation images."""

    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class Retraining(_Record):
    """One network retrained under a mask; accuracy in percent on the validation images."""

    pruned_weights: int
    counted_weights: int
    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class Probe(_Record):
    """One mask that was tried, and whether the accuracy held; None where that was not asked."""

    params_pruned: float
    passed: bool | None
    retraining: Retraining


class LayerScoring(_Record):
    """What the scores of one layer's blocks took.

    Attributes:
        parent: the layer before.
        child: the layer whose weight blocks were scored.
        blocks: how many.
        bootstraps: estimates that each score is the mean of; 0 for a criterion without any.
        reliability: None where there is none, as for one bootstrap.
        seconds: of scoring, with what this layer was the first to ask for.
    """

    parent: str
    child: str
    blocks: int
    bootstraps: int
    reliability: float | None
    seconds: float


class TrialResult(_Record):
    """The record of a finished trial; params and accuracies in percent.

    Attributes:
        params_pruned: pruned over counted weights.
        prunable_weights: the weights of the pairs that could be pruned.
        accuracy: of the pruned network on the test images, read once, at the end.
        accuracy_drop: baseline_accuracy - accuracy, in percentage points.
        probes: in the order they were tried.
        score_seconds: what the scores took when they were estimated.
        bootstraps: how many the scores are the mean of; 0 for a criterion without any.
        reliability: of the scores, the lowest of all pairs; None where there is none, as for one
            bootstrap.
        scoring: the same, layer by layer.
        image_shape: (channels, height, width) as the network sees images.
        layers: every layer's weights, total and kept.
        multiply_adds: of one image, before pruning and with kept weights alone.
        state_bytes: of the weights, before pruning and with kept weights alone (mint.pruning.flops).
        device: such as cpu, or the name of the card.
        seconds: since the trial was begun, by whoever finished it.
        provenance: of the code and the command.
    """

    config: TrialConfig
    params_pruned: float
    pruned_weights: int
    prunable_weights: int
    counted_weights: int
    accuracy: float
    baseline_accuracy: float
    accuracy_drop: float
    validation_accuracy: float
    baseline_validation_accuracy: float
    probes: tuple[Probe, ...]
    score_seconds: float
    bootstraps: int
    reliability: float | None
    scoring: tuple[LayerScoring, ...]
    image_shape: tuple[int, int, int]
    layers: tuple[LayerCount, ...]
    multiply_adds: tuple[int, int]
    state_bytes: tuple[int, int]
    device: str
    seconds: float
    provenance: Provenance
