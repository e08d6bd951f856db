"""Experiments from YAML files, with what the user changes laid over them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mint.config.locations import bundled
from mint.config.schema import MAX_NAME_LENGTH, Experiment, NetworkConfig
from mint.errors import InputError, allowed

# Keys of the section search that a change of another key leaves without meaning.
_REPLACED = {
    "search.fraction": ("margin", "sd", "steps"),
    "search.margin": ("fraction",),
    "search.steps": ("fraction",),
}
_Model = TypeVar("_Model", bound=BaseModel)


class TrialDefaults(BaseModel, extra="forbid", frozen=True):
    """Axes of a single trial, as in TrialConfig, where the user gives none."""

    groups: int
    samples_per_class: int
    upper_limit: str = "none"


@dataclass(frozen=True)
class ExperimentFile:
    """What an experiment's YAML file says.

    Attributes:
        defaults: section trial.
        reference: file of published rows that the report prints beside the measured ones.
    """

    experiment: Experiment
    defaults: TrialDefaults | None = None
    reference: Path | None = None

    @property
    def references(self) -> tuple[Path, ...]:
        """The reference file, as the report takes several."""
        return (self.reference,) if self.reference else ()


def experiment_names() -> list[str]:
    """Return the names of the experiments that come with mint."""
    return sorted(path.stem for path in bundled("experiments").glob("*.yaml"))


def load_experiment(name: str, *, smoke: bool = False) -> Experiment:
    """Read an experiment by its name, or by the path of a YAML file.

    Example:
        ```python
        experiment = load_experiment("mnist_mlp").model_copy(update={"keep_connected": True})
        ```

    Args:
        name: name or path.
        smoke: shrink it to run in under a minute, by the section smoke of its file.

    Raises:
        InputError: there is no such experiment, or one of its keys or values is not allowed.
    """
    return read_experiment(name, smoke=smoke).experiment


def read_experiment(
    name: str,
    *,
    smoke: bool = False,
    model: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ExperimentFile:
    """Read an experiment's file, as load_experiment does, and change values of it.

    Args:
        name: name or path.
        smoke: lay the section smoke over the file.
        model: MODULE:FUNCTION of another network; all its layer pairs are pruned.
        changes: by dotted key, such as training.epochs, values that are checked as if they stood
            in the file. search.fraction replaces the file's search, and search.margin or
            search.steps the file's fraction.
    """
    path, content = _read_extended(name, ())
    profile = content.pop("smoke", None)
    if smoke:
        if not isinstance(profile, dict):
            raise InputError(f"{path} has no section smoke", parameter="smoke")
        content = _laid_over(content, profile)
    for key, value in (changes or {}).items():
        for part in reversed(key.split(".")):
            value = {part: value}
        content = _laid_over(content, value)
        for other in _REPLACED.get(key, ()):
            if f"search.{other}" not in (changes or {}):
                content["search"].pop(other, None)
    for section in ("retraining", "light"):
        if isinstance(content.get(section), dict) and isinstance(content.get("training"), dict):
            content[section] = content["training"] | content[section]
    defaults, reference = content.pop("trial", None), content.pop("reference", None)
    origin = ", ".join([str(path), *(f"{key}={value}" for key, value in (changes or {}).items())])
    experiment = validated(Experiment, content, origin)
    return ExperimentFile(
        _with_network(experiment, model) if model else experiment,
        defaults and validated(TrialDefaults, defaults, f"{path}: trial"),
        reference and Path(reference),
    )


def validated(model: type[_Model], content: Any, origin: str) -> _Model:
    """Return the content as a model; raise InputError that begins with the origin if it fails."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {describe(error, model)}") from None


def _with_network(experiment: Experiment, model: str) -> Experiment:
    try:
        network = NetworkConfig(name=model)
    except ValidationError:
        problem = "must be MODULE:FUNCTION, such as my_package.my_module:build"
        raise InputError(problem, parameter="model", value=model) from None
    name = re.sub(r"[^a-z0-9]+", "-", model.lower())[-MAX_NAME_LENGTH:].strip("-")
    labels = {"name": name, "title": f"{model} on {experiment.data.name}"}
    pairs = {"prune": "all", "leave_out": (), "limits": {}, "groups": {}, "count": "all"}
    return experiment.model_copy(update={"network": network, **labels, **pairs})


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that repeats a key; YAML itself would keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                problem, (repeated, _) = f"the key {key} stands there twice", node.value[index]
                raise yaml.constructor.ConstructorError(None, None, problem, repeated.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise InputError if it is not one with unique keys."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as YAML: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return content


def _read_extended(name: str, extending: tuple[Path, ...]) -> tuple[Path, dict[str, Any]]:
    """Return an experiment's file, and its content laid over that of the one it extends."""
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else bundled("experiments") / f"{name}.yaml"
    known = experiment_names()
    if not (path.is_file() if is_path else name in known):
        raise InputError(
            f"there is no such experiment; {allowed(name, known)}, or give the path of a YAML file",
            parameter="experiment",
            value=name,
        )
    content = read_yaml(path)
    if path.resolve() in extending:
        raise InputError(f"{path}: extends itself")
    if content.get("reference"):  # relative to the file that names it
        content["reference"] = str((path.parent / str(content["reference"])).resolve())
    if (extended := content.pop("extends", None)) is None:
        return path, content
    base = str(extended)
    base = str(path.parent / base) if base.endswith((".yaml", ".yml")) else base
    try:
        _, below = _read_extended(base, (*extending, path.resolve()))
    except InputError as error:
        raise InputError(f"{path}: extends {extended}: {error}") from None
    return path, _laid_over(below, content)


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with the values of another in place, section by section.

    Another network starts without arguments: those of one function mean nothing to another.
    """
    merged = dict(below)
    for key, value in above.items():
        inside = isinstance(value, dict) and isinstance(below.get(key), dict)
        if key == "network" and inside and "name" in value:
            inside = value["name"] == below[key].get("name")
        merged[key] = _laid_over(below[key], value) if inside else value
    return merged


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return a validation error as one line that names the key, the value and what is allowed."""
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden" and model:
            hint = allowed(str(item["loc"][-1]), _keys_at(model, item["loc"][:-1]))
            problems.append(f"unknown key {key}; {hint}")
        elif item["type"].startswith("missing"):
            problems.append(f"missing key {key}")
        elif item["type"] == "value_error":
            problems.append(str(item["ctx"]["error"]))
        else:
            problems.append(f"{key} {item['input']!r}: {item['msg']}")
    return "; ".join(problems)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(part, int):  # a place in a list
            continue
        annotation = model.model_fields[part].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        (model,) = (kind for kind in kinds if issubclass(kind, BaseModel))
    return list(model.model_fields)
