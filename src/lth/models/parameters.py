"""The parameters of any network: which are counted and pruned, which are tied, and to which group a layer belongs.

Names are those of the module without torch.compile, DataParallel or DistributedDataParallel around it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.parametrize import ParametrizationList

from lth.errors import UsageError

SHORTCUTS = ("shortcut", "downsample")  # usual names of the 1x1 convolutions beside a residual block
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their scales can be matrices, but are never weights


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile, whose names a ticket uses.

    Raises UsageError for anything but a module.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected one torch.nn.Module, not {type(model).__name__}")
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
    """The parameters of any module by name, without its wrappers; a tied one under each of its names."""
    named = unwrapped(model).named_parameters(remove_duplicate=False)
    return {uncompiled(name): parameter for name, parameter in named}


def tied(model: nn.Module) -> dict[str, str]:
    """The further names of tied parameters: name -> the first name of the same parameter."""
    first: dict[int, str] = {}
    named = parameters(model).items()
    return {name: first[id(p)] for name, p in named if first.setdefault(id(p), name) != name}


def counted(model: nn.Module) -> dict[str, nn.Parameter]:
    """The counted parameters of any module, in its order; a tied one once, under its first name.

    A parameter is counted if it has two dimensions or more, one of its names contains `weight`, and it belongs to no
    norm: the weights of linear layers, convolutions, embeddings, recurrent layers, attention (packed or not), and of
    custom modules that follow the convention. The parameters that a weight is computed from are not counted
    (`computed`).
    """
    norms = norm_parameters(model)
    parts = {name for names in computed(model).values() for name in names}
    weights = {id(p) for name, p in parameters(model).items() if "weight" in name.rpartition(".")[2]}
    return {
        uncompiled(name): parameter
        for name, parameter in unwrapped(model).named_parameters()
        if id(parameter) in weights and parameter.dim() > 1 and id(parameter) not in norms
        if uncompiled(name) not in parts
    }


def computed(model: nn.Module) -> dict[str, list[str]]:
    """The weights that torch computes from other parameters: name -> the names of these parameters.

    torch.nn.utils.parametrize does so, and the older torch.nn.utils.weight_norm from a direction and a scale. None of
    these parameters is counted, because a mask of them is not a mask of the weight.
    """
    return _parametrized(model) | _weight_normed(parameters(model))


def _parametrized(model: nn.Module) -> dict[str, list[str]]:
    sources = {}
    for path, module in unwrapped(model).named_modules():
        prefix = f"{path}." if path else ""
        for weight, parts in getattr(module, "parametrizations", {}).items():
            if isinstance(parts, ParametrizationList) and "weight" in weight:
                inside = f"{prefix}parametrizations.{weight}"
                sources[prefix + weight] = [f"{inside}.{name}" for name, _ in parts.named_parameters()]
    return sources


def _weight_normed(named: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    scales = [name for name in named if name.endswith("_g") and "weight" in name.rpartition(".")[2]]
    return {name[:-2]: [f"{name[:-2]}_v", name] for name in scales if f"{name[:-2]}_v" in named}


def norm_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters that belong to a norm: scales and shifts, which are never pruned."""
    return {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}


def everywhere(model: nn.Module, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask with the further names of tied parameters, for weights that a state_dict has under each of them."""
    return {**mask} | {name: mask[first] for name, first in tied(model).items() if first in mask}


def groups(model: nn.Module) -> dict[str, str]:
    """The counted parameters, in the network's order: name -> `conv`, `fc`, `shortcut` or `output`.

    The last of them is the output layer. A shortcut is a 1x1 convolution in a module of one of the names `SHORTCUTS`.
    """
    by_layer = {name: _group(model, name) for name in counted(model)}
    return by_layer | dict.fromkeys(list(by_layer)[-1:], "output")


def _group(model: nn.Module, name: str) -> str:
    path = name.rpartition(".")[0]
    module = model.get_submodule(path)
    if not isinstance(module, _ConvNd):
        return "fc"
    beside = max(module.kernel_size) == 1 and any(part in SHORTCUTS for part in path.split("."))
    return "shortcut" if beside else "conv"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers that a reset restores, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in stored(model).items()}


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state_dict, by the names that they have without torch.compile."""
    state = unwrapped(model).state_dict().items()  # the extra state of a module may be of any type
    return {uncompiled(name): tensor for name, tensor in state if isinstance(tensor, Tensor)}


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy `values` into the module, by their names in `stored`; tensors that `values` lacks stay as they are."""
    names = {uncompiled(name): name for name in unwrapped(model).state_dict()}
    unwrapped(model).load_state_dict({names.get(n, n): t for n, t in values.items()}, strict=False)
