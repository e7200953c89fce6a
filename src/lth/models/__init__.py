"""Networks by name, and what pruning has to know of any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.parametrize import ParametrizationList

from lth.config import MOST_WEIGHTS, Model, is_custom
from lth.errors import UsageError
from lth.models import custom
from lth.models.conv import conv
from lth.models.init import draw
from lth.models.lenet import lenet
from lth.models.resnet import ResNet
from lth.models.vgg import vgg
from lth.randomness import global_draws

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
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their scales can have two dimensions, and are no weights


def build(config: Model, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `config` for inputs of `shape` (without the batch); its own initial weights mean nothing.

    Raises UsageError where it cannot take such inputs.
    """
    if is_custom(config.name):
        return built(config, shape, classes, seed=0)  # what a state_dict lacks has to be the same each time
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
    with global_draws(torch.device("cpu")):  # modules initialise themselves from the global generator: leave it alone
        return make(config, shape, classes)


def first_weights(config: Model, shape: tuple[int, ...], classes: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights to begin with, drawn from `generator`: all parameters and buffers, on the CPU.

    The paper's initialisation (`lth.models.init.draw`); a network of one's own draws its own.
    """
    if not is_custom(config.name):
        return draw(build(config, shape, classes), generator, config.init_sigma)
    return tensors(built(config, shape, classes, seed=int(torch.randint(2**62, (), generator=generator))))


def built(config: Model, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A network of one's own. What it draws comes from the seed, and the global generators stay as they were."""
    with global_draws(torch.device("cpu")) as draw_from:
        draw_from(seed)
        model = custom.build(config.name, shape, classes, config.sha256)
    if hidden := list(computed(model)):
        raise UsageError(
            f"{config.name}: {hidden[0]} is computed by a parametrization, which is not pruned: build it without one"
        )
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile, whose names are the ticket's."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def uncompiled(name: str) -> str:
    """A tensor's name as it is without torch.compile, around the module or inside it."""
    return name.replace("_orig_mod.", "")


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of any module by name, whatever is wrapped around it; a tied one under each of its names."""
    own = unwrapped(model).named_parameters(remove_duplicate=False)
    return {uncompiled(name): parameter for name, parameter in own}


def tied(model: nn.Module) -> dict[str, str]:
    """The further names of tied parameters: name -> the first name of the same parameter."""
    first: dict[int, str] = {}
    own = parameters(model).items()
    return {name: first[id(p)] for name, p in own if first.setdefault(id(p), name) != name}


def counted(model: nn.Module) -> dict[str, nn.Parameter]:
    """The counted parameters of any module, in its order; a tied one once, under its first name.

    They are what has two dimensions or more and `weight` in one of its own names, in no norm: the weights of linear
    layers, convolutions, embeddings, recurrent layers, attention (packed or not), and of modules of one's own that
    follow suit. What a weight is computed from is none (`computed`).
    """
    own, norms = unwrapped(model).named_parameters(), of_norms(model)
    parts = {name for names in computed(model).values() for name in names}
    called = {id(p) for name, p in parameters(model).items() if "weight" in name.rpartition(".")[2]}
    return {
        uncompiled(name): parameter
        for name, parameter in own
        if id(parameter) in called and parameter.dim() > 1 and id(parameter) not in norms
        if uncompiled(name) not in parts
    }


def computed(model: nn.Module) -> dict[str, list[str]]:
    """The weights that torch computes from other parameters, and these parameters.

    By torch.nn.utils.parametrize, or by the older torch.nn.utils.weight_norm from a direction and a scale. None of them
    is counted: a mask of what a weight is computed from is no mask of the weight.
    """
    found = {}
    for path, module in unwrapped(model).named_modules():
        for weight, parts in getattr(module, "parametrizations", {}).items():
            if isinstance(parts, ParametrizationList) and "weight" in weight:
                inside = f"{path}.".lstrip(".") + f"parametrizations.{weight}"
                found[f"{path}.{weight}".lstrip(".")] = [f"{inside}.{n}" for n, _ in parts.named_parameters()]
    own = parameters(model)
    for name in own:
        if name.endswith("_g") and (direction := f"{name[:-2]}_v") in own and "weight" in name.rpartition(".")[2]:
            found[name[:-2]] = [direction, name]
    return found


def of_norms(model: nn.Module) -> set[int]:
    """The ids of the parameters that belong to a norm: scales and shifts, which are never pruned."""
    return {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}


def everywhere(model: nn.Module, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask with the further names of tied parameters, for weights that a state_dict has under each of them."""
    return {**mask} | {name: mask[first] for name, first in tied(model).items() if first in mask}


def groups(model: nn.Module) -> dict[str, str]:
    """The counted parameters, in the network's order: name -> `conv`, `fc`, `shortcut` or `output`.

    The last of them is the output layer. A shortcut is a 1x1 convolution in a module of one of the names `SHORTCUTS`.
    """
    found = {name: _group(model, name) for name in counted(model)}
    return found | dict.fromkeys(list(found)[-1:], "output")


def _group(model: nn.Module, name: str) -> str:
    path = name.rpartition(".")[0]
    module = model.get_submodule(path)
    if not isinstance(module, _ConvNd):
        return "fc"
    beside = max(module.kernel_size) == 1 and any(part in SHORTCUTS for part in path.split("."))
    return "shortcut" if beside else "conv"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all that a reset has to bring back: parameters and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in stored(model).items()}


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state_dict, by the names that they have without torch.compile."""
    own = unwrapped(model).state_dict().items()  # a module's extra state may be anything
    return {uncompiled(name): tensor for name, tensor in own if isinstance(tensor, Tensor)}


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give a module those of its tensors that `values` has, by their names in `stored`."""
    names = {uncompiled(name): name for name in unwrapped(model).state_dict()}
    unwrapped(model).load_state_dict({names.get(n, n): t for n, t in values.items()}, strict=False)
