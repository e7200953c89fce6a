"""Conv-2, Conv-4 and Conv-6: VGG-like networks for CIFAR-10 (figure 2)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from lth.config import Model
from lth.models.architecture import Architecture
from lth.models.dropout import CounterDropout

HIDDEN = (256, 256)


def build(widths: tuple[int, ...], config: Model, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Two 3x3 convolutions and a 2x2 max pool for each of `widths`, then layers of 256, 256 and `classes` units.

    The paper gives the dropout rate but not its place: here it follows the ReLU of both hidden fully connected layers.
    """
    channels, height, width = shape
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for n, units in enumerate(widths, start=1):
        modules[f"conv{2 * n - 1}"] = nn.Conv2d(channels, units, 3, padding=1)
        modules[f"relu{2 * n - 1}"] = nn.ReLU()
        modules[f"conv{2 * n}"] = nn.Conv2d(units, units, 3, padding=1)
        modules[f"pool{n}"] = nn.MaxPool2d(2)
        modules[f"relu{2 * n}"] = nn.ReLU()  # pooling before ReLU gives the same values with a quarter of the work
        channels, height, width = units, height // 2, width // 2
    modules["flatten"] = nn.Flatten()
    inputs = channels * height * width
    for n, units in enumerate(HIDDEN, start=1):
        modules[f"fc{n}"] = nn.Linear(inputs, units)
        modules[f"fc_relu{n}"] = nn.ReLU()
        if config.dropout:
            modules[f"dropout{n}"] = CounterDropout(config.dropout, layer=n - 1)
        inputs = units
    modules["output"] = nn.Linear(inputs, classes)
    return nn.Sequential(modules)


conv2 = Architecture(partial(build, (64,)), smallest=2, bfloat16=True)
conv4 = Architecture(partial(build, (64, 128)), smallest=4, bfloat16=True)
conv6 = Architecture(partial(build, (64, 128, 192)), smallest=8, bfloat16=True)
conv6_256 = Architecture(partial(build, (64, 128, 256)), smallest=8, bfloat16=True)
