"""Find the layers and layer pairs of a network.

The network runs on an example; mint.models.flow follows the filters through its operations.
"""

import warnings
from contextlib import nullcontext
from itertools import zip_longest

import torch
import torch.fx
from torch import Tensor, nn

from mint.errors import InputError, first_line
from mint.models.flow import Flow
from mint.models.layers import Traced
from mint.models.running import OTHERS, record, refused


def trace(network: nn.Module, example: Tensor) -> Traced:
    """Return the operations, layers and layer pairs of a network.

    Args:
        network: unchanged by tracing.
        example: (n, ...) inputs on the network's device, at least one.

    Raises:
        InputError: the network does not run on the example, or what it does depends on the values
            or the number of the images.
    """
    name = type(network).__name__
    two, three = (torch.cat([example] * 3)[:number] for number in (2, 3))
    if three.is_floating_point():
        three = 1 - three  # not the same images, in case the code looks at them
    try:
        graph, output = record(network, two)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever wrote the network has just seen them
            _compare(graph, record(network, three)[0], network)
    except InputError:
        raise
    except Exception as error:  # the network may be any code
        reason = f"{type(error).__name__}: {first_line(error)}"
        shape = tuple(example.shape)
        raise InputError(f"{name} does not run on an input of shape {shape}: {reason}") from error
    returned = tuple(output.shape)[1:] if isinstance(output, Tensor) else type(output).__name__
    on_cpu = torch.get_default_device().type == "cpu"
    # The numbers of filters are on the CPU, whatever the network is on.
    with nullcontext() if on_cpu else torch.device("cpu"):
        return Flow(graph, network).traced(returned)


def _compare(two: torch.fx.Graph, three: torch.fx.Graph, network: nn.Module) -> None:
    """Note for each value whether its first dimension is that of the images, as "by image".

    Raises:
        InputError: the operations on two and on three images differ, or what they read.
    """
    for node, other in zip_longest(two.nodes, three.nodes):
        if not (node and other and _read(node) == _read(other)):
            raise refused(network, OTHERS)
        shapes, longer = (each.meta.get("shape", ()) for each in (node, other))
        pairs = [(shapes, longer)]
        if isinstance(shapes, list):
            pairs = list(zip(shapes, longer, strict=False))
        node.meta["by image"] = [(a[:1], b[:1]) == ((2,), (3,)) for a, b in pairs]


def _read(node: torch.fx.Node) -> tuple[object, list[str]]:
    return node.target, [read.name for read in node.all_input_nodes]
