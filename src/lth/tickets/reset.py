"""Reset a module completely between two levels, and check that its optimizer was reset too."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from lth.errors import UsageError
from lth.models import parameters, unwrapped

Buffers = list[tuple[nn.Module, dict[str, Tensor | None]]]


def resetter(model: nn.Module) -> Callable[[], None]:
    """Return a function that restores the present state of `model` and drops its gradients.

    The state consists of weights, biases, all buffers (including those outside the state_dict), extra state, modes,
    dtypes, and which parameters require gradients.
    """
    model = unwrapped(model)
    state = {name: _copy(value) for name, value in model.state_dict().items()}
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    buffers = [
        (module, {n: b if b is None else b.clone() for n, b in module._buffers.items()}) for module in model.modules()
    ]
    modes = [(module, module.training) for module in model.modules()]
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def reset() -> None:
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(dtypes.get(name, parameter.dtype))
        _restore_buffers(buffers)
        model.load_state_dict(state)
        for module, mode in modes:
            module.training = mode
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained.get(name, parameter.requires_grad))
            parameter.grad = None

    return reset


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _restore_buffers(buffers: Buffers) -> None:
    for module, before in buffers:
        for name in {*module._buffers} - {*before}:
            del module._buffers[name]
        for name, buffer in before.items():
            module._buffers[name] = _restored(module._buffers.get(name), buffer)


def _restored(now: Tensor | None, before: Tensor | None) -> Tensor | None:
    """A buffer with its former content; the same tensor if possible, because others may refer to it."""
    if now is None or before is None or (now.shape, now.dtype) != (before.shape, before.dtype) or 0 in now.stride():
        return None if before is None else before.clone()
    return now.copy_(before)


@dataclass(frozen=True)
class EarlierOptimizers:
    """The optimizers of earlier levels; those of level 0 are numbered in the order of their first steps."""

    seen: weakref.WeakSet[Optimizer] = field(default_factory=weakref.WeakSet)
    rates: dict[int, list[float]] = field(default_factory=dict)  # before the first step of level 0
    has_state: dict[int, bool] = field(default_factory=dict)  # before that step; Adagrad is created with a state


@contextmanager
def fresh_optimizers(model: nn.Module, level: int, earlier: EarlierOptimizers) -> Iterator[None]:
    """Refuse an optimizer that carries state, or its last learning rate, over from the previous level."""
    trainable = {id(parameter) for parameter in parameters(model).values()}
    stepped: list[Optimizer] = []

    def check(optimizer: Optimizer, *_: Any) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"] if id(p) in trainable]
        if trained and not any(optimizer is other for other in stepped):
            stepped.append(optimizer)
            _check_first_step(optimizer, trained, level, len(stepped), earlier)

    handle = register_optimizer_step_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
        earlier.seen.update(stepped)


def _check_first_step(
    optimizer: Optimizer, trained: list[Tensor], level: int, number: int, earlier: EarlierOptimizers
) -> None:
    """Record the optimizer at level 0; at later levels raise UsageError if it differs from a new one."""
    rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    has_state = any(optimizer.state.get(parameter) for parameter in trained)
    if level == 0:
        earlier.rates[number], earlier.has_state[number] = rates, has_state
        return
    first = earlier.rates.get(number, rates)
    if has_state and (optimizer in earlier.seen or not earlier.has_state.get(number)):
        fault = f"the optimizer carries its state from level {level - 1} to level {level}"
    elif rates != first:
        now, then = (", ".join(f"{rate:g}" for rate in several) for several in (rates, first))
        fault = f"level {level} begins with learning rate {now}, but level 0 with {then}"
    else:
        return
    raise UsageError(f"{fault}: make the optimizer and its schedule inside train(model), so that both are reset too")
