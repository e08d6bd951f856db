"""Experiments and trials: frozen, validated values, and the keys of all that depends on them."""

import re
from collections.abc import Mapping, Set
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    JsonValue,
    model_validator,
)

from mint.config.axes import Compensate, Grouping, Retraining
from mint.config.estimate import Device, EstimateConfig, Flag, Frozen, PositiveInt
from mint.config.keys import content_key
from mint.errors import allowed

# Every criterion, in the order of the tables, with the axes of a trial and the sections of its
# estimate that its scores depend on besides the seed; the grouping belongs to the groups.
# mint.pruning.criteria has their functions.
CRITERIA: Mapping[str, Set[str]] = {
    "mint": {"groups", "samples_per_class", "bootstraps"},
    "mint-unconditional": {"groups", "samples_per_class", "bootstraps"},
    "mint-gaussian": {"groups", "samples_per_class", "gaussian"},
    "mint-gaussian-unconditional": {"groups", "samples_per_class", "gaussian"},
    "random": {"groups"},
    "block-magnitude": {"groups"},
    "magnitude": set(),
    "l1-filters": set(),
    "bn-scale": set(),
    "taylor": {"groups", "samples_per_class"},
    "activation-magnitude": {"groups", "samples_per_class"},
}
DEFAULT_CRITERION = "mint"
OWN_CRITERION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(@[0-9a-f]{8})?")
"""A user's function: MODULE:FUNCTION, in trials with the digest of its source."""
# Raise a criterion's revision with a change that changes its scores, and only its scores: no old
# score or trial then answers for a new one. A criterion without an entry has its first revision.
REVISIONS = {"activation-magnitude": 2}
_LIGHT = {"epochs": 3, "lr": 0.01, "schedule": "cosine", "milestones": ()}

MAX_NAME_LENGTH = 100
"""Characters of an experiment's name, which is part of file names."""

_Axis = Annotated[int, Field(ge=0, strict=True)]
_Share = Annotated[float, Field(ge=0, le=1, strict=True)]


def is_criterion(name: str) -> bool:
    """Return whether a name is that of a criterion, or has the form of a user's function."""
    return name in CRITERIA or OWN_CRITERION.fullmatch(name) is not None


def check_criterion(name: str) -> str:
    """Return the name of a criterion; raise ValueError with the known ones if there is none."""
    if not is_criterion(name):
        known = allowed(name, CRITERIA)
        problem = f"there is no such criterion; {known}, or MODULE:FUNCTION of your own"
        raise ValueError(f"criterion {name}: {problem}")
    return name


def axes_of(criterion: str) -> Set[str]:
    """Return what a criterion's scores depend on; of a user's, the axes of what it may look at."""
    return CRITERIA.get(criterion, {"groups", "samples_per_class"})


class DataConfig(Frozen):
    """A data set, its validation split, and the preparation of its images.

    Attributes:
        name: digits, mnist, cifar10, parquet:FOLDER (Hugging Face's image schema) or
            imagefolder:FOLDER (train/CLASS/*, and val/ or test/), relative to the data folder.
        validation_size: number of training images held out, stratified by class.
        size: resize the shorter side to this many pixels and crop the central square; None if
            all images have the same size.
        crop: side of the network's input (pixels), the centre in evaluation; None for whole images.
        channels: 3 repeats grey images for a network that expects colour; None to keep them.
        augmentation: of training images. crop_flip: shift by up to an eighth of the side and
            mirror (CIFAR). resized_crop_flip: a random part, 8 to 100% of the area and an aspect
            ratio of 3/4 to 4/3, and mirror (ImageNet).
    """

    name: Annotated[str, Field(pattern=r"^(digits|mnist|cifar10|(parquet|imagefolder):.+)$")]
    validation_size: PositiveInt
    size: PositiveInt | None = None
    crop: PositiveInt | None = None
    channels: Literal[3] | None = None
    augmentation: Literal["none", "crop_flip", "resized_crop_flip"] = "none"


class NetworkConfig(Frozen):
    """A network, by the function that builds it.

    Attributes:
        name: mlp, lenet5, vgg16, resnet8, resnet56 or resnet50, or PACKAGE.MODULE:FUNCTION for any
            other class of nn.Module, or function annotated to return one.
        arguments: keyword arguments of that function.
    """

    name: Annotated[
        str,
        Field(
            pattern=r"^(mlp|lenet5|vgg16|resnet8|resnet56|resnet50|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"
        ),
    ]
    arguments: dict[str, JsonValue] = Field({})

    @property
    def is_users(self) -> bool:
        """Return whether the network is a user's, not mint's own."""
        return ":" in self.name


