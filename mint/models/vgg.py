"""VGG16 for images of 32 x 32 pixels."""

from collections import OrderedDict

from pydantic import PositiveInt
from torch import nn

# Filters of the 13 convolutions; every stage ends with a pooling layer.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(classes: PositiveInt) -> nn.Sequential:
    """Return VGG16 with batch norm: inputs (n, 3, 32, 32), logits (n, classes).

    As in Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 4.1: batch norm
    after every convolution and after the first linear layer, no dropout.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, index = 3, 0
    for stage, widths in enumerate(_STAGES, start=1):
        for filters in widths:
            index += 1
            # No bias: batch norm subtracts the mean.
            conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            layers[f"conv{index}"] = conv
            layers[f"bn{index}"] = nn.BatchNorm2d(filters)
            layers[f"relu{index}"] = nn.ReLU()
            channels = filters
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(channels, 512, bias=False)
    layers[f"bn{index + 1}"] = nn.BatchNorm1d(512)
    layers[f"relu{index + 1}"] = nn.ReLU()
    layers["linear2"] = nn.Linear(512, classes)
    return nn.Sequential(layers)
