"""Properties of a module's tensors that prevent pruning: missing, partial or shared values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils.prune import BasePruningMethod
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lth.errors import UsageError
from lth.models.parameters import parameters, stored, uncompiled, unwrapped
from lth.storage.tensors import storage_fault

WHOLE = (
    "apply the ticket to the module before it is sharded, or use DistributedDataParallel: lth prunes and holds whole "
    "weights"
)


def check_values(model: nn.Module) -> None:
    """Raise UsageError if a tensor has no shape, no values or only a part of them, or cannot be stored.

    It names the first tensor of each kind.
    """
    if faults := [*_module_faults(model), *_first_of_each_kind({**parameters(model), **stored(model)})]:
        raise UsageError("\n".join(faults))


def check_prunable(model: nn.Module) -> None:
    """`check_values`, and raise UsageError for modules that `lth.imp` cannot prune."""
    check_values(model)
    if faults := [*_scripted(model), *_pruned_by_torch(model), *_overlapping(model)]:
        raise UsageError("\n".join(faults))


def _module_faults(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):  # slow to import
            yield f"{path or 'the model'} is in FullyShardedDataParallel, which holds parts of weights: {WHOLE}"
            return


def _first_of_each_kind(named: dict[str, Tensor]) -> list[str]:
    faults: dict[str, str] = {}
    for name, tensor in named.items():
        if fault := value_fault(tensor):
            faults.setdefault(fault, f"{name} {fault}")
    return list(faults.values())


def value_fault(tensor: Tensor) -> str:
    """Describe what is wrong with a tensor's values, to be put after its name; "" if nothing is."""
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
        return "has no shape yet: call the model on a batch first"
    if tensor.is_meta:
        return "has no values: it is on the meta device; model.to_empty(...) and initialise it"
    if type(tensor).__name__ == "DTensor":
        return f"is sharded (by fully_shard or tensor parallelism): {WHOLE}"
    if is_traceable_wrapper_subclass(tensor):
        return f"is a {type(tensor).__name__}, which stores values in another form: prune before quantization"
    return storage_fault(tensor)


def _scripted(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield (
                f"{path or 'the model'} is scripted or traced by torch.jit, and its modules have lost their types: "
                "find tickets of the module as it was before; ticket.apply takes a scripted one"
            )
            return


def _pruned_by_torch(model: nn.Module) -> Iterator[str]:
    """Refuse weights that torch.nn.utils.prune masks in the forward pass: their zeros would count as surviving."""
    for path, module in unwrapped(model).named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                key, prefix = hook._tensor_name, uncompiled(f"{path}.") if path else ""
                yield (
                    f"{prefix}{key} is pruned by torch.nn.utils.prune already, and what it pruned would count as "
                    f'surviving: prune.remove(module, "{key}") makes it a plain weight; lth.Ticket.from_prune(model) '
                    "is its ticket"
                )
                return


def _overlapping(model: nn.Module) -> Iterator[str]:
    """Two parameters that share memory: each would be pruned separately, but both would change."""
    places = []
    for name, p in unwrapped(model).named_parameters():  # a tied parameter once
        if p.numel() and p.device.type != "meta":
            last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
            begin = p.data_ptr()
            places.append((begin, begin + (last + 1) * p.element_size(), uncompiled(name)))
    for (_, end, first), (begin, _, second) in itertools.pairwise(sorted(places)):
        if begin < end:
            yield (
                f"{first} and {second} are two parameters that share memory, and would be pruned twice: make them one "
                "parameter (module.weight = other.weight), or two (clone)"
            )
            return
