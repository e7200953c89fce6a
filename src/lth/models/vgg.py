"""VGG-19 as adapted to CIFAR, with batch norm and a single fully connected layer (figure 2)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from lth.config import Model
from lth.models.architecture import Architecture

MODULES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


def build(config: Model, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU, max pools between modules, and global average pooling at the end.

    The convolutions have no biases, because batch norm would remove them.
    """
    channels = shape[0]
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, widths in enumerate(MODULES, start=1):
        for n, units in enumerate(widths, start=1):
            modules[f"conv{number}_{n}"] = nn.Conv2d(channels, units, 3, padding=1, bias=False)
            modules[f"bn{number}_{n}"] = nn.BatchNorm2d(units)
            modules[f"relu{number}_{n}"] = nn.ReLU()
            channels = units
        last = number == len(MODULES)
        modules[f"pool{number}"] = nn.AdaptiveAvgPool2d(1) if last else nn.MaxPool2d(2)
    modules["flatten"] = nn.Flatten()
    modules["output"] = nn.Linear(channels, classes)
    return nn.Sequential(modules)


vgg19 = Architecture(build, smallest=16, bfloat16=True)
