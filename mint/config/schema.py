"""What is run, as frozen and validated values with a key: the hash of what changes the result."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from mint.config.locations import bundled
from mint.errors import InputError, allowed

# Part of every key. Raise it with a change of the code that changes results, so that figures
# of two methods never stand in one table as if they were one.
METHOD_VERSION = 1

# For the name of every criterion, in the order of the tables, the axes of a trial that its scores
# depend on, besides the seed. mint.pruning.criteria has their functions.
CRITERIA: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "mint": frozenset({"groups", "samples_per_class", "bootstraps"}),
        "mint-unconditional": frozenset({"groups", "samples_per_class", "bootstraps"}),
        "random": frozenset({"groups"}),
        "block-magnitude": frozenset({"groups"}),
        "magnitude": frozenset(),
        "l1-filters": frozenset(),
        "bn-scale": frozenset(),
        "taylor": frozenset({"groups", "samples_per_class"}),
        "activation-magnitude": frozenset({"groups", "samples_per_class"}),
    }
)
DEFAULT_CRITERION = "mint"

EXPERIMENTS_FOLDER = bundled("experiments")


def check_criterion(name: str) -> str:
    """Return the name of a criterion.

    Raises:
        ValueError: there is none of that name; says which is near.
    """
    if name not in CRITERIA:
        raise ValueError(f"{name}: there is no such criterion; {allowed(name, CRITERIA)}")
    return name


_Model = TypeVar("_Model", bound=BaseModel)
_PositiveInt = Annotated[int, Field(ge=1, strict=True)]
_Axis = Annotated[int, Field(ge=0, strict=True)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Frozen):
    """A data set, how many of its training images are held out, and how images are prepared.

    Attributes:
        name: digits, mnist, cifar10, parquet:FOLDER (Hugging Face's image schema) or
            imagefolder:FOLDER (train/CLASS/*, and val/ or test/); FOLDER is looked for in the data
            folder.
        validation_size: training images held out, classes in proportion.
        size: images are resized to this shorter side and cut to the square in their middle
            (pixels); None for images that are all of one size.
        crop: side of what the network sees (pixels); None for whole images. Evaluation takes the
            middle.
        channels: 3 gives grey images to a network that takes colours; None for as they are.
        augmentation: of training images. crop_flip: shifted by up to an eighth of their side and
            mirrored, as is usual for CIFAR. resized_crop_flip: a random part, of 8 to 100% of the
            area and an aspect of 3/4 to 4/3, and mirrored, as is usual for ImageNet.
    """

    name: Annotated[str, Field(pattern=r"^(digits|mnist|cifar10|(parquet|imagefolder):.+)$")]
    validation_size: _PositiveInt
    size: _PositiveInt | None = None
    crop: _PositiveInt | None = None
    channels: Literal[3] | None = None
    augmentation: Literal["none", "crop_flip", "resized_crop_flip"] = "none"


class NetworkConfig(_Frozen):
    """A network by the function that builds it.

    Attributes:
        name: mlp, vgg16, resnet56 or resnet50, or PACKAGE.MODULE:FUNCTION for any other function
            that returns an nn.Module.
        arguments: keyword arguments of the function.
    """

    name: Annotated[
        str, Field(pattern=r"^(mlp|vgg16|resnet56|resnet50|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
    ]
    arguments: dict[str, JsonValue] = {}


class TrainingConfig(_Frozen):
    """SGD and its schedule.

    Attributes:
        epochs: 0 takes the initial weights as they are.
        batch_size: images a step.
        lr: at the start.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of all parameters.
        schedule: milestones: lr is multiplied by gamma after these epochs. cosine: it falls to 0
            along half a cosine, step by step.
        milestones: epochs, for the schedule of that name.
        gamma: likewise.
        label_smoothing: share of the target spread evenly over the classes.
        precision: bfloat16 runs the passes under autocast; weights and sums stay float32.
        channels_last: memory layout of images and filters.
    """

    epochs: Annotated[int, Field(ge=0, strict=True)]
    batch_size: _PositiveInt
    lr: Annotated[float, Field(gt=0, strict=True)]
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)]
    nesterov: Annotated[bool, Field(strict=True)]
    weight_decay: Annotated[float, Field(ge=0, strict=True)]
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[_PositiveInt, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: Annotated[bool, Field(strict=True)] = False

    def with_epochs(self, epochs: int) -> Self:
        """Return the schedule stretched or shrunk to another number of epochs."""
        milestones = tuple(max(1, round(m * epochs / max(1, self.epochs))) for m in self.milestones)
        return self.model_copy(update={"epochs": epochs, "milestones": milestones})


class EstimateConfig(_Frozen):
    """How the scores are estimated.

    Attributes:
        bootstraps: splits to average; where a reliability is asked for, the most that are drawn.
        reliability: stop when the scores are as reliable; None to draw all bootstraps.
        paper: take the activations as they are, and nearest neighbours for partners, as the MINT
            paper does; mint.gmi.estimator tells what is done otherwise, and why.
    """

    bootstraps: _PositiveInt
    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    paper: Annotated[bool, Field(strict=True)] = False


class SearchConfig(_Frozen):
    """How much is pruned: a fraction that is given, or the most that keeps the accuracy.

    Attributes:
        fraction: of the counted weights; None to search.
        max_drop: how far validation accuracy may drop (percentage points), for a search.
        probes: how many masks a search tries.
    """

    fraction: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    max_drop: Annotated[float, Field(ge=0, le=100, strict=True)] | None = None
    probes: _PositiveInt | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        given = tuple(value is not None for value in (self.fraction, self.max_drop, self.probes))
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError("search: give either fraction, or max_drop and probes")
        return self


class Experiment(_Frozen):
    """A network on a data set, and how it is trained, scored and pruned.

    Attributes:
        name: names the MLflow experiment and the section of the report.
        title: heading of the section.
        training: of the baseline.
        retraining: under masks; None for the same as the baseline's.
        prune: pairs of layer names, parent and child, or all that tracing finds.
        leave_out: pairs that are not pruned, though tracing finds them.
        count: the weights that fractions are of: those of the pruned pairs, or of all
            convolutions and linear layers.
        limits: largest share of a layer's weights that may be pruned, by the layer's name; in
            place of the trial's one limit.
        groups: number of groups of a layer's filters, by the layer's name; in place of the
            trial's one number.
        floor: whether every group of filters keeps one of its blocks as long as the share that is
            pruned allows.
        threads: of one trial. Sums depend on it, so it belongs to the configuration.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    retraining: TrainingConfig | None = None
    prune: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)] | Literal["all"]
    leave_out: tuple[tuple[str, str], ...] = ()
    count: Literal["pruned", "all"] = "pruned"
    limits: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    groups: dict[str, _PositiveInt] = {}
    floor: Annotated[bool, Field(strict=True)] = False
    estimate: EstimateConfig
    search: SearchConfig
    threads: _PositiveInt = 1

    @property
    def retraining_settings(self) -> TrainingConfig:
        return self.retraining or self.training

    @model_validator(mode="after")
    def _pairs_are_named_once(self) -> Self:
        for key, pairs in (("prune", self.prune), ("leave_out", self.leave_out)):
            if pairs == "all":
                continue
            for pair in pairs:
                if pairs.count(pair) > 1:
                    raise ValueError(f"{key} {list(pair)}: must be named once")
        if self.prune != "all" and self.leave_out:
            raise ValueError("leave_out: is for prune: all; leave the pairs out of prune instead")
        return self


class TrialDefaults(_Frozen):
    """What a single trial of an experiment takes where the command line does not say.

    Attributes:
        groups: of filters in each layer.
        samples_per_class: images that scores are estimated from.
        upper_limit: largest share of one layer's weights that may be pruned, or none.
    """

    groups: _PositiveInt
    samples_per_class: _PositiveInt
    upper_limit: str = "none"


class InitialWeights(_Frozen):
    """A file that the baseline's training starts from: its name, and a digest of its content."""

    file: str
    digest: str


class TrialConfig(_Frozen):
    """One trial: what the sweep varies, on top of an experiment.

    An axis that the scores of the criterion do not depend on is 0, whatever was asked for: all
    that is asked for makes one trial then.

    Attributes:
        groups: blocks of filters in each layer of a pair, contiguous; a layer with fewer filters
            has a block for each.
        samples_per_class: training images of every class that the scores are estimated from.
        criterion: what scores the blocks.
        upper_limit: largest share of one layer's weights that may be pruned; None for no limit.
        fraction: of the counted weights to prune, in place of the experiment's search; None for
            that.
        bootstraps: in place of the experiment's; None for those.
        seed: of everything that is drawn: split, initialisation, batches, rows, bootstraps.
        data_digest: content of the data set, so that other data never answer for these.
        network_digest: source of a network's function that is not mint's own.
        init: weights that the baseline starts from; None for random ones.
    """

    experiment: Experiment
    groups: _Axis
    samples_per_class: _Axis
    criterion: Annotated[str, AfterValidator(check_criterion)] = DEFAULT_CRITERION
    upper_limit: Annotated[float, Field(ge=0, le=1)] | None
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    bootstraps: _PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)]
    data_digest: str
    network_digest: str | None = None
    init: InitialWeights | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_the_criterion_uses(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        used = CRITERIA.get(values.get("criterion", DEFAULT_CRITERION))
        if used is None:  # its field refuses it
            return values
        nothing = {"groups": 0, "samples_per_class": 0, "bootstraps": None}
        return {**values, **{axis: nothing[axis] for axis in nothing.keys() - used}}

    @model_validator(mode="after")
    def _all_that_the_criterion_uses(self) -> Self:
        for axis in ("groups", "samples_per_class"):
            if self.uses(axis) and not getattr(self, axis):
                raise ValueError(f"{axis} 0: must be at least 1 for {self.criterion}")
        return self

    def uses(self, axis: str) -> bool:
        """Whether the scores depend on groups, samples_per_class or bootstraps."""
        return axis in CRITERIA[self.criterion]

    @property
    def name(self) -> str:
        """Such as g20-s250-u0.8-f0.5-b8-seed0, or magnitude-unone-f0.9-seed0.

        It tells the axes that the criterion uses, the criterion only where it is another than
        MINT's, and a fraction and bootstraps only where given.
        """
        fraction = self.search.fraction
        parts = [
            "" if self.criterion == DEFAULT_CRITERION else self.criterion,
            f"g{self.groups}" if self.groups else "",
            f"s{self.samples_per_class}" if self.samples_per_class else "",
            f"u{format_limit(self.upper_limit)}",
            "" if fraction is None else f"f{format_limit(fraction)}",
            "" if self.bootstraps is None else f"b{self.bootstraps}",
            f"seed{self.seed}",
        ]
        return "-".join(filter(None, parts))

    @property
    def estimate(self) -> EstimateConfig:
        """How this trial's scores are estimated, if its criterion draws bootstraps."""
        if self.bootstraps is None:
            return self.experiment.estimate
        return self.experiment.estimate.model_copy(update={"bootstraps": self.bootstraps})

    @property
    def search(self) -> SearchConfig:
        """How much this trial prunes."""
        if self.fraction is None:
            return self.experiment.search
        return SearchConfig(fraction=self.fraction)

    def limit_of(self, layer: str) -> float | None:
        """Return the largest share of a layer's weights that may be pruned; None for all."""
        return self.experiment.limits.get(layer, self.upper_limit)

    def groups_of(self, layer: str, filters: int) -> int:
        """Return the number of groups of a layer's filters: no more than it has filters."""
        return min(self.experiment.groups.get(layer, self.groups), filters)

    @property
    def key(self) -> str:
        content = _content(self, without={"bootstraps", "fraction"})
        drawn = () if self.uses("bootstraps") else {"bootstraps"}
        content["experiment"]["estimate"] = _content(self.estimate, without=drawn)
        content["experiment"]["search"] = _content(self.search)
        content["init"] = self.init and self.init.digest
        return content_key("trial", content)

    @property
    def protocol(self) -> str:
        """Eight hex digits that trials share if they differ in the axes of a sweep only."""
        axes = {"groups", "samples_per_class", "upper_limit", "fraction", "bootstraps", "seed"}
        content = _content(self, without={*axes, "criterion"})
        content["experiment"]["estimate"].pop("bootstraps")
        content["experiment"]["search"] = _content(self.search, without={"fraction"})
        content["init"] = self.init and self.init.digest
        return content_key("protocol", content)[:8]

    @property
    def baseline_key(self) -> str:
        chosen = self.experiment
        return content_key(
            "baseline",
            self.data_digest,
            self.network_digest,
            self.init and self.init.digest,
            _content(chosen.data),
            _content(chosen.network),
            _content(chosen.training),
            chosen.threads,
            self.seed,
        )

    def scores_key(self, weight: str) -> str:
        """Key of the scores of one layer's blocks."""
        return content_key(
            "scores",
            self.baseline_key,
            weight,
            _content(self.estimate) if self.uses("bootstraps") else None,
            self.groups,
            self.samples_per_class,
            *([] if self.criterion == DEFAULT_CRITERION else [self.criterion]),
            *([self.experiment.groups] if self.uses("groups") and self.experiment.groups else []),
        )

    @property
    def activations_key(self) -> str:
        """Key of the activations that scores are estimated from."""
        chosen = self.experiment
        return content_key(
            "activations",
            self.baseline_key,
            chosen.prune,
            chosen.leave_out,
            self.samples_per_class,
        )

    def retrained_key(self, mask_digest: str) -> str:
        """Key of retraining under a mask: trials that come upon the same mask share it."""
        settings = _content(self.experiment.retraining_settings)
        return content_key("retrained", self.baseline_key, settings, mask_digest)


class Grid(_Frozen):
    """A product of axes; limits may be given in terms of the groups, as g/50 or (g/50)^2."""

    groups: tuple[int, ...]
    samples_per_class: tuple[int, ...]
    upper_limits: tuple[str, ...]
    fractions: tuple[float | None, ...] = (None,)
    bootstraps: tuple[int | None, ...] = (None,)
    criteria: tuple[str, ...] = (DEFAULT_CRITERION,)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield what a trial takes of every point, limits outermost.

        In this order trials that run side by side seldom wait for the scores of one another.
        """
        for limit, fraction, groups, samples, bootstraps, criterion in product(
            self.upper_limits,
            self.fractions,
            self.groups,
            self.samples_per_class,
            self.bootstraps,
            self.criteria,
        ):
            yield {
                "groups": groups,
                "samples_per_class": samples,
                "upper_limit": parse_limit(limit, groups),
                "fraction": fraction,
                "bootstraps": bootstraps,
                "criterion": criterion,
            }


_LIMIT_RULE = re.compile(r"g/(\d+)|\(g/(\d+)\)\^2")


def parse_limit(text: str, groups: int, *, option: str = "--upper-limits") -> float | None:
    """Return the upper limit that a word of the command line stands for.

    Raises:
        InputError: it is not none, a number from 0 to 1, g/N or (g/N)^2.
    """
    allowed = "allowed are none, a number from 0 to 1, and g/N or (g/N)^2 with g the groups"
    if text == "none":
        return None
    rule = _LIMIT_RULE.fullmatch(text)
    try:
        if rule:
            linear, squared = rule.groups()
            limit = Fraction(groups, int(linear)) if linear else Fraction(groups, int(squared)) ** 2
        else:
            limit = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{option} {text}: {allowed}") from None
    if not 0 <= limit <= 1:
        at = f" at {groups} groups is {float(limit):g}" if rule else ""
        raise InputError(f"{option} {text}{at}: {allowed}")
    return float(limit)


def format_limit(limit: float | None) -> str:
    """Return the word for an upper limit or a fraction: none, or the number."""
    return "none" if limit is None else repr(float(limit)).removesuffix(".0")


def content_key(*parts: Any) -> str:
    """Return sixteen hex digits that stand for the parts (JSON values) and the method's version."""
    content = json.dumps([METHOD_VERSION, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _content(config: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    # Without what is at its default: an option that is added later, at a default that changes
    # nothing, leaves every key as it was.
    return config.model_dump(mode="json", exclude_defaults=True, exclude=set(without))


def experiment_names() -> list[str]:
    """Return the names of the experiments that come with the project."""
    return sorted(path.stem for path in EXPERIMENTS_FOLDER.glob("*.yaml"))


def load_experiment(name: str, *, smoke: bool = False) -> Experiment:
    """Read an experiment by its name, or by the path of a YAML file.

    Example:
        ```python
        experiment = load_experiment("mnist_mlp").model_copy(update={"floor": True})
        ```

    Args:
        name: or path.
        smoke: lay the file's section of that name, the same experiment shrunk to run in under a
            minute, over the rest.

    Raises:
        InputError: there is none, or a key or value in it is not allowed.
    """
    path, content = _read_experiment(name, smoke)
    content.pop("trial", None)
    return validated(Experiment, content, str(path))


def trial_defaults(name: str, *, smoke: bool = False) -> TrialDefaults | None:
    """Read the section trial of an experiment; None where it has none. See load_experiment."""
    path, content = _read_experiment(name, smoke)
    if content.get("trial") is None:
        return None
    return validated(TrialDefaults, content["trial"], f"{path}: trial")


def validated(model: type[_Model], content: Any, origin: str) -> _Model:
    """Return the content as a model.

    Raises:
        InputError: a key or value is not allowed; names the origin of the content.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {describe(error, model)}") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands in a mapping twice, where YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands there twice", node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep)


def _read_experiment(name: str, smoke: bool) -> tuple[Path, dict[str, Any]]:
    path, content = _read_extended(name, ())
    profile = content.pop("smoke", None)
    if smoke:
        if not isinstance(profile, dict):
            raise InputError(f"--smoke: {path} has no section smoke")
        content = _laid_over(content, profile)
    return path, content


def _read_extended(name: str, extending: tuple[Path, ...]) -> tuple[Path, dict[str, Any]]:
    """Return an experiment's file and its content, laid over that of the one that it extends.

    Args:
        name: or path.
        extending: the files that led to this one.
    """
    is_path = _is_path(name)
    path = Path(name) if is_path else EXPERIMENTS_FOLDER / f"{name}.yaml"
    if not path.is_file() or (not is_path and name not in experiment_names()):
        raise InputError(
            f"--experiment {name}: there is no such experiment; "
            f"{allowed(name, experiment_names())}, or give the path of a YAML file"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    where = path.resolve()
    if where in extending:
        raise InputError(f"{path}: extends itself")
    if (extended := content.pop("extends", None)) is None:
        return path, content
    below_path = str(path.parent / extended) if _is_path(str(extended)) else str(extended)
    try:
        _, below = _read_extended(below_path, (*extending, where))
    except InputError as error:
        raise InputError(f"{path}: extends {extended}: {error}") from None
    return path, _laid_over(below, content)


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _laid_over(content: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    """Return the content with the profile's values in place, section by section."""
    merged = dict(content)
    for key, value in profile.items():
        below = merged.get(key)
        inside = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _laid_over(below, value) if below and inside else value
    return merged


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a validation error as one line that names the key, the value and what is allowed."""
    complaints = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            hint = allowed(str(item["loc"][-1]), _keys_at(model, item["loc"][:-1]))
            complaints.append(f"unknown key {key}; {hint}")
        elif item["type"] == "missing":
            complaints.append(f"missing key {key}")
        elif item["type"] == "value_error":
            complaints.append(str(item["ctx"]["error"]))
        else:
            complaints.append(f"{key} {item['input']!r}: {item['msg']}")
    return "; ".join(complaints)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        inside = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        (model,) = (kind for kind in inside if issubclass(kind, BaseModel))
    return list(model.model_fields)
