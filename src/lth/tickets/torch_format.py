"""The format of torch.nn.utils.prune: NAME_orig, NAME_mask, and NAME, which is computed before each forward pass.

torch computes a weight when the module that owns it is called. Some weights are read by another module, for example the
output projection of attention, or a tied embedding. `Fresh` computes them in time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lth.errors import UsageError
from lth.models import computed, counted, norm_parameters, parameters, tensors, tied, unwrapped
from lth.pruning import masks
from lth.pruning.masks import Mask


class Fresh:
    """A forward hook that computes all pruned weights inside a module first, and can be copied with it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        for owner, method in _methods(module):
            method(owner, inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fresh:
        """torch cannot copy non-leaf tensors. Hooks are copied before them, so detach them here."""
        for owner, method in _methods(self.module):
            weight = getattr(owner, method._tensor_name)
            memo[id(weight)] = weight.detach().clone()
        return Fresh(copy.deepcopy(self.module, memo))


def check(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Raise UsageError if torch would compute a weight from a parameter before that parameter is masked."""
    for weight, parts in computed(model).items():
        if parts[0] == f"{weight}_v" and {*parts} & {*mask}:  # torch.nn.utils.weight_norm; parametrizations work
            raise UsageError(
                f"{weight} is computed by torch.nn.utils.weight_norm, which to_prune cannot mask: use "
                "torch.nn.utils.parametrizations.weight_norm, or lth.hold"
            )


def mask_in_place(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Prune a model's parameters like torch.nn.utils.prune.custom_from_mask; a tied one in each of its owners."""
    by_parameter = {id(parameters(model)[name]): layer for name, layer in mask.items()}
    owners = [
        (module, key, parameter)
        for module in unwrapped(model).modules()
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in by_parameter
    ]
    for module, key, parameter in owners:
        prune.custom_from_mask(module, key, by_parameter[id(parameter)].to(parameter.device))
    for module in unwrapped(model).modules():
        if any(True for _ in _methods(module)):
            module.register_forward_pre_hook(Fresh(module), prepend=True)  # before weight norm uses it


def mask_and_weights(model: nn.Module) -> tuple[Mask, dict[str, Tensor]]:
    """The mask of a model that was pruned with torch.nn.utils.prune, and its present weights.

    The mask has all counted parameters, those without a torch mask as unpruned, and other pruned parameters with two or
    more dimensions. Raises UsageError if nothing was pruned with torch.nn.utils.prune.
    """
    state = tensors(model)
    pruned = {n[:-5]: state[n].bool() for n in state if n.endswith("_mask") and f"{n[:-5]}_orig" in state}
    if not pruned:
        raise UsageError(
            "the model is not pruned by torch.nn.utils.prune: it has no parameter NAME_orig with NAME_mask"
        )
    named, norms, ties = parameters(model), norm_parameters(model), tied(model)
    weights = {
        name
        for name, parameter in ((f"{name}_orig", named[f"{name}_orig"]) for name in pruned)
        if parameter.dim() > 1 and id(parameter) not in norms and name not in ties
    }
    names = [name for name in named if name in weights or name in counted(model)]
    plain_name = {name: name.removesuffix("_orig") if name.removesuffix("_orig") in pruned else name for name in names}
    mask = {
        plain_name[name]: pruned.get(plain_name[name], torch.ones(named[name].shape, dtype=torch.bool))
        for name in names
    }
    renamed = {f"{name}_orig": name for name in pruned}
    start = {renamed.get(n, n): t for n, t in state.items() if n.removesuffix("_mask") not in pruned}
    return mask, masks.apply(mask | pruned, start)


def _methods(module: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """The modules inside, each with the torch pruning methods among its hooks."""
    for owner in module.modules():
        for hook in owner._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield owner, hook
