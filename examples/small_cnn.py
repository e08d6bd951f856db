"""Your own network: an nn.Module that torch.fx can trace, and the function that builds it."""

import torch
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """A CNN with two convolutions, batch norm and two linear layers."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(64 * 4 * 4, 64)  # for 8 x 8 images
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, classes) of images (n, channels, 8, 8)."""
        x = torch.relu(self.bn1(self.conv1(images)))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = torch.relu(self.hidden(x.flatten(1)))
        return self.head(x)  # type: ignore[no-any-return]


def build(channels: int = 1, classes: int = 10) -> nn.Module:
    """Return the network; choose any arguments, with defaults."""
    return SmallCNN(channels, classes)
