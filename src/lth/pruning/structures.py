"""Structures: which surviving weights may be removed, independent of their layer's budget.

A structure marks the weights of a layer that are free to be removed, given its scores and mask. With `weights` all of
them are free. With N:M, the N weights of highest score in each group of M are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

Free = Callable[[Tensor, Tensor], Tensor]


def structure(name: str) -> Free:
    """The structure with this name: `weights`, or N:M such as `2:4`."""
    if name == "weights":
        return single_weights
    keep, size = map(int, re.fullmatch(r"(\d+):(\d+)", name).groups())  # pyright: ignore[reportOptionalMemberAccess]
    return lambda scores, mask: outside_groups(scores, mask, keep, size)


def single_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """All surviving weights are free."""
    return mask


def outside_groups(scores: Tensor, mask: Tensor, keep: int, size: int) -> Tensor:
    """The weights that may be removed so that each group of `size` keeps its `keep` highest surviving scores.

    Groups are consecutive inputs of one output: along the rows of a matrix [out, in], and along the input channels at
    one position of a kernel [out, in, ...], the dimension that torch's semi-structured kernels compress. The last group
    of a row may be shorter. Ties go to the lower index. `scores` and `mask` belong to one layer; returns a bool tensor
    of their shape.
    """
    rows = lambda tensor: tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
    grouped = lambda tensor, fill: pad(rows(tensor), (0, -tensor.shape[1] % size), value=fill).unflatten(1, (-1, size))
    alive = grouped(mask, False)
    ranked = grouped(scores.double(), 0.0).masked_fill(~alive, -torch.inf)
    order = ranked.flip(-1).argsort(
        dim=-1, descending=True, stable=True
    )  # flipped so that the later of two equal scores stays
    rank = order.argsort(dim=-1).flip(-1)
    free = (alive & (rank >= keep)).flatten(1)[:, : mask.shape[1]]
    moved = mask.movedim(1, -1)
    return free.reshape(moved.shape).movedim(-1, 1)


def fewest(name: str, shape: tuple[int, ...]) -> int:
    """The minimum number of weights that this structure leaves in a layer of `shape`."""
    if name == "weights":
        return 0
    keep, size = map(int, name.split(":"))
    whole, rest = divmod(shape[1], size)
    return (whole * keep + min(rest, keep)) * (torch.Size(shape).numel() // shape[1])
