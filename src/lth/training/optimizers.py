"""The optimizers that a recipe can name, each with everything that depends on the choice.

config/registry.py lists them with the keys of [recipe] that each accepts. The compiled engines use the same
names (native/shared/optimizer_names.hpp) and torch's formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.adam import adam as torch_adam
from torch.optim.adamw import adamw as torch_adamw
from torch.optim.sgd import sgd as torch_sgd

from lth.config import Recipe
from lth.config.registry import OPTIMIZERS
from lth.errors import UsageError

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's parameters, torch's defaults


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as the engines use it.

    moments: torch's names of its tensors per parameter, in the order of the compiled kernels.
    make: (recipe, parameters, fused) -> a torch optimizer.
    step: (recipe, lr, count, values, gradients, moments) does update number `count`, from 1, in place; `moments` are
    those of each parameter.
    compiled: whether the compiled engines support it, under the name of its entry.
    """

    moments: tuple[str, ...]
    make: Callable[[Recipe, list[nn.Parameter], bool], torch.optim.Optimizer]
    step: Callable[[Recipe, float, int, list[Tensor], list[Tensor], Sequence[list[Tensor]]], None]
    compiled: bool = False


@cache
def optimizer_named(name: str) -> Optimizer:
    """The optimizer with this name. Raises UsageError if it is not registered."""
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}; give one of: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name].load()


def optimizer_for(recipe: Recipe, parameters: list[nn.Parameter], fused: bool = True) -> torch.optim.Optimizer:
    """A new optimizer for one level. A fused one does not support sparse gradients."""
    return optimizer_named(recipe.optimizer).make(recipe, parameters, fused)


def _make_sgd(recipe: Recipe, parameters: list[nn.Parameter], fused: bool, nesterov: bool = False) -> SGD:
    return SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum or 0.0, weight_decay=recipe.weight_decay, fused=fused,
        nesterov=nesterov,
    )  # fmt: skip


def _make_adam(recipe: Recipe, parameters: list[nn.Parameter], fused: bool) -> Adam:
    return Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def _make_adamw(recipe: Recipe, parameters: list[nn.Parameter], fused: bool) -> AdamW:
    return AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def _step_sgd(
    recipe: Recipe, lr: float, count: int, values: list[Tensor], gradients: list[Tensor],
    moments: Sequence[list[Tensor]], nesterov: bool = False,
) -> None:  # fmt: skip
    buffers: list[Tensor | None] = [of[0] if of else None for of in moments]
    torch_sgd(
        values, gradients, buffers, has_sparse_grad=False, fused=True, weight_decay=recipe.weight_decay,
        momentum=recipe.momentum or 0.0, lr=lr, dampening=0.0, nesterov=nesterov, maximize=False,
    )  # fmt: skip


def _step_adam(
    recipe: Recipe, lr: float, count: int, values: list[Tensor], gradients: list[Tensor],
    moments: Sequence[list[Tensor]], functional: Callable[..., None] = torch_adam,
) -> None:  # fmt: skip
    done = [torch.full((), count - 1.0, device=value.device) for value in values]
    functional(
        values, gradients, [of[0] for of in moments], [of[1] for of in moments], [], done, fused=True, amsgrad=False,
        beta1=BETA1, beta2=BETA2, lr=lr, weight_decay=recipe.weight_decay, eps=EPSILON, maximize=False,
    )  # fmt: skip


sgd = Optimizer((), _make_sgd, _step_sgd, compiled=True)
momentum = Optimizer(("momentum_buffer",), _make_sgd, _step_sgd, compiled=True)
nesterov = Optimizer(
    ("momentum_buffer",), partial(_make_sgd, nesterov=True), partial(_step_sgd, nesterov=True), compiled=True
)
adam = Optimizer(("exp_avg", "exp_avg_sq"), _make_adam, _step_adam, compiled=True)
adamw = Optimizer(("exp_avg", "exp_avg_sq"), _make_adamw, partial(_step_adam, functional=torch_adamw), compiled=True)
