"""LeNet-5 for images of 28 x 28 pixels."""

from collections import OrderedDict

from pydantic import PositiveInt
from torch import nn


def lenet5(classes: PositiveInt) -> nn.Sequential:
    """Return LeNet-5: inputs (n, 1, 28, 28), logits (n, classes).

    The layers of LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE
    1998, with ReLU and maxima where it has sigmoids and means, and every filter of conv2 connected.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(1, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, classes),
        )
    )
