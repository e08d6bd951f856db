"""Networks by name, and the pairs of layers in them that can be pruned."""

import difflib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from mint.config.schema import NetworkConfig
from mint.errors import InputError
from mint.models.mlp import mlp
from mint.models.resnet import AKAMASTER_NAMES, resnet50, resnet56
from mint.models.vgg import vgg16

_OWN: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "vgg16": vgg16,
    "resnet56": resnet56,
    "resnet50": resnet50,
}

# For the name of a network, what published weights call its modules: for load_weights.
PUBLISHED_NAMES: Mapping[str, Mapping[str, str]] = {"resnet56": AKAMASTER_NAMES}


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network, its weights drawn from torch's global generator.

    Raises:
        InputError: there is no such function, it does not take the arguments or their values, or
            what it returns is no nn.Module.
    """
    build: Callable[..., object]
    if config.name in _OWN:
        build = validate_call(config=ConfigDict(strict=True))(_OWN[config.name])
    else:
        _, build = _imported(config.name)
    try:
        network = build(**config.arguments)
    except ValidationError as error:
        raise InputError(f"network {config.name}: {_described(error)}") from None
    except Exception as error:  # the function may be anyone's
        raise InputError(
            f"network {config.name} with arguments {config.arguments}: {_line(error)}"
        ) from error
    if isinstance(network, nn.Module) and any(
        isinstance(parameter, nn.parameter.UninitializedParameter)
        for parameter in network.parameters()
    ):
        raise InputError(f"network {config.name}: has lazy layers; give them their sizes")
    if not isinstance(network, nn.Module):
        raise InputError(
            f"network {config.name}: must return an nn.Module, not {type(network).__name__}"
        )
    return network


def source_digest(config: NetworkConfig) -> str | None:
    """Return sixteen hex digits of the source of a user's network; None for one of mint's own.

    Read are the file of the module and, where it took the function from another, that one too;
    a change in what these import goes unnoticed.

    Raises:
        InputError: there is no such function, or its source is not at hand.
    """
    if config.name in _OWN:
        return None
    module, build = _imported(config.name)
    try:
        files = {inspect.getsourcefile(part) for part in (module, inspect.unwrap(build))}
        content = [Path(file).read_bytes() for file in sorted(filter(None, files))]
    except (TypeError, OSError) as error:
        raise InputError(f"network {config.name}: its source cannot be read: {error}") from error
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def own_module(name: str) -> Path | None:
    """Return the file or package that a user's network comes from, to be taken along elsewhere.

    Returns:
        None for mint's own networks, and for those of installed packages.
    """
    if name in _OWN:
        return None
    module, _ = _imported(name)
    top = sys.modules[module.__name__.split(".")[0]]
    path = Path(top.__path__[0] if hasattr(top, "__path__") else str(top.__file__)).resolve()
    return None if "site-packages" in path.parts else path


def _imported(name: str) -> tuple[ModuleType, Callable[..., object]]:
    module_name, function_name = name.split(":")
    # As python -m has it: what lies in the folder where the user stands can be imported.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module's own code runs here
        raise InputError(
            f"network {name}: {module_name} cannot be imported: "
            f"{type(error).__name__}: {_line(error)}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key in dir(module) if callable(getattr(module, key))]
        near = difflib.get_close_matches(function_name, functions, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"network {name}: {module_name} has no function {function_name}{hint}")
    return module, function


def _described(error: ValidationError) -> str:
    return "; ".join(
        ".".join(map(str, item["loc"]))
        + ("" if item["type"].startswith("missing") else f" {item['input']!r}")
        + f": {item['msg']}"
        for item in error.errors()
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
