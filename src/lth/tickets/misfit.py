"""Check that a ticket or mask fits a model (names, shapes, ties), and describe what does not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from lth.errors import UsageError
from lth.models import aliases, parameters, stored
from lth.models.values import value_fault
from lth.pruning.masks import Mask

Start = Mapping[str, Tensor]
LONGEST = 200  # maximum number of characters of the listed faults


def format_misfit(
    beginning: str, faults: Sequence[str], ticket_names: Collection[str], model_names: Collection[str]
) -> str:
    """One line with as many faults as fit. `given` are the names in the ticket, `own` those in the model."""
    listed = [faults[0] if len(faults[0]) <= LONGEST else f"{faults[0][:LONGEST]}..."]
    for fault in faults[1:]:
        if len("; ".join([*listed, fault])) > LONGEST:
            break
        listed.append(fault)
    more = f"; and {len(faults) - len(listed)} more" if len(faults) > len(listed) else ""
    return f"{beginning} {'; '.join(listed)}{more}{_format_prefix(ticket_names, model_names)}"


def _format_prefix(ticket_names: Collection[str], model_names: Collection[str]) -> str:
    """A hint which part of the model the names belong to, if a prefix makes them fit; else empty."""
    if path := prefix(model_names, ticket_names):
        return f". Its names are those of the model's {path}: give model.{path}"
    if (path := prefix(ticket_names, model_names)) and all(name.startswith(f"{path}.") for name in ticket_names):
        return f". Its names begin with {path}, as those of a module that holds this one as {path}: give that one"
    return ""


def prefix(longer: Collection[str], shorter: Collection[str]) -> str:
    """The path that, put before each name of `shorter`, makes it a name of `longer`; empty if there is none."""
    first = min(shorter, key=len, default="")
    paths = {name.removesuffix(f".{first}") for name in longer if first and name.endswith(f".{first}")}
    fitting = (path for path in sorted(paths, key=len) if all(f"{path}.{name}" in longer for name in shorter))
    return next(fitting, "")


def check_fits(model: nn.Module, mask: Mask, start: Start) -> None:
    """Raise UsageError naming everything that does not fit: names, shapes, tensors without values, ties."""
    state = stored(model)
    wrong = sorted({*state} ^ {*start})
    wrong += [f"{n} {tuple(t.shape)}" for n, t in start.items() if n in state and state[n].shape != t.shape]
    if wrong:
        raise UsageError(format_misfit("the ticket does not fit this model; they differ in", wrong, start, state))
    for name, tensor in state.items():
        if fault := value_fault(tensor):
            raise UsageError(f"the ticket cannot be applied: {name} {fault}")
    if fault := next(chain(_joined(model, mask, start), _parted(model, mask, start)), None):
        raise UsageError(f"the ticket does not fit this model: {fault}")


def _joined(model: nn.Module, mask: Mask, start: Start) -> Iterator[str]:
    """Names that are one parameter in the model but two in the ticket."""
    for names in aliases(model).values():
        first, *further = [name for name in names if name in start]
        pruned = [~mask[name] for name in names if name in mask]
        for name in further if pruned else ():
            lost = torch.stack(pruned).any(0)
            same = all(torch.equal(other, pruned[0]) for other in pruned)
            if not same or not _equal(start[first].masked_fill(lost, 0), start[name].masked_fill(lost, 0)):
                yield (
                    f"{first} and {name} are one parameter in it, but the ticket has weights or a mask for each; "
                    "make them separate parameters"
                )


def _parted(model: nn.Module, mask: Mask, start: Start) -> Iterator[str]:
    """Names that are two parameters in the model but one in the ticket, which prunes it under one name.

    A ticket has the start of a tied parameter under each of its names: the tensors are equal, and only one has a mask.
    """
    named = parameters(model)
    masked = {id(named[name]) for name in mask if name in named}
    for name in (name for name, parameter in named.items() if id(parameter) not in masked):
        if other := tied_in(mask, start, name):
            yield (
                f"{other} and {name} were one parameter in the ticket's model but are two here, and the ticket has no "
                f"mask for {name}; tie them first, such as model.{name} = model.{other}"
            )


def tied_in(mask: Mask, start: Start, name: str) -> str:
    """The masked parameter to which another name of a start is tied; "" if it is not tied."""
    if name in mask or name not in start:
        return ""
    alike = (other for other, layer in mask.items() if layer.shape == start[name].shape)
    return next((n for n in alike if _equal(start[name], start[n]) and _varied(start[n])), "")


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.cpu().nan_to_num(), b.cpu().nan_to_num())


def _varied(start: Tensor) -> bool:
    """Return whether a tensor has more than one nonzero value: constants are equal without being tied."""
    numbers = start[start != 0]
    return numbers.numel() > 1 and bool((numbers != numbers[0]).any())
