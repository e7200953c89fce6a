"""The parameters and buffers of a network by name, and which of them are tied.

Names are those of the module without torch.compile, DataParallel or DistributedDataParallel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from lth.errors import UsageError


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile, whose names a ticket uses.

    Raises UsageError if the argument is not a module.
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
    """A tensor's name without the prefixes of torch.compile."""
    return name.replace("_orig_mod.", "")


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module by name, without wrappers; a tied one under each of its names."""
    named = unwrapped(model).named_parameters(remove_duplicate=False)
    return {uncompiled(name): parameter for name, parameter in named}


def tied(model: nn.Module) -> dict[str, str]:
    """The other names of tied parameters: name -> the first name of the same parameter."""
    first: dict[int, str] = {}
    named = parameters(model).items()
    return {name: first[id(p)] for name, p in named if first.setdefault(id(p), name) != name}


def everywhere(model: nn.Module, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask with an entry for every name of a tied parameter, as in a state_dict."""
    return {**mask} | {name: mask[first] for name, first in tied(model).items() if first in mask}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers that a reset restores, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in stored(model).items()}


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state_dict, by their names without torch.compile."""
    state = unwrapped(model).state_dict().items()  # the extra state of a module may have any type
    return {uncompiled(name): tensor for name, tensor in state if isinstance(tensor, Tensor)}


def not_stored(model: nn.Module) -> list[str]:
    """One line per entry of a module's state_dict that no ticket can hold, such as packed int8 weights."""
    state = unwrapped(model).state_dict().items()
    return [
        f"not in the ticket: {uncompiled(name)} is a {type(value).__name__}, not a tensor"
        for name, value in state
        if not isinstance(value, Tensor | torch.dtype)
    ]


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy `values` into the module, by their names in `stored`; tensors that are not in `values` stay unchanged."""
    names = {uncompiled(name): name for name in unwrapped(model).state_dict()}
    unwrapped(model).load_state_dict({names.get(n, n): t for n, t in values.items()}, strict=False)
