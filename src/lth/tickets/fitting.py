"""Whether a ticket fits a model: the same tensors, and the same parameters that are tied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from lth.errors import UsageError
from lth.models import aliases, parameters, stored
from lth.models.values import value_fault
from lth.pruning.masks import Mask

Start = Mapping[str, Tensor]


def check_fits(model: nn.Module, mask: Mask, start: Start) -> None:
    """Raise UsageError naming what does not fit: names, shapes, tensors without values, and ties."""
    state = stored(model)
    wrong = sorted({*state} ^ {*start})
    wrong += [f"{n} {tuple(t.shape)}" for n, t in start.items() if n in state and state[n].shape != t.shape]
    if wrong:
        several = f"{', '.join(wrong[:8])} and {len(wrong) - 8} more" if len(wrong) > 8 else ", ".join(wrong)
        raise UsageError(f"the ticket does not fit this model; they differ in {several}")
    for name, tensor in state.items():
        if fault := value_fault(tensor):
            raise UsageError(f"the ticket cannot be applied: {name} {fault}")
    if fault := next(chain(_joined(model, mask, start), _parted(model, mask, start)), None):
        raise UsageError(f"the ticket does not fit this model: {fault}")


def _joined(model: nn.Module, mask: Mask, start: Start) -> Iterator[str]:
    """Names that are one parameter in the model, but two in the ticket."""
    for names in aliases(model).values():
        first, *further = [name for name in names if name in start]
        pruned = [~mask[name] for name in names if name in mask]
        for name in further if pruned else ():
            lost = torch.stack(pruned).any(0)
            same = all(torch.equal(other, pruned[0]) for other in pruned)
            if not same or not _equal(start[first].masked_fill(lost, 0), start[name].masked_fill(lost, 0)):
                yield (
                    f"{first} and {name} are one parameter in it, but the ticket has weights or a mask for each; "
                    "give each of them a parameter of its own"
                )


def _parted(model: nn.Module, mask: Mask, start: Start) -> Iterator[str]:
    """Names that are two parameters in the model, but were one in the ticket's, which prunes it under one name.

    A ticket has the start of a tied parameter under each name, so that these are equal, and one of them has no mask.
    """
    named = parameters(model)
    masked = {id(named[name]) for name in mask if name in named}
    for name in (name for name, parameter in named.items() if id(parameter) not in masked):
        if other := tied_in(mask, start, name):
            yield (
                f"{other} and {name} were one parameter where it was cut, but are two in it, and the ticket has no "
                f"mask for {name}; tie them first, such as model.{name} = model.{other}"
            )


def tied_in(mask: Mask, start: Start, name: str) -> str:
    """The masked parameter that a further name of a start's is tied to; "" for none."""
    if name in mask or name not in start:
        return ""
    alike = (other for other, layer in mask.items() if layer.shape == start[name].shape)
    return next((n for n in alike if _equal(start[name], start[n]) and _varied(start[n])), "")


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.cpu().nan_to_num(), b.cpu().nan_to_num())


def _varied(start: Tensor) -> bool:
    """Whether it has more than one number beside 0: constants are equal without being tied."""
    numbers = start[start != 0]
    return numbers.numel() > 1 and bool((numbers != numbers[0]).any())
