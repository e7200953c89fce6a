"""Which channels can be removed, and the state_dict without them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth.tickets.compact.channels import Space, Traced, Use, Value


def remove(traced: Traced) -> None:
    """Mark the channels that no layer needs in every space, until there are no more.

    One channel stays in each space, so that no layer is empty.
    """
    spaces = {id(space): space for space in (value.space.root() for value in _values(traced))}
    changed = True
    while changed:
        changed = False
        for space in spaces.values():
            removable = _removable(space, traced.uses)
            if removable.all():
                removable[(~space.removed).nonzero()[0]] = False
            if not space.pinned and not torch.equal(removable, space.removed):
                space.removed, changed = removable, True


def _values(traced: Traced) -> list[Value]:
    inputs = [use.inputs for use in traced.uses if use.inputs]
    return [*inputs, *traced.norms.values(), *traced.flattens.values()]


def _removable(space: Space, uses: list[Use]) -> Tensor:
    """The channels that no layer needs; a layer adds constant inputs to its biases."""
    removable = torch.ones(space.size, dtype=torch.bool)
    for use in uses:
        if use.inputs and use.inputs.space.root() is space:
            rows = ~use.outputs.root().removed
            needed = (use.matrix()[rows] != 0).any(2).any(0) & ~use.foldable(use.inputs.constant)
            removable &= ~needed.reshape(space.size, -1).any(1)
    return removable


def smaller_state(model: nn.Module, traced: Traced) -> dict[str, Tensor]:
    """The state_dict of the remaining rows and columns. Biases include the removed constants."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for use in traced.uses:
        state |= _smaller_layer(use)
    for name, value in traced.norms.items():
        for key in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.{key}" in state:
                state[f"{name}.{key}"] = state[f"{name}.{key}"][value.remaining()].contiguous()
    for name, value in traced.flattens.items():
        if not value.remaining().all():
            state[f"{name}.places"] = value.remaining().nonzero().squeeze(1)
    return state


def _smaller_layer(use: Use) -> dict[str, Tensor]:
    weight, rows = use.layer.weight.detach(), ~use.outputs.root().removed
    columns = use.inputs.remaining() if use.inputs else torch.ones(weight.shape[1], dtype=torch.bool)
    state = {f"{use.name}.weight": weight[rows][:, columns].contiguous()}
    bias = use.bias()
    if use.inputs:
        bias = bias + use.matrix()[:, ~columns].sum(2) @ use.inputs.constant[~columns].nan_to_num()
    if use.layer.bias is not None or bias[rows].any():
        state[f"{use.name}.bias"] = bias[rows].to(weight.dtype)
    return state
