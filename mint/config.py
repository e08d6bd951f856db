"""What is run, as frozen and validated values with a key: the hash of what changes the result."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mint.errors import InputError

# Part of every key. Raise it with a change of the code that changes results, so that figures
# of two methods never stand in one table as if they were one.
METHOD_VERSION = 1

EXPERIMENTS_FOLDER = Path(__file__).resolve().parent.parent / "experiments"

_PositiveInt = Annotated[int, Field(ge=1, strict=True)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Frozen):
    """A data set and how many of its training images are held out for validation."""

    name: Literal["digits", "mnist"]
    validation_size: _PositiveInt


class NetworkConfig(_Frozen):
    """A multilayer perceptron: neurons of each layer, inputs and classes included."""

    name: Literal["mlp"]
    widths: Annotated[tuple[_PositiveInt, ...], Field(min_length=3)]
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0


class TrainingConfig(_Frozen):
    """SGD and its schedule; the baseline and every retraining use the same one."""

    epochs: _PositiveInt
    batch_size: _PositiveInt
    lr: Annotated[float, Field(gt=0, strict=True)]
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)]
    nesterov: Annotated[bool, Field(strict=True)]
    weight_decay: Annotated[float, Field(ge=0, strict=True)]
    milestones: tuple[_PositiveInt, ...]
    gamma: Annotated[float, Field(gt=0, le=1, strict=True)]

    def with_epochs(self, epochs: int) -> Self:
        """Return the schedule stretched or shrunk to another number of epochs."""
        milestones = tuple(max(1, round(m * epochs / self.epochs)) for m in self.milestones)
        return self.model_copy(update={"epochs": epochs, "milestones": milestones})


class EstimateConfig(_Frozen):
    """How the scores are estimated.

    Attributes:
        bootstraps: splits to average; where a reliability is asked for, the most that are drawn.
        reliability: stop when the scores are as reliable; None to draw all bootstraps.
    """

    bootstraps: _PositiveInt
    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None


class SearchConfig(_Frozen):
    """How far validation accuracy may drop (percentage points), and how many masks are tried."""

    max_drop: Annotated[float, Field(ge=0, le=100, strict=True)]
    probes: _PositiveInt


class Experiment(_Frozen):
    """A network on a data set, and how it is trained, scored and pruned.

    Attributes:
        name: names the MLflow experiment and the section of the report.
        title: heading of the section.
        prune: pairs of layer names, parent and child; the child's weights are what is counted.
        threads: of one trial. Sums depend on it, so it belongs to the configuration.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    prune: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    estimate: EstimateConfig
    search: SearchConfig
    threads: _PositiveInt = 1

    @model_validator(mode="after")
    def _pairs_are_layers(self) -> Self:
        last = len(self.network.widths) - 1
        allowed = [(f"fc{i}", f"fc{i + 1}") for i in range(1, last)]
        for pair in self.prune:
            if pair not in allowed:
                raise ValueError(f"prune {list(pair)}: this network has {_listed(allowed)}")
            if self.prune.count(pair) > 1:
                raise ValueError(f"prune {list(pair)}: must be named once")
        return self


