"""Hold a mask in any training loop: pruned weights stay exactly 0, and no module is wrapped.

A mask is enforced where it could break. Gradients of pruned weights are 0 as soon as they are computed, so that
clipping, accumulation and every optimizer see a network without these weights. After each step of any optimizer the
pruned weights and its state for them are set to 0, so that neither earlier momentum, nor weight decay, nor an optimizer
whose updates mix weights revives a pruned one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import unserializable_hook

from lth.config import nearest, shown
from lth.errors import LthError, UsageError
from lth.models import parameters
from lth.models.values import value_fault


@dataclass
class Held:
    """A parameter and where its pruned weights are."""

    names: list[str]  # more than one where it is tied
    parameter: nn.Parameter
    pruned: Tensor  # bool; follows the parameter to another device

    def where(self, tensor: Tensor) -> Tensor:
        if self.pruned.device != tensor.device:
            self.pruned = self.pruned.to(tensor.device)
        return self.pruned


@contextmanager
def hold(model: nn.Module, mask: Mapping[str, Tensor], *optimizers: Optimizer) -> Iterator[None]:
    """Pruned weights of `model` are exactly 0 from here on, and after every step of any optimizer inside.

    `mask` is a ticket's: parameter name -> bool tensor of its shape. The optimizers' state is cleaned at once where
    they are named, else at their first step. The state_dict's keys, copies, torch.compile and DistributedDataParallel
    are as before. Raises UsageError where the mask does not fit the model, or no optimizer trains any of its
    parameters.
    """
    held = find(model, mask)
    _check_trained(optimizers, held)
    with ExitStack() as stack:
        for one in held:
            if one.parameter.is_floating_point() or one.parameter.is_complex():
                stack.callback(_add_hook(one).remove)
            clear(one.parameter, one)
            gradient = one.parameter.grad
            if gradient is not None and gradient.is_sparse:
                one.parameter.grad = _without(gradient, one)
            elif gradient is not None:
                clear(gradient, one)
        for optimizer in optimizers:
            clean(optimizer, held)
        stack.callback(register_optimizer_step_post_hook(lambda optimizer, _, __: clean(optimizer, held)).remove)
        yield
        for one in held:  # for loops that change weights without an optimizer
            clear(one.parameter, one)
        _check_not_replaced(model, held)


def find(model: nn.Module, mask: Mapping[str, Tensor]) -> list[Held]:
    """The parameters that a mask names. Raises UsageError naming all that does not fit."""
    named = parameters(model)
    held: dict[int, Held] = {}
    wrong = []
    for name, layer in mask.items():
        layer = torch.as_tensor(layer)
        if name not in named:
            wrong.append(f"{name} is no parameter of the model{nearest(name, named)}")
        elif layer.dtype != torch.bool:
            wrong.append(f"{name} is {layer.dtype}, expected torch.bool: write mask.bool()")
        elif fault := value_fault(named[name]):
            wrong.append(f"{name} {fault}")
        elif layer.shape != named[name].shape:
            wrong.append(f"{name} is {tuple(layer.shape)}, but the model's is {tuple(named[name].shape)}")
        elif id(named[name]) in held:  # tied
            one = held[id(named[name])]
            one.names.append(name)
            if not torch.equal(one.pruned, ~layer.to(one.pruned.device)):
                wrong.append(f"{one.names[0]} and {name} are one parameter, but have different masks")
        else:
            held[id(named[name])] = Held([name], named[name], ~layer.to(named[name].device))
    if wrong:
        raise UsageError("the mask does not fit the model: " + "; ".join(wrong))
    return list(held.values())


@torch.no_grad()
def clean(optimizer: Optimizer, held: list[Held]) -> None:
    """Set to 0 the pruned weights that `optimizer` trains, and its state for each of them."""
    by_parameter = {id(one.parameter): one for one in held}
    for group in optimizer.param_groups:
        places, size = list[tuple[int, Held]](), 0
        for parameter in group["params"]:
            if one := by_parameter.get(id(parameter)):
                places.append((size, one))
                clear(parameter, one)
                for tensor in _state_tensors(optimizer, parameter):
                    if tensor.shape == parameter.shape:
                        clear(tensor, one)
            size += parameter.numel()
        for tensor in _state_tensors(optimizer, group["params"][0]) if places else ():
            if tensor.shape == (size,):  # LBFGS: one vector of all numbers of the group
                for first, one in places:
                    part = tensor[first : first + one.parameter.numel()]
                    part.masked_fill_(one.where(part).flatten(), 0)


def _state_tensors(optimizer: Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """The tensors of an optimizer's state for a parameter, also those in lists."""
    for value in optimizer.state.get(parameter, {}).values():
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Tensor))


@torch.no_grad()
def clear(tensor: Tensor, one: Held) -> None:
    """Set a tensor of a parameter's shape to 0 where it is pruned, in place."""
    tensor.masked_fill_(one.where(tensor), 0)


def _add_hook(one: Held) -> Any:
    """A hook that sets gradients of pruned weights to 0, on a frozen parameter too: it may be unfrozen inside."""
    trained = one.parameter.requires_grad
    try:
        return one.parameter.requires_grad_(True).register_hook(
            unserializable_hook(lambda gradient: _without(gradient, one))
        )
    finally:
        one.parameter.requires_grad_(trained)


def _without(gradient: Tensor, one: Held) -> Tensor:
    """The gradient, 0 where its weight is pruned, also where it was infinite."""
    if not gradient.is_sparse:
        return gradient.masked_fill(one.where(gradient), 0)
    # of an embedding: it has only the rows that were used
    gradient = gradient.coalesce()
    values = gradient.values().masked_fill(one.where(gradient)[tuple(gradient.indices())], 0)
    return torch.sparse_coo_tensor(
        gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
    )


def _check_trained(optimizers: tuple[Optimizer, ...], held: list[Held]) -> None:
    trained = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    if optimizers and not any(id(one.parameter) in trained for one in held):
        names = ", ".join(name for one in held[:3] for name in one.names)
        raise UsageError(
            f"the optimizer trains none of the masked parameters ({names}, ...): make it of this model's parameters"
        )


def _check_not_replaced(model: nn.Module, held: list[Held]) -> None:
    """Raise LthError where a parameter was replaced by another: the mask held the old one."""
    named = parameters(model)
    for one in held:
        if gone := [name for name in one.names if named.get(name) is not one.parameter]:
            raise LthError(
                f"{shown(gone[0])} was replaced by another parameter while it was held, which the mask did not hold; "
                "change the module first, then hold it"
            )
