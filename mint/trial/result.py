"""What the stages of a trial leave: their files, and their results as JSON."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel

from mint.config import keys
from mint.config.schema import TrialConfig
from mint.data.preparation import Preparation
from mint.pruning.layer_table import LayerCount
from mint.training.epoch import Epoch
from mint.trial.provenance import Provenance

ACTIVATIONS_FILE = "activations.npz"
GROUPS_FILE = "groups.npz"
MASKS_FILE = "masks.safetensors"
RESULT_FILE = "result.json"
SCORES_FILE = "scores.npz"
WEIGHTS_FILE = "weights.safetensors"


class _StageResult(BaseModel, extra="forbid", frozen=True):
    def save(self, folder: Path) -> None:
        """Write the result into the folder of its stage."""
        (folder / RESULT_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the result of a finished stage."""
        return cls.model_validate_json((folder / RESULT_FILE).read_bytes())


class Baseline(_StageResult):
    """The trained network before pruning; accuracy in percent on the validation images."""

    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class Retraining(_StageResult):
    """A network retrained under masks; accuracy in percent on the validation images."""

    pruned_weights: int
    counted_weights: int
    validation_accuracy: float
    training: tuple[Epoch, ...]
    seconds: float


class SearchStep(_StageResult):
    """Masks that were tried, and whether the accuracy held; None if the fraction was given."""

    params_pruned: float
    passed: bool | None
    retraining: Retraining


class LayerScoring(_StageResult):
    """The cost and quality of the scores of one child layer's weight blocks."""

    parent: str
    child: str
    blocks: int
    bootstraps: int  # averaged in each score; 0 for a criterion without bootstraps
    reliability: float | None  # None if undefined, as for one bootstrap
    seconds: float  # with the activations or gradients that this layer was first to need


class TrialKeys(BaseModel, extra="forbid", frozen=True):
    """The identity of a trial, stored as written: today's code never recomputes it."""

    key: str
    protocol: str  # shared by the trials that differ only in the axes of a sweep
    method_version: int

    @classmethod
    def of(cls, config: TrialConfig) -> Self:
        """Return the identity that a new trial gets."""
        return cls(key=config.key, protocol=config.protocol, method_version=keys.METHOD_VERSION)


class TrialResult(_StageResult):
    """The result of a finished trial; parameters and accuracies in percent.

    Attributes:
        keys: identity of the trial.
        config: of the trial.
        params_pruned: pruned over counted weights.
        prunable_weights: weights of the pairs that can be pruned.
        accuracy: of the pruned network on the test images, read once, at the end.
        accuracy_drop: baseline_accuracy - accuracy (percentage points).
        accuracy_before_retraining: of the masked baseline, compensated if the trial does that, on
            the test images.
        dense_accuracy: of the dense control on the test images: the unpruned network, retrained as
            the pruned one was.
        test_images: their number; 0 if unknown.
        share_at_margin: share of the counted weights at which the fitted drop of validation
            accuracy crosses the margin; params_pruned is the largest share of whole blocks within
            it. None if the fraction was given.
        share_low: lower end of its 95% interval; None where the margin is not crossed.
        share_high: upper end.
        share_bound: see mint.pruning.sparsity_search.MarginCrossing; share_at_margin is then a
            lower bound.
        search_steps: in the order in which they were tried.
        score_seconds: time that the scores took when they were estimated.
        bootstraps: the most that any layer's scores average; 0 for a criterion without any.
        reliability: the lowest of all layers; None if undefined.
        scoring: cost and quality of the scores, layer by layer.
        image_shape: (channels, height, width) of the network's input.
        preparation: of images into inputs; None for a trial of before it was recorded.
        layers: total and kept weights of every layer.
        multiply_adds: of one image, before pruning and with the kept weights alone.
        state_bytes: of the weights, before pruning and with the kept weights alone.
        device: cpu, or the name of the GPU.
        seconds: since the process that finished the trial began it.
        provenance: of the code and the command.
        artefacts: the stages that the trial is made from, such as baselines/KEY, with the identity
            of the cache that each was made in.
    """

    keys: TrialKeys
    config: TrialConfig
    params_pruned: float
    pruned_weights: int
    prunable_weights: int
    counted_weights: int
    accuracy: float
    baseline_accuracy: float
    accuracy_drop: float
    accuracy_before_retraining: float | None = None
    dense_accuracy: float | None = None
    test_images: int = 0
    validation_accuracy: float
    baseline_validation_accuracy: float
    dense_validation_accuracy: float | None = None
    share_at_margin: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    share_bound: Literal["", "limit", "steps"] = ""
    search_steps: tuple[SearchStep, ...]
    score_seconds: float
    bootstraps: int
    reliability: float | None
    scoring: tuple[LayerScoring, ...]
    image_shape: tuple[int, int, int]
    preparation: Preparation | None = None
    layers: tuple[LayerCount, ...]
    multiply_adds: tuple[int, int]
    state_bytes: tuple[int, int]
    device: str
    seconds: float
    provenance: Provenance
    artefacts: dict[str, str] = {}
