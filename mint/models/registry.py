"""Networks by name: mint's own, and those of a user."""

from collections.abc import Callable, Mapping

from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from mint.config.loading import describe
from mint.config.schema import NetworkConfig
from mint.errors import InputError, error_line
from mint.models.lenet import lenet5
from mint.models.mlp import mlp
from mint.models.own_code import imported
from mint.models.resnet import AKAMASTER_NAMES, resnet8, resnet50, resnet56
from mint.models.running import logits
from mint.models.vgg import vgg16

_PROVIDED: Mapping[str, Callable[..., nn.Module]] = {
    function.__name__: function for function in (mlp, lenet5, vgg16, resnet8, resnet56, resnet50)
}

# For a network's name, the module names in published weight files and our names for them.
PUBLISHED_NAMES: Mapping[str, Mapping[str, str]] = {"resnet56": AKAMASTER_NAMES}


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network, its weights drawn from torch's global generator.

    Raises:
        InputError: the name is none of a network, its function rejects the arguments, or returns
            anything but an nn.Module whose layers have their sizes.
    """
    name = config.name
    if name in _PROVIDED:
        build: Callable[..., object] = validate_call(config=ConfigDict(strict=True))(
            _PROVIDED[name]
        )
    else:
        build = imported(name)
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
    if name not in _PROVIDED:
        network.register_forward_hook(lambda network, inputs, output: logits(output))
    return network
