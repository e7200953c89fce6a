"""Load a compact state_dict into a module whose layers are cut to its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lth.errors import UsageError
from lth.tickets.compact.channels import LAYERS


class FlattenSelect(nn.Module):
    """Flatten the input and select the features at `places`."""

    places: Tensor

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", places)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self.places)


def load_compact(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Cut the layers of `model` to the shapes of a compact state_dict and load its values, in evaluation mode.

    Raises UsageError if the state_dict belongs to another module.
    """
    for name, module in list(model.named_modules()):
        values = {key.removeprefix(f"{name}."): t for key, t in state.items() if key.rpartition(".")[0] == name}
        if isinstance(module, nn.Flatten) and "places" in values:
            path, _, last = name.rpartition(".")
            places = torch.zeros_like(values["places"], device=next(model.parameters(), values["places"]).device)
            setattr(model.get_submodule(path), last, FlattenSelect(places))
        elif isinstance(module, (*LAYERS, _BatchNorm)):
            _resize(module, values)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UsageError(f"the state_dict does not fit {type(model).__name__}: {error}") from None
    return model.eval()


def _resize(module: Any, values: Mapping[str, Tensor]) -> None:
    """Give a layer or batch norm tensors of the shapes of `values`, and update its size attributes."""
    for key, tensor in values.items():
        before = getattr(module, key)
        if not isinstance(before, Tensor) or before.shape != tensor.shape:
            kind = nn.Parameter if isinstance(before, nn.Parameter) or before is None else torch.Tensor.detach
            device = (module.weight if before is None else before).device
            setattr(module, key, kind(torch.empty_like(tensor, device=device)))
    for key, size in _sizes(module).items():
        setattr(module, key, size)


def _sizes(module: nn.Module) -> dict[str, int]:
    """The size attributes of a layer, derived from its tensors."""
    if isinstance(module, _BatchNorm):
        return {} if module.running_mean is None else {"num_features": len(module.running_mean)}
    if isinstance(module, nn.Linear):
        return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    assert isinstance(module, _ConvNd)
    return {"out_channels": module.weight.shape[0], "in_channels": module.weight.shape[1] * module.groups}
