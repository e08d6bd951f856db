"""Networks by name: mint's own, and any function that returns an nn.Module."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from mint.config.loading import describe
from mint.config.schema import NetworkConfig
from mint.errors import InputError, allowed, error_line
from mint.models.mlp import mlp
from mint.models.resnet import AKAMASTER_NAMES, resnet50, resnet56
from mint.models.vgg import vgg16

_OWN: Mapping[str, Callable[..., nn.Module]] = {
    function.__name__: function for function in (mlp, vgg16, resnet56, resnet50)
}

# For a network's name, the module names in published weight files and our names for them.
PUBLISHED_NAMES: Mapping[str, Mapping[str, str]] = {"resnet56": AKAMASTER_NAMES}


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network, its weights drawn from torch's global generator.

    Raises:
        InputError: the function does not exist, rejects the arguments, or returns anything but an
            nn.Module whose layers have their sizes.
    """
    name = config.name
    if name in _OWN:
        build: Callable[..., object] = validate_call(config=ConfigDict(strict=True))(_OWN[name])
    else:
        _, build = _imported(name)
    try:
        network = build(**config.arguments)
    except ValidationError as error:
        raise InputError(f"network {name}: {describe(error)}") from None
    except Exception as error:  # the function may be any code
        raise InputError(
            f"network {name} with arguments {config.arguments}: {error_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"network {name}: must return an nn.Module, not {type(network).__name__}")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
        raise InputError(f"network {name}: has lazy layers; give their sizes")
    return network


def source_digest(config: NetworkConfig) -> str | None:
    """Return sixteen hex digits of the source of a user's network; None for mint's own networks.

    The digest covers the files of the module and of the function, but not what they import.

    Raises:
        InputError: the function does not exist, or its source cannot be read.
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
    """Return the file or package of a user's network; None for mint's own and installed ones."""
    if name in _OWN:
        return None
    module, _ = _imported(name)
    top = sys.modules[module.__name__.split(".")[0]]
    path = Path(top.__path__[0] if hasattr(top, "__path__") else str(top.__file__)).resolve()
    return None if "site-packages" in path.parts else path


def _imported(name: str) -> tuple[ModuleType, Callable[..., object]]:
    module_name, function_name = name.split(":")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as with python -m: modules in the working directory are found
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module's own code runs here
        raise InputError(
            f"network {name}: {module_name} cannot be imported: {error_line(error)}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        hint = allowed(function_name, functions)
        raise InputError(f"network {name}: {module_name} has no function {function_name}; {hint}")
    return module, function
