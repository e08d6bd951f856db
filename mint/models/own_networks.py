"""A user's own network: the function that builds it, and the source files that it depends on."""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, resolve_name
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, get_type_hints

from mint.config.schema import NetworkConfig
from mint.errors import InputError, allowed, error_line

if TYPE_CHECKING:  # it takes seconds, and mint's own networks are known without it
    from torch import nn

# Not the user's: METHOD_VERSION stands for mint's code, and nobody edits what is installed.
_NOT_OWN = frozenset({*sys.stdlib_module_names, "mint"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def imported(name: str) -> "Callable[..., nn.Module]":
    """Return the function or class that a network's MODULE:FUNCTION names.

    Any file may name a function, so this must be one that makes networks: os:system is refused.

    Raises:
        InputError: the module cannot be imported; or it defines no such nn.Module class or
            function annotated to return one, itself or in its submodules.
    """
    module_name, function_name = name.split(":")
    module = _import(name, module_name)
    function = getattr(module, function_name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if _makes_networks(value)]
        hint = f"; {allowed(function_name, known)}" if known else ""
        raise InputError(f"network {name}: {module_name} has no function {function_name}{hint}")
    if not _makes_networks(function):
        raise InputError(
            f"network {name}: must be a class of nn.Module, or a function annotated to return one: "
            f"def {function_name}() -> nn.Module"
        )
    if not f"{function.__module__}.".startswith(f"{module_name}."):
        problem = f"is defined in {function.__module__}; name it there"
        raise InputError(f"network {name}: {problem}")
    return function  # type: ignore[no-any-return]


def source_digest(config: NetworkConfig) -> str | None:
    """Return sixteen hex digits of a user's network's source; None for mint's own networks.

    The source is the files of the module and of the function, and the user's own modules that
    these import, directly or not. A process goes on with what it has imported, so the digest
    ignores later edits.

    Raises:
        InputError: as imported; or a file cannot be read.
    """
    if not config.is_users:
        return None
    imported(config.name)
    return _digest(config.name, sys.modules[config.name.split(":")[0]])


def own_modules(config: NetworkConfig) -> list[Path]:
    """Return the user's own files and packages that a network depends on.

    Raises:
        InputError: as source_digest.
    """
    found = set()
    for module, file in (_source_files(config.name) if config.is_users else {}).items():
        if _is_own(module, file):
            place = file.parent if file.stem == "__init__" else file
            found.add([place, *place.parents][module.count(".")])
    return sorted(found)


def _import(name: str, module_name: str) -> ModuleType:
    folder = Path.cwd()
    if str(folder) not in sys.path:  # last, so that a queue.py in it never replaces Python's
        sys.path.append(str(folder))
    path = folder.joinpath(*module_name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        found = _file(module_name)
        if file.is_file() and (found is None or found.resolve() != file.resolve()):
            problem = f"Python finds another {module_name.split('.')[0]} before {file}; rename it"
            raise InputError(f"network {name}: {problem}")
    try:
        return import_module(module_name)
    except Exception as error:  # the module's own code runs here
        raise InputError(
            f"network {name}: {module_name} cannot be imported: {error_line(error)}"
        ) from error


def _makes_networks(value: object) -> bool:
    from torch import nn

    made: object = value
    if inspect.isfunction(value):
        try:
            made = get_type_hints(value).get("return")
        except Exception:  # an annotation may be any code
            return False
    return isinstance(made, type) and issubclass(made, nn.Module)


@cache
def _digest(name: str, module: ModuleType) -> str:
    """Return the digest; the module stands for what this process has imported."""
    files = sorted(_source_files(name).items())
    content = b"\0".join(file.read_bytes() for _, file in files)
    return hashlib.sha256(content).hexdigest()[:16]


def _source_files(name: str) -> dict[str, Path]:
    """Return the source files that a network depends on, by the names of their modules."""
    build = inspect.unwrap(imported(name))
    module_name = name.split(":")[0]
    files: dict[str, Path] = {}
    seen: set[str] = set()
    try:
        for start, part in ((module_name, sys.modules[module_name]), (build.__module__, build)):
            if source := inspect.getsourcefile(part):
                files[start] = Path(source)
        waiting = [module for start in files for module in _with_parents(start)]
        while waiting:
            module = waiting.pop()
            if module in seen:
                continue
            seen.add(module)
            file = files.get(module) or _file(module)
            if file and (module in files or _is_own(module, file)):
                files[module] = file
                waiting += _imports(module, file)
    except (TypeError, OSError, SyntaxError, ValueError, ImportError) as error:
        problem = f"its source cannot be read: {error_line(error)}"
        raise InputError(f"network {name}: {problem}") from error
    return files


def _imports(module: str, file: Path) -> Iterator[str]:
    """Yield the names that a module's file imports, wherever in it; some may be no modules."""
    if file.suffix != ".py":
        return
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _with_parents(name.name)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from _with_parents(base)
            yield from (f"{base}.{name.name}" for name in node.names)


def _with_parents(module: str) -> Iterator[str]:
    return accumulate(module.split("."), "{}.{}".format)


def _file(module: str) -> Path | None:
    """Return the file that Python finds for a module, without importing it; None if there is none.

    A namespace package has none, nor has a module of the interpreter.
    """
    first, *parts = module.split(".")
    try:
        spec = find_spec(first)
    except ValueError:  # __main__ has no spec
        return None
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _is_own(module: str, file: Path) -> bool:
    return module.split(".")[0] not in _NOT_OWN and not _INSTALLED & set(file.parts)
