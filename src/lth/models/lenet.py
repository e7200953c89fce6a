"""LeNet-300-100, and fully connected networks of other sizes (figure 2)."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from math import prod

from torch import nn

from lth.config import Model
from lth.models.architecture import Architecture
from lth.models.dropout import CounterDropout


def build(config: Model, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Linear and ReLU for each of `config.layers`, then the output layer; inputs are flattened."""
    sizes = (prod(shape), *(config.layers or ()))
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for n, (inputs, units) in enumerate(itertools.pairwise(sizes), start=1):
        modules[f"fc{n}"] = nn.Linear(inputs, units)
        modules[f"relu{n}"] = nn.ReLU()
        if config.dropout:
            modules[f"dropout{n}"] = CounterDropout(config.dropout, layer=n - 1)
    modules["output"] = nn.Linear(sizes[-1], classes)
    return nn.Sequential(modules)


lenet = Architecture(build)
