"""Networks by name, and what pruning has to know of any network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lth.config import MOST_WEIGHTS, Model
from lth.errors import UsageError
from lth.models.conv import conv
from lth.models.lenet import lenet
from lth.models.resnet import ResNet
from lth.models.vgg import vgg

MODELS: dict[str, Callable[[Model, tuple[int, ...], int], nn.Module]] = {
    "lenet": lenet,
    "conv2": partial(conv, (64,)),
    "conv4": partial(conv, (64, 128)),
    "conv6": partial(conv, (64, 128, 192)),
    "conv6-256": partial(conv, (64, 128, 256)),
    "resnet18": ResNet,
    "vgg19": vgg,
}
SMALLEST_IMAGE = {"lenet": 1, "conv2": 2, "conv4": 4, "conv6": 8, "conv6-256": 8, "resnet18": 4, "vgg19": 16}
SHORTCUTS = ("shortcut", "downsample")  # what networks call the 1x1 convolutions beside their blocks


def build(config: Model, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `config` for inputs of `shape` (without the batch); its own initial weights mean nothing.

    Raises UsageError where it cannot take such inputs.
    """
    smallest = SMALLEST_IMAGE[config.name]
    if smallest > 1 and (len(shape) != 3 or min(shape[1:]) < smallest):
        found = " x ".join(map(str, shape)) if len(shape) == 3 else f"vectors of {shape[0]} features"
        raise UsageError(
            f"model {config.name} takes images of at least {smallest} x {smallest} pixels; the data are {found}"
        )
    make = MODELS[config.name]
    with torch.device("meta"):  # which takes no memory
        weights = sum(parameter.numel() for parameter in make(config, shape, classes).parameters())
    if weights > MOST_WEIGHTS:
        size = " x ".join(map(str, shape))
        raise UsageError(f"for inputs of {size} model {config.name} has {weights:,} weights; at most {MOST_WEIGHTS:,}")
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator: leave it alone
        return make(config, shape, classes)


def groups(model: nn.Module) -> dict[str, str]:
    """The counted parameters, in the network's order: name -> `conv`, `fc`, `shortcut` or `output`.

    The last of them is the output layer. A shortcut is a 1x1 convolution in a module of one of the names `SHORTCUTS`.
    """
    counted = {
        f"{path}.weight" if path else "weight": _group(path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | _ConvNd)
    }
    return counted | dict.fromkeys(list(counted)[-1:], "output")


def _group(path: str, module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return "fc"
    assert isinstance(module, _ConvNd)
    beside = max(module.kernel_size) == 1 and any(part in SHORTCUTS for part in path.split("."))
    return "shortcut" if beside else "conv"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all that a reset has to bring back: parameters and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
