"""The Python source of a traced network."""

import ast
import operator
import re
import textwrap
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from mint.data.preparation import Preparation
from mint.errors import InputError
from mint.pruning.export.prepare import PREPARE_IMPORTS, prepare_code

_TEMPLATE = '''\
"""A pruned network as plain PyTorch, written by mint export.

    from network import build
    network = build()  # with the weights of weights.safetensors; build(load=False) without
{usage}"""

from pathlib import Path

{imports}


class Network(nn.Module):
    def __init__(self) -> None:
{init}

{forward}


def build(*, load: bool = True) -> nn.Module:
    """Return the network in evaluation mode, with its weights unless load is False."""
    network = Network().eval()
    if load:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
    return network
'''
_USAGE = """
    from network import CLASSES, prepare
    outputs = network(prepare(Image.open("image.png")))  # with Pillow's Image
    name = CLASSES[outputs.argmax()]
"""


def network_code(network: fx.GraphModule, preparation: Preparation | None) -> str:
    """Return a Python module whose build() returns the network.

    With a preparation, its prepare() returns the network's inputs for an image.

    Raises:
        InputError: a module, function or constant of the network cannot be written as code.
    """
    forward = network.graph.python_code("self")
    lines = ["super().__init__()"]
    for name, child in network.named_children():
        lines.append(f"self.add_module({name!r}, {_constructor(child, name)})")
    for path, tensor in extra_tensors(network).items():
        module, _, name = path.rpartition(".")
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: a {type(tensor).__name__} cannot be written as code")
        value = f"torch.zeros({tuple(tensor.shape)}, dtype={tensor.dtype})"
        value = f"nn.Parameter({value})" if isinstance(tensor, nn.Parameter) else value
        register = f"register_{'parameter' if isinstance(tensor, nn.Parameter) else 'buffer'}"
        lines += [f"self.get_submodule({module!r}).{register}({name!r}, {value})"]
    imports = {"import torch", "from torch import nn", *_imports(forward)}
    if preparation:
        imports |= PREPARE_IMPORTS
    code = _TEMPLATE.format(
        usage=_USAGE if preparation else "",
        imports="\n".join(sorted(imports)),
        init=textwrap.indent("\n".join(lines), " " * 8),
        forward=textwrap.indent(forward.src.strip(), " " * 4),
    )
    return code + (prepare_code(preparation) if preparation else "")


def extra_tensors(network: fx.GraphModule) -> dict[str, Any]:
    """Return the values that the forward pass reads from the network itself, by name."""
    names = sorted({str(node.target) for node in network.graph.nodes if node.op == "get_attr"})
    return {name: operator.attrgetter(name)(network) for name in names}


def _imports(forward: Any) -> list[str]:
    """Return import lines for the names in the code of a forward pass."""
    lines = []
    for name, value in forward.globals.items():
        if not re.search(rf"\b{name}\b", forward.src):
            continue
        home = value.__name__ if isinstance(value, ModuleType) else value.__module__
        if home.partition(".")[0] not in ("torch", "math", "builtins", "operator"):
            raise InputError(f"{home}.{name}: not a function of torch, cannot be written as code")
        if isinstance(value, ModuleType):
            lines.append(f"import {home}" if home == name else f"import {home} as {name}")
        else:
            lines.append(f"from {home} import {value.__name__} as {name}")
    return lines


def _constructor(module: nn.Module, name: str) -> str:
    """Return the expression that builds a module; containers become a ModuleDict."""
    kind = type(module)
    if kind is nn.Module or next(module.children(), None) is not None:
        children = ""
        for key, child in module.named_children():
            children += f"{key!r}: {_constructor(child, f'{name}.{key}')},\n"
        return "nn.ModuleDict({\n" + textwrap.indent(children, "    ") + "})"
    code = f"nn.{module!r}"
    if getattr(nn, kind.__name__, None) is not kind or not _builds(code, module):
        raise InputError(
            f"{name}: {module!r} cannot be written as code; allowed are modules of torch.nn whose "
            "repr shows all their settings"
        )
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    for keyword in list(call.keywords):  # omit arguments that equal their defaults
        call.keywords.remove(keyword)
        if not _builds(ast.unparse(call), module):
            call.keywords.append(keyword)
    return ast.unparse(call)


def _builds(code: str, module: nn.Module) -> bool:
    """Return whether the code builds a module that differs only in the values of its tensors."""
    try:
        with torch.device("meta"):
            built = eval(code, {"nn": nn})  # the repr of a class of torch.nn
    except (TypeError, ValueError, NameError, SyntaxError):
        return False
    return _settings(built) == _settings(module)


def _settings(module: nn.Module) -> tuple[dict[str, object], dict[str, torch.Size]]:
    values = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    del values["training"]
    return values, {key: tensor.shape for key, tensor in module.state_dict().items()}
