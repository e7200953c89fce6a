"""Hold a mask in any training loop: pruned weights stay exactly 0, and no module is wrapped.

Gradients of pruned weights are set to 0 when they are computed, so that clipping, accumulation and every optimizer see
a network without these weights. After each step of any optimizer, the pruned weights and their optimizer state are set
to 0, so that neither earlier momentum, nor weight decay, nor an optimizer that mixes weights revives a pruned one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ContextDecorator, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import unserializable_hook

from lth.config import nearest, shown
from lth.errors import LthError, UsageError
from lth.models import parameters
from lth.models.values import value_fault
from lth.tickets.misfit import format_misfit


@dataclass
class Held:
    """A parameter, its names, and the places of its pruned weights."""

    names: list[str]  # more than one where it is tied
    parameter: nn.Parameter
    pruned: Tensor  # bool; follows the parameter to another device

    def where(self, tensor: Tensor) -> Tensor:
        if self.pruned.device != tensor.device:
            self.pruned = self.pruned.to(tensor.device)
        return self.pruned


@dataclass(eq=False)
class Hold(ContextDecorator):
    """A mask that is held on a model inside `with`. It can be entered again, also inside itself."""

    model: nn.Module
    mask: Mapping[str, Tensor]
    optimizers: tuple[Optimizer, ...] = ()
    ended: Callable[[], bool] = lambda: False  # for trainers that do not report that they were interrupted
    entered: list[tuple[list[Held], ExitStack]] = field(default_factory=list)

    def __enter__(self) -> None:
        held = find(self.model, self.mask)
        _check_trained(self.optimizers, held)
        with ExitStack() as stack:  # removes the hooks where one of them cannot be registered
            for one in held:
                if one.parameter.is_floating_point() or one.parameter.is_complex():
                    stack.callback(_add_hook(one, self._gradient).remove)
                _clear_gradient(one)
            for module, key, one in _owners(self.model, held):
                hook = AfterLoad(partial(self._loaded, key=key, one=one))
                stack.callback(module.register_load_state_dict_post_hook(hook).remove)
            stack.callback(register_optimizer_step_post_hook(partial(self._stepped, held)).remove)
            clear_all(held)
            for optimizer in self.optimizers:
                clean(optimizer, held)
            self.entered.append((held, stack.pop_all()))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        held, stack = self.entered.pop()
        stack.close()
        clear_all(held)  # weights that were changed without an optimizer, or by a step that was interrupted
        if kind is None:
            _check_not_replaced(self.model, held)

    def clear(self) -> None:
        """Set the pruned weights to 0 now: after they were changed in place, without an optimizer."""
        for held, _ in self.entered:
            clear_all(held)

    def release(self) -> None:
        """Remove all hooks and leave the weights as they are."""
        while self.entered:
            self.entered.pop()[1].close()

    def _gradient(self, gradient: Tensor, one: Held) -> Tensor:
        if self.ended():
            self.release()  # here alone: torch forbids it while it runs the other hooks
            return gradient
        return _without(gradient, one)

    def _stepped(self, held: list[Held], optimizer: Optimizer, *_: Any) -> None:
        if not self.ended():
            clean(optimizer, held)

    def _loaded(self, module: nn.Module, key: str, one: Held) -> None:
        if self.ended():
            return
        clear(one.parameter, one)
        if getattr(module, key) is not one.parameter:  # load_state_dict(assign=True)
            setattr(module, key, one.parameter)
            raise UsageError(_replaced(one.names[0], "load without assign=True, or load first and hold then"))


def hold(model: nn.Module, mask: Mapping[str, Tensor], *optimizers: Optimizer) -> Hold:
    """Keep pruned weights of `model` at exactly 0 inside `with lth.hold(...)`.

    `mask` is the mask of a ticket: parameter name -> bool tensor of the parameter's shape. Pruned weights are set to 0
    at the beginning, after every step of any optimizer, after every load_state_dict, and at the end, also after an
    exception. The state of the given optimizers is masked at once, that of others at their first step. The keys of the
    state_dict, copies, torch.compile and DistributedDataParallel are not affected, and all hooks are removed at the
    end. The context can be nested and reused.

    Raises UsageError if the mask does not fit the model, no optimizer trains any of its parameters, or weights are
    loaded with assign=True; LthError at the end if a parameter was replaced by another.
    """
    return Hold(model, mask, optimizers)


@dataclass(frozen=True)
class AfterLoad:
    """A hook after load_state_dict. A copy of its module gets a function that does nothing instead."""

    clear: Callable[[nn.Module], None]

    def __call__(self, module: nn.Module, keys: Any) -> None:
        self.clear(module)

    def __reduce__(self) -> tuple[Any, ...]:  # of the standard library: a saved module is loaded without lth
        return getattr, (nullcontext(), "__exit__")


def _owners(model: nn.Module, held: list[Held]) -> Iterator[tuple[nn.Module, str, Held]]:
    """The modules that own a held parameter, and its name there; several modules if it is tied."""
    by_parameter = {id(one.parameter): one for one in held}
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if one := by_parameter.get(id(parameter)):
                yield module, key, one


def find(model: nn.Module, mask: Mapping[str, Tensor]) -> list[Held]:
    """The parameters that a mask names. Raises UsageError naming everything that does not fit."""
    named = parameters(model)
    held: dict[int, Held] = {}
    wrong = []
    for name, layer in mask.items():
        layer = torch.as_tensor(layer)
        if name not in named:
            wrong.append(f"{name} is not a parameter of the model{nearest(name, named)}")
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
        raise UsageError(format_misfit("the mask does not fit the model:", wrong, mask, named))
    return list(held.values())


@torch.no_grad()
def clean(optimizer: Optimizer, held: list[Held]) -> None:
    """Set the pruned weights that `optimizer` trains, and their optimizer state, to 0."""
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
    """The tensors of an optimizer's state for a parameter, including those in lists."""
    for value in optimizer.state.get(parameter, {}).values():
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Tensor))


@torch.no_grad()
def clear(tensor: Tensor, one: Held) -> None:
    """Set pruned weights to 0 now, after they were changed in place without an optimizer."""
    if tensor.is_sparse:  # the momentum of an embedding
        tensor.copy_(_without(tensor, one))
    else:
        tensor.masked_fill_(one.where(tensor), 0)


def clear_all(held: Iterable[Held]) -> None:
    for one in held:
        clear(one.parameter, one)


def _clear_gradient(one: Held) -> None:
    gradient = one.parameter.grad
    if gradient is not None and gradient.is_sparse:
        one.parameter.grad = _without(gradient, one)
    elif gradient is not None:
        clear(gradient, one)


def _add_hook(one: Held, hook: Callable[[Tensor, Held], Tensor]) -> Any:
    """Add a hook that masks gradients, also to a frozen parameter, which may be unfrozen later."""
    trained = one.parameter.requires_grad
    try:
        return one.parameter.requires_grad_(True).register_hook(
            unserializable_hook(lambda gradient: hook(gradient, one))
        )
    finally:
        one.parameter.requires_grad_(trained)


def _without(gradient: Tensor, one: Held) -> Tensor:
    """The gradient with 0 at pruned weights, even where it was infinite."""
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
    """Raise LthError if a parameter was replaced by another, which the mask did not hold."""
    named = parameters(model)
    for one in held:
        if gone := [name for name in one.names if named.get(name) is not one.parameter]:
            raise LthError(_replaced(gone[0], "change the module first, then hold it"))


def _replaced(name: str, cure: str) -> str:
    return f"{shown(name)} was replaced by another parameter while it was held, which the mask did not hold; {cure}"
