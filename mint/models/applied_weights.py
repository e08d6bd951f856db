"""Which weights a network applies, and how often: what its forward pass really computes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_FUNCTIONS = {functional.linear, *_CONVOLUTIONS, *_TRANSPOSED}


class AppliedWeights(TorchFunctionMode):
    """Records, inside the block, the weight of every call of a convolution or linear function.

    A layer that computes its weight, as weight normalization and weight standardization do, applies
    another tensor than its parameter. An entry of zero in the parameter is then none in the layer.

    Attributes:
        calls: weights in the order of their use, and the number of positions, of all images, at
            which each of their entries is used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS:
            named = {**dict(zip(("input", "weight"), args, strict=False)), **(kwargs or {})}
            weight = named["weight"]
            # A transposed convolution applies each weight at every position of its input.
            positions = named["input"] if func in _TRANSPOSED else output
            channels = positions.shape[1 - weight.dim()]
            self.calls.append((weight, positions.numel() // channels))
        return output

    def __contains__(self, weight: Tensor) -> bool:
        return any(applied is weight for applied, _ in self.calls)