class TrainingConfig(Frozen):
    """SGD and its schedule.

    Attributes:
        epochs: 0 keeps the initial weights.
        lr: initial learning rate.
        schedule: milestones multiplies lr by gamma after each epoch in milestones; cosine decays
            lr to 0 along half a cosine, step by step.
        label_smoothing: share of the target spread evenly over the classes.
        precision: bfloat16 runs forward and backward under autocast; weights stay float32.
        channels_last: memory layout of images and filters.
    """

    epochs: Annotated[int, Field(ge=0, strict=True)]
    batch_size: PositiveInt
    lr: Annotated[float, Field(gt=0, strict=True)]
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)]
    nesterov: Flag
    weight_decay: Annotated[float, Field(ge=0, strict=True)]
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[PositiveInt, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: Flag = False


class SearchConfig(Frozen):
    """How much is pruned: a given fraction, or the share at which accuracy drops by a margin.

    Attributes:
        fraction: of the counted weights; None to search for it.
        margin: drop of validation accuracy below the baseline's (percentage points).
        sd: standard deviation of the validation accuracy over retrainings of the dense network
            (percentage points), as measured; at most a third of the margin, and that unless given.
        steps: largest number of masks that a search retrains; 6 unless given.
    """

    fraction: _Share | None = None
    # Results of method version 1 call it max_drop.
    margin: Annotated[float, Field(gt=0, le=100, strict=True)] | None = Field(
        None, validation_alias=AliasChoices("margin", "max_drop")
    )
    sd: Annotated[float, Field(gt=0, strict=True)] | None = None
    steps: Annotated[int, Field(ge=2, strict=True)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_steps(cls, values: Any) -> Any:
        searches = isinstance(values, Mapping) and values.get("margin") is not None
        return {"steps": 6, **values} if searches else values

    @model_validator(mode="after")
    def _fraction_or_search(self) -> Self:
        given = tuple(value is not None for value in (self.fraction, self.margin, self.steps))
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError("search: give either fraction, or margin and steps")
        if self.sd is not None and 3 * self.sd > (self.margin or 0):
            raise ValueError(f"search.sd {self.sd:g}: must be at most a third of search.margin")
        return self


class Experiment(Frozen):
    """A network on a data set, and how it is trained, scored and pruned.

    Attributes:
        name: name of the MLflow experiment and the report's section.
        title: heading of the section.
        retraining: full retraining; None for the same as training. In a file it states only what
            differs from it.
        light: light retraining, stated in the same way; None for three epochs at 0.01.
        prune: pairs of layer names (parent, child), or all pairs that tracing finds.
        leave_out: pairs that stay whole although tracing finds them.
        count: weights that fractions refer to: those of the pruned pairs, or of all convolutions
            and linear layers.
        limits: by layer name, upper limits that replace the trial's.
        groups: by layer name, numbers of groups that replace the trial's.
        keep_connected: every group of filters keeps one block for as long as the pruned fraction
            allows.
        threads: CPU threads of a trial. Sums depend on it, so it is part of the key.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=MAX_NAME_LENGTH)]
    title: str
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    retraining: TrainingConfig | None = None
    light: TrainingConfig | None = None
    prune: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)] | Literal["all"]
    leave_out: tuple[tuple[str, str], ...] = ()
    count: Literal["pruned", "all"] = "pruned"
    limits: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({})
    groups: dict[str, PositiveInt] = Field({})
    keep_connected: Flag = False
    estimate: EstimateConfig
    search: SearchConfig
    threads: PositiveInt = 1

    def retraining_settings(self, retraining: Retraining) -> TrainingConfig:
        """Return the settings of a way of retraining; none has 0 epochs."""
        full = self.retraining or self.training
        if retraining == "full":
            return full
        if retraining == "light":
            return self.light or self.training.model_copy(update=_LIGHT)
        return full.model_copy(update={"epochs": 0})

    @model_validator(mode="after")
    def _pairs_are_unique(self) -> Self:
        named = () if self.prune == "all" else self.prune
        for key, pairs in (("prune", named), ("leave_out", self.leave_out)):
            for pair in pairs:
                if pairs.count(pair) > 1:
                    raise ValueError(f"{key} {list(pair)}: must be named once")
        if named and self.leave_out:
            raise ValueError("leave_out: is for prune: all; leave the pairs out of prune instead")
        return self


class InitialWeights(Frozen):
    """A file of weights that the baseline's training starts from."""

    file: str
    digest: str


class TrialConfig(Frozen):
    """One trial: an experiment, and the axes that a sweep varies.

    An axis that the criterion's scores do not depend on is 0: all its values are one trial.

    Attributes:
        groups: number of groups of filters in each layer, of equal size; a layer with fewer
            filters has one group for each.
        grouping: which filters a group has: neighbours, random ones, or those that share large
            weights with a group of the other layer. mint.pruning.grouping has the functions.
        samples_per_class: training images per class that the scores are estimated from.
        upper_limit: largest share of a layer's weights that may be pruned; None for no limit.
        fraction: share of the counted weights to prune; None for the experiment's search.
        bootstraps: None for the experiment's.
        retraining: how the pruned network is retrained: not at all, lightly or in full.
        compensate: whether the kept weights are refitted before that: mint.pruning.compensation.
        seed: seeds every random draw: split, initialisation, batches, rows, bootstraps.
        device: class of the device that trains the network.
        estimator: backend that estimates the scores of MINT.
        data_digest: digest of the data set's content.
        network_digest: digest of the source code of a network that does not come with mint.
        init: weights that the baseline starts from; None for random ones.
    """

    experiment: Experiment
    groups: _Axis
    grouping: Grouping = "contiguous"
    samples_per_class: _Axis
    criterion: Annotated[str, AfterValidator(check_criterion)] = DEFAULT_CRITERION
    upper_limit: Annotated[float, Field(ge=0, le=1)] | None
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    bootstraps: PositiveInt | None = None
    retraining: Retraining = "full"
    compensate: Compensate = "no"
    seed: Annotated[int, Field(ge=0)]
    device: Device = "cpu"
    estimator: Device = "cpu"
    data_digest: str
    network_digest: str | None = None
    init: InitialWeights | None = None

    @model_validator(mode="before")
    @classmethod
    def _clear_unused_axes(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        unused: dict[str, Any] = {"groups": 0, "samples_per_class": 0, "bootstraps": None}
        used = axes_of(values.get("criterion", DEFAULT_CRITERION))
        if "groups" not in used:
            unused["grouping"] = "contiguous"
        return {**values, **{axis: unused[axis] for axis in unused.keys() - used}}

    @model_validator(mode="after")
    def _require_used_axes(self) -> Self:
        for axis in ("groups", "samples_per_class"):
            if self.uses(axis) and not getattr(self, axis):
                raise ValueError(f"{axis} 0: must be at least 1 for {self.criterion}")
        return self

    def uses(self, axis: str) -> bool:
        """Return whether the scores depend on an axis."""
        return axis in axes_of(self.criterion)

    @property
    def scores_single_weights(self) -> bool:
        """Whether every weight's score is its absolute value in the baseline, which is kept."""
        return self.criterion == "magnitude"

    @property
    def name(self) -> str:
        """Short name, as g20-clustered-s250-u0.8-f0.5-b8-seed0 or magnitude-unone-f0.9-seed0."""
        fraction = self.search.fraction
        parts = [
            "" if self.criterion == DEFAULT_CRITERION else self.criterion.replace(":", "."),
            f"g{self.groups}" if self.groups else "",
            "" if self.grouping == "contiguous" else self.grouping,
            f"s{self.samples_per_class}" if self.samples_per_class else "",
            f"u{format_share(self.upper_limit)}",
            "" if fraction is None else f"f{format_share(fraction)}",
            "" if self.bootstraps is None else f"b{self.bootstraps}",
            "" if self.retraining == "full" else self.retraining,
            "compensated" if self.compensate == "yes" else "",
            f"seed{self.seed}",
        ]
        return "-".join(filter(None, parts))

    @property
    def estimate(self) -> EstimateConfig:
        """How this trial's scores are estimated."""
        chosen = self.experiment.estimate
        update = {"bootstraps": self.bootstraps or chosen.bootstraps}
        return chosen.model_copy(update=update)

    @property
    def search(self) -> SearchConfig:
        """How much this trial prunes."""
        own = self.fraction is not None
        return SearchConfig(fraction=self.fraction) if own else self.experiment.search

    @property
    def retraining_settings(self) -> TrainingConfig:
        """How this trial retrains."""
        return self.experiment.retraining_settings(self.retraining)

    def limit_of(self, layer: str) -> float | None:
        """Return the upper limit of a layer; None for no limit."""
        return self.experiment.limits.get(layer, self.upper_limit)

    def groups_of(self, layer: str, filters: int) -> int:
        """Return the number of groups of a layer's filters, at most one for each filter."""
        return min(self.experiment.groups.get(layer, self.groups), filters)

    @property
    def key(self) -> str:
        """Key that a new trial of this configuration gets; a trial result stores its own."""
        return content_key("trial", self._effective_content(), *self._revision)

    @property
    def protocol(self) -> str:
        """Eight hex digits shared by the trials that differ only in the axes of a sweep."""
        content = self._effective_content()
        axes = ("groups", "samples_per_class", "upper_limit", "criterion", "retraining", "seed")
        for axis in axes:
            del content[axis]
        content.pop("grouping", None)
        content.pop("compensate", None)
        experiment = content["experiment"]
        experiment["estimate"].pop("bootstraps", None)
        experiment["search"] = self.experiment.search.content(without={"fraction"})
        experiment["light"] = self.experiment.retraining_settings("light").content()
        experiment["retraining"] = self.experiment.retraining_settings("full").content()
        return content_key("protocol", content)[:8]

    def _effective_content(self) -> dict[str, Any]:
        """Return the content with everything that the trial uses spelt out in the experiment."""
        content = self.content(without={"bootstraps", "fraction"})
        unused = () if self.uses("bootstraps") else {"bootstraps"}
        content["experiment"]["estimate"] = self.estimate.content(without=unused)
        content["experiment"]["search"] = self.search.content()
        content["experiment"]["retraining"] = self.retraining_settings.content()
        del content["experiment"]["light"]
        # Results from before there were other values keep their keys.
        if self.grouping == "contiguous":
            del content["grouping"]
        if self.compensate == "no":
            del content["compensate"]
        content["init"] = self.init and self.init.digest
        return content

    @property
    def _revision(self) -> list[int]:
        """The revision of the criterion's scores for their keys; none for the first."""
        return [REVISIONS[self.criterion]] if self.criterion in REVISIONS else []

    @property
    def baseline_key(self) -> str:
        """Key of the trained network before pruning."""
        chosen = self.experiment
        digests = self.data_digest, self.network_digest, self.init and self.init.digest
        sections = [part.content() for part in (chosen.data, chosen.network, chosen.training)]
        return content_key("baseline", *digests, *sections, chosen.threads, self.device, self.seed)

    def scores_key(self, weight: str) -> str:
        """Key of the scores of one layer's blocks."""
        own_groups = self.experiment.groups if self.uses("groups") else None
        estimate: list[Any] | None = None
        if self.uses("bootstraps"):
            estimate = [self.estimate.content(without={"gaussian"}), self.estimator]
        elif self.uses("gaussian"):
            estimate = [self.estimate.gaussian.content(), self.estimator]
        axes = self.criterion, self.groups, own_groups, self.samples_per_class
        parts = self.baseline_key, weight, *axes, estimate
        grouping = [] if self.grouping == "contiguous" else [self.grouping]
        return content_key("scores", *parts, *self._revision, *grouping)

    @property
    def grouping_key(self) -> str:
        """Key of the groups of all filters, which the criteria share."""
        pairs = self.experiment.prune, self.experiment.leave_out
        groups = self.grouping, self.groups, self.experiment.groups
        return content_key("grouping", self.baseline_key, *pairs, *groups)

    @property
    def activations_key(self) -> str:
        """Key of the activations that scores are estimated from."""
        pairs = self.experiment.prune, self.experiment.leave_out
        # 2: values have the names of ATen operations.
        return content_key("activations", self.baseline_key, *pairs, self.samples_per_class, 2)

    def retrained_key(self, mask_digest: str | None) -> str:
        """Key of a retrained network, of the dense one without a digest.

        Trials that reach the same masks share it.
        """
        parts = [self.retraining_settings.content(), mask_digest or "dense"]
        if mask_digest and self.compensate == "yes":
            parts.append("compensated")
        return content_key("retrained", self.baseline_key, *parts)


def format_share(share: float | None) -> str:
    """Return an upper limit or a fraction as text: the number, or none."""
    return "none" if share is None else repr(float(share)).removesuffix(".0")
