"""Shrink a pruned module: remove units and inputs whose removal changes no output.

A unit is dead if its inputs are constant or its output is not used; a unit that only dead units feed is dead too. The
output of a dead unit is a constant that follows from its bias; it is added to the biases of the next layer. The
remaining module computes the same outputs, in evaluation mode, with smaller dense layers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from lth.errors import UsageError
from lth.randomness import global_draws
from lth.tickets.compact.graph import clones
from lth.tickets.compact.loading import load_compact
from lth.tickets.compact.removal import remove, smaller_state
from lth.tickets.compact.tracing import trace
from lth.tickets.speed import difference

__all__ = ["compact", "load_compact"]


def compact(model: nn.Module, *example: Tensor) -> nn.Module:
    """Return a smaller dense copy of a pruned module with the same outputs, in evaluation mode. `example` are its
    inputs.

    Modules keep their names and types; a Flatten of the inputs becomes one that selects the used features. Channels
    that cannot be followed through the module are not removed. Raises UsageError if torch.fx cannot trace the module,
    or if torch.nn.utils.prune still holds masks of it. Raises LthError if the copy's outputs for `example` differ by
    more than rounding; varying inputs test this better than zeros.
    """
    device = next((x.device for x in example), torch.device("cpu"))
    # inference tensors do not record whether they were written to
    with torch.inference_mode(False), torch.no_grad(), global_draws(device) as seed:
        model = _copied(model).eval()
        seed(0)
        expected = _tensors(model(*clones(example)))
        traced = trace(model, example)
        remove(traced)
        small = load_compact(model, smaller_state(model, traced))
        seed(0)
        difference(expected, _tensors(small(*clones(example))))
    return small


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy that also works for modules with a non-leaf tensor as an attribute, such as weight norm's."""
    _refuse_pruning_hooks(model)
    computed = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in computed if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot be made compact: Python cannot copy it ({str(error).splitlines()[0]})"
        ) from error


def _refuse_pruning_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                raise UsageError(
                    f"{name or type(model).__name__} is pruned by torch.nn.utils.prune: "
                    f'to make it permanent, call torch.nn.utils.prune.remove(module, "{hook._tensor_name}") first'
                )


def _tensors(output: Any) -> list[Tensor]:
    """All tensors of a module's output, in order."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
