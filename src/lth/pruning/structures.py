"""Structures: which surviving weights may be removed, whatever their layer's budget.

A structure says, for the scores of a layer and its mask, where weights are free to go. Single weights are always free;
with N of every M, the N highest scores of each group of M are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

Free = Callable[[Tensor, Tensor], Tensor]


def structure(name: str) -> Free:
    """The structure of a name: `weights`, or N:M such as `2:4`."""
    if name == "weights":
        return single_weights
    keep, size = map(int, re.fullmatch(r"(\d+):(\d+)", name).groups())  # pyright: ignore[reportOptionalMemberAccess]
    return lambda scores, mask: outside_groups(scores, mask, keep, size)


def single_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Every surviving weight is free to go."""
    return mask


def outside_groups(scores: Tensor, mask: Tensor, keep: int, size: int) -> Tensor:
    """Where a weight may go so that each group of `size` keeps its `keep` highest surviving scores.

    Groups are consecutive inputs of one output: of a matrix [out, in] along its rows, of a kernel [out, in, ...] along
    the input channels of one place, the dimension that torch's semi-structured kernels compress. The last group of a
    row may be shorter. Ties go to the lower index. scores, mask: one layer's; returns a bool tensor of their shape.
    """
    rows = lambda tensor: tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
    grouped = lambda tensor, fill: pad(rows(tensor), (0, -tensor.shape[1] % size), value=fill).unflatten(1, (-1, size))
    alive = grouped(mask, False)
    ranked = grouped(scores.double(), 0.0).masked_fill(~alive, -torch.inf)
    order = ranked.flip(-1).argsort(
        dim=-1, descending=True, stable=True
    )  # flipped: of equal scores the later one stays
    rank = order.argsort(dim=-1).flip(-1)
    free = (alive & (rank >= keep)).flatten(1)[:, : mask.shape[1]]
    moved = mask.movedim(1, -1)
    return free.reshape(moved.shape).movedim(-1, 1)


def fewest(name: str, shape: tuple[int, ...]) -> int:
    """The fewest weights that the structure of this name leaves in a layer of `shape`."""
    if name == "weights":
        return 0
    keep, size = map(int, name.split(":"))
    whole, rest = divmod(shape[1], size)
    return (whole * keep + min(rest, keep)) * (torch.Size(shape).numel() // shape[1])
