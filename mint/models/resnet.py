"""ResNet8 and ResNet56 for images of 32 x 32 pixels, and torchvision's ResNet50."""

from collections.abc import Mapping
from itertools import pairwise, product

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

_STAGES = (16, 32, 64)  # filters in each stage
_BLOCKS_OF_56 = 9  # residual blocks in each stage, with two convolutions each


def resnet8(classes: PositiveInt) -> "CifarResNet":
    return CifarResNet(classes, blocks=1)


def resnet56(classes: PositiveInt) -> "CifarResNet":
    return CifarResNet(classes, blocks=_BLOCKS_OF_56)


def resnet50(classes: PositiveInt) -> nn.Module:
    from torchvision.models import resnet50 as published  # the import takes seconds

    network: nn.Module = published(weights=None, num_classes=classes)
    return network


class CifarResNet(nn.Module):
    """He et al., Deep Residual Learning, CVPR 2016, section 4.2, for CIFAR-10.

    With n residual blocks in each stage there are 6n + 2 layers: conv1, bn1, ..., and linear1.
    Shortcuts have no parameters (option A): where a stage begins they take every second pixel and
    pad the channels with zeros.
    """

    def __init__(self, classes: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        inside = (filters for filters in _STAGES for _ in range(2 * blocks))
        widths = pairwise((3, _STAGES[0], *inside))
        for index, (channels, filters) in enumerate(widths, start=1):
            stride = 2 if index > 1 and channels < filters else 1
            conv = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(filters))
        self.linear1 = nn.Linear(_STAGES[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes) of images (n, 3, 32, 32)."""
        values = functional.relu(self._convolved(images, 1))
        for stage in range(len(_STAGES)):
            for block in range(self.blocks):
                first = 2 + 2 * (stage * self.blocks + block)
                inside = functional.relu(self._convolved(values, first))
                inside = self._convolved(inside, first + 1)
                if stage > 0 and block == 0:
                    added = (_STAGES[stage] - _STAGES[stage - 1]) // 2
                    values = functional.pad(values[:, :, ::2, ::2], (0, 0, 0, 0, added, added))
                values = functional.relu(inside + values)
        logits: Tensor = self.linear1(functional.avg_pool2d(values, 8).flatten(1))
        return logits

    def _convolved(self, values: Tensor, index: int) -> Tensor:
        values = self.get_submodule(f"conv{index}")(values)
        normed: Tensor = self.get_submodule(f"bn{index}")(values)
        return normed


def _akamaster_names() -> dict[str, str]:
    names = {"linear": "linear1"}
    blocks = product(range(1, len(_STAGES) + 1), range(_BLOCKS_OF_56), (1, 2))
    for index, (stage, block, place) in enumerate(blocks, start=2):
        names[f"layer{stage}.{block}.conv{place}"] = f"conv{index}"
        names[f"layer{stage}.{block}.bn{place}"] = f"bn{index}"
    return names


# Module names of github.com/akamaster/pytorch_resnet_cifar10, and ours.
AKAMASTER_NAMES: Mapping[str, str] = _akamaster_names()
