"""The format of torch.nn.utils.prune: NAME_orig, NAME_mask, and NAME computed from them before each forward.

torch computes a weight when the module that owns it is called. Some weights are read by another module: the output
projection of attention, or an embedding that is the output layer too. `Fresh` computes them in time.
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
    """A hook of a module: all pruned weights in it are computed before its forward, and can be copied with it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        for owner, method in _methods(module):
            method(owner, inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fresh:
        """torch copies no tensor that was computed with gradients; hooks are copied before them, so put them in."""
        for owner, method in _methods(self.module):
            weight = getattr(owner, method._tensor_name)
            memo[id(weight)] = weight.detach().clone()
        return Fresh(copy.deepcopy(self.module, memo))


def check(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Raise UsageError where torch would compute a weight from a parameter before that is masked."""
    for weight, parts in computed(model).items():
        if parts[0] == f"{weight}_v" and {*parts} & {*mask}:  # by torch.nn.utils.weight_norm; parametrizations fit
            raise UsageError(
                f"{weight} is computed by torch.nn.utils.weight_norm, which to_prune cannot mask: use "
                "torch.nn.utils.parametrizations.weight_norm, or lth.hold"
            )


def mask_in_place(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Prune a model's parameters as torch.nn.utils.prune.custom_from_mask does; a tied one in each of its owners."""
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
            module.register_forward_pre_hook(Fresh(module), prepend=True)  # before weight norm computes from them


def mask_and_weights(model: nn.Module) -> tuple[Mask, dict[str, Tensor]]:
    """The mask of a model that torch.nn.utils.prune has pruned, and its present weights under it.

    The mask names the counted parameters, those without a mask of torch's as unpruned, and what else of two dimensions
    or more is pruned. Raises UsageError where nothing is pruned by torch.nn.utils.prune.
    """
    state = tensors(model)
    pruned = {n[:-5]: state[n].bool() for n in state if n.endswith("_mask") and f"{n[:-5]}_orig" in state}
    if not pruned:
        raise UsageError("the model is not pruned by torch.nn.utils.prune: no parameter NAME_orig has its NAME_mask")
    named, norms, ties = parameters(model), norm_parameters(model), tied(model)
    weights = {
        name
        for name, parameter in ((f"{name}_orig", named[f"{name}_orig"]) for name in pruned)
        if parameter.dim() > 1 and id(parameter) not in norms and name not in ties
    }
    names = [name for name in named if name in weights or name in counted(model)]
    own = {name: name.removesuffix("_orig") if name.removesuffix("_orig") in pruned else name for name in names}
    mask = {own[name]: pruned.get(own[name], torch.ones(named[name].shape, dtype=torch.bool)) for name in names}
    renamed = {f"{name}_orig": name for name in pruned}
    start = {renamed.get(n, n): t for n, t in state.items() if n.removesuffix("_mask") not in pruned}
    return mask, masks.apply(mask | pruned, start)


def _methods(module: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """The modules inside, each with the pruning methods of torch that are its hooks."""
    for owner in module.modules():
        for hook in owner._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                yield owner, hook