class TrialConfig(_Frozen):
    """One trial: what the sweep varies, on top of an experiment.

    Attributes:
        groups: blocks of filters in each layer of a pair, contiguous.
        samples_per_class: training images of every class that the scores are estimated from.
        upper_limit: largest share of one layer's weights that may be pruned; None for no limit.
        bootstraps: in place of the experiment's; None for those.
        seed: of everything that is drawn: split, initialisation, batches, rows, bootstraps.
        data_digest: content of the data set, so that other data never answer for these.
    """

    experiment: Experiment
    groups: _PositiveInt
    samples_per_class: _PositiveInt
    upper_limit: Annotated[float, Field(ge=0, le=1)] | None
    bootstraps: _PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)]
    data_digest: str

    @property
    def name(self) -> str:
        """Such as g20-s250-u0.8-seed0, with -b8 before the seed where bootstraps are its own."""
        limit = format_limit(self.upper_limit)
        own = "" if self.bootstraps is None else f"-b{self.bootstraps}"
        return f"g{self.groups}-s{self.samples_per_class}-u{limit}{own}-seed{self.seed}"

    @property
    def estimate(self) -> EstimateConfig:
        """How this trial's scores are estimated."""
        if self.bootstraps is None:
            return self.experiment.estimate
        return self.experiment.estimate.model_copy(update={"bootstraps": self.bootstraps})

    @property
    def key(self) -> str:
        content = self.model_dump(mode="json", exclude={"bootstraps": True})
        content["experiment"]["estimate"] = self.estimate.model_dump()
        return content_key("trial", content)

    @property
    def protocol(self) -> str:
        """Eight hex digits that trials share if they differ in the axes of a sweep only."""
        estimate = self.estimate.model_dump(exclude={"bootstraps"})
        experiment = self.experiment.model_dump() | {"estimate": estimate}
        return content_key("protocol", experiment, self.data_digest)[:8]

    @property
    def baseline_key(self) -> str:
        chosen = self.experiment
        return content_key(
            "baseline",
            self.data_digest,
            chosen.data.model_dump(),
            chosen.network.model_dump(),
            chosen.training.model_dump(),
            chosen.threads,
            self.seed,
        )

    @property
    def scores_key(self) -> str:
        chosen = self.experiment
        return content_key(
            "scores",
            self.baseline_key,
            chosen.prune,
            self.estimate.model_dump(),
            self.groups,
            self.samples_per_class,
        )

    def probe_key(self, mask_digest: str) -> str:
        """Key of retraining under a mask: trials that come upon the same mask share it."""
        return content_key("probe", self.baseline_key, mask_digest)


class Grid(_Frozen):
    """A product of axes; limits may be given in terms of the groups, as g/50 or (g/50)^2."""

    groups: tuple[int, ...]
    samples_per_class: tuple[int, ...]
    upper_limits: tuple[str, ...]
    bootstraps: tuple[int | None, ...] = (None,)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield what a trial takes of every point, limits outermost.

        In this order trials that run side by side seldom wait for the scores of one another.
        """
        for limit, groups, samples, bootstraps in product(
            self.upper_limits, self.groups, self.samples_per_class, self.bootstraps
        ):
            yield {
                "groups": groups,
                "samples_per_class": samples,
                "upper_limit": parse_limit(limit, groups),
                "bootstraps": bootstraps,
            }


_LIMIT_RULE = re.compile(r"g/(\d+)|\(g/(\d+)\)\^2")


def parse_limit(text: str, groups: int) -> float | None:
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
        raise InputError(f"--upper-limits {text}: {allowed}") from None
    if not 0 <= limit <= 1:
        at = f" at {groups} groups is {float(limit):g}" if rule else ""
        raise InputError(f"--upper-limits {text}{at}: {allowed}")
    return float(limit)


def format_limit(limit: float | None) -> str:
    """Return the word for an upper limit: none, or the number."""
    return "none" if limit is None else repr(float(limit)).removesuffix(".0")


def content_key(*parts: Any) -> str:
    """Return sixteen hex digits that stand for the parts (JSON values) and the method's version."""
    content = json.dumps([METHOD_VERSION, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def experiment_names() -> list[str]:
    """Return the names of the experiments that come with the project."""
    return sorted(path.stem for path in EXPERIMENTS_FOLDER.glob("*.yaml"))


def load_experiment(name: str) -> Experiment:
    """Read an experiment by its name, or by the path of a YAML file.

    Raises:
        InputError: there is none, or a key or value in it is not allowed.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else EXPERIMENTS_FOLDER / f"{name}.yaml"
    if not path.is_file() or (not is_path and name not in experiment_names()):
        raise InputError(
            f"--experiment {name}: there is no such experiment; known are "
            f"{', '.join(experiment_names())}, or give the path of a YAML file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, Experiment)}") from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a validation error as one line that names the key, the value and what is allowed."""
    complaints = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _keys_at(model, item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
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
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def _listed(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"[{parent}, {child}]" for parent, child in pairs)
