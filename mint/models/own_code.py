"""A user's own network or criterion: its function, and the source files that it depends on."""

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
from typing import Any, NamedTuple, get_type_hints

from mint.errors import InputError, allowed, error_line

# Not the user's: METHOD_VERSION stands for mint's code, and nobody edits what is installed.
_NOT_OWN = frozenset({*sys.stdlib_module_names, "mint"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class Role(NamedTuple):
    """What a user's function is for.

    Any file may name a function, so it must say by its annotation that it is one: os:system is
    refused.

    Attributes:
        name: of the role in messages.
        fits: returns whether an object is such a function.
        rule: what it must be, with FUNCTION for its name.
    """

    name: str
    fits: Callable[[object], bool]
    rule: str


def returns(value: object, result: type) -> bool:
    """Return whether a value is a function annotated to return a result of this class."""
    if not inspect.isfunction(value):
        return False
    try:
        annotated = get_type_hints(value).get("return")
    except Exception:  # an annotation may be any code
        return False
    return isinstance(annotated, type) and issubclass(annotated, result)


def _makes_networks(value: object) -> bool:
    from torch import nn

    is_network = isinstance(value, type) and issubclass(value, nn.Module)
    return is_network or returns(value, nn.Module)


NETWORK = Role(
    "network",
    _makes_networks,
    "a class of nn.Module, or a function annotated to return one: def FUNCTION() -> nn.Module",
)


def imported(name: str, role: Role = NETWORK) -> Callable[..., Any]:
    """Return the function or class that MODULE:FUNCTION names.

    Raises:
        InputError: the module cannot be imported; or it defines no such function that fits the
            role, itself or in its submodules.
    """
    module_name, function_name = name.split(":")
    module = _import(name, module_name, role)
    function = getattr(module, function_name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if role.fits(value)]
        hint = f"; {allowed(function_name, known)}" if known else ""
        raise InputError(f"{role.name} {name}: {module_name} has no function {function_name}{hint}")
    if not role.fits(function):
        rule = role.rule.replace("FUNCTION", function_name)
        raise InputError(f"{role.name} {name}: must be {rule}")
    if not f"{function.__module__}.".startswith(f"{module_name}."):
        problem = f"is defined in {function.__module__}; name it there"
        raise InputError(f"{role.name} {name}: {problem}")
    return function  # type: ignore[no-any-return]


def source_digest(name: str, role: Role = NETWORK) -> str | None:
    """Return sixteen hex digits of the source of MODULE:FUNCTION; None for a name of mint's own.

    The source is the files of the module and of the function, and the user's own modules that
    these import, directly or not. A process goes on with what it has imported, so the digest
    ignores later edits.

    Raises:
        InputError: as imported; or a file cannot be read.
    """
    if ":" not in name:
        return None
    imported(name, role)
    return _digest(name, sys.modules[name.split(":")[0]], role)


def own_modules(name: str, role: Role = NETWORK) -> list[Path]:
    """Return the user's own files and packages that MODULE:FUNCTION depends on.

    Raises:
        InputError: as source_digest.
    """
    found = set()
    for module, file in (_source_files(name, role) if ":" in name else {}).items():
        if _is_own(module, file):
            place = file.parent if file.stem == "__init__" else file
            found.add([place, *place.parents][module.count(".")])
    return sorted(found)


def _import(name: str, module_name: str, role: Role) -> ModuleType:
    folder = Path.cwd()
    if str(folder) not in sys.path:  # last, so that a queue.py in it never replaces Python's
        sys.path.append(str(folder))
    path = folder.joinpath(*module_name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        found = _file(module_name)
        if file.is_file() and (found is None or found.resolve() != file.resolve()):
            problem = f"Python finds another {module_name.split('.')[0]} before {file}; rename it"
            raise InputError(f"{role.name} {name}: {problem}")
    try:
        return import_module(module_name)
    except Exception as error:  # the module's own code runs here
        raise InputError(
            f"{role.name} {name}: {module_name} cannot be imported: {error_line(error)}"
        ) from error


@cache
def _digest(name: str, module: ModuleType, role: Role) -> str:
    """Return the digest; the module stands for what this process has imported."""
    files = sorted(_source_files(name, role).items())
    content = b"\0".join(file.read_bytes() for _, file in files)
    return hashlib.sha256(content).hexdigest()[:16]


def _source_files(name: str, role: Role) -> dict[str, Path]:
    """Return the source files that a function depends on, by the names of their modules."""
    build = inspect.unwrap(imported(name, role))
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
        raise InputError(f"{role.name} {name}: {problem}") from error
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
