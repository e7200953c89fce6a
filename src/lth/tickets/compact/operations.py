"""The operations through which channels can be followed: modules, functions and methods of a traced graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lth.tickets.compact.channels import several

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
ACTIVATING: set[Any] = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.tanh, F.sigmoid,
    torch.relu, torch.tanh, torch.sigmoid, F.dropout, "relu", "tanh", "sigmoid", "contiguous",
    torch.relu_, torch.tanh_, torch.sigmoid_, "relu_", "tanh_", "sigmoid_",
}  # fmt: skip
POOLS: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.AvgPool1d),
    2: (nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d),
    3: (nn.MaxPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d, nn.AvgPool3d),
}
POOLING: dict[int, set[Any]] = {
    1: {F.max_pool1d, F.adaptive_avg_pool1d}, 2: {F.max_pool2d, F.adaptive_avg_pool2d}, 3: {F.max_pool3d},
}  # fmt: skip
ADDING: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
FLATTENING: set[Any] = {torch.flatten, "flatten"}
RESHAPING: set[Any] = {torch.reshape, "view", "reshape"}
AVERAGING: set[Any] = {torch.mean, "mean"}


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a node's tensor; None if it is not a tensor."""
    return node.meta.get("shape")


def is_plain(module: nn.Module) -> bool:
    """Return whether a module computes what its type does from its parameters, without hooks or derived weights."""
    parameters = {name for name, _ in module.named_parameters(recurse=False)}
    derived = any(getattr(module, key, None) is not None and key not in parameters for key in ("weight", "bias"))
    return not (derived or module._forward_hooks or module._forward_pre_hooks)


def is_flatten(node: fx.Node, module: nn.Module | None) -> bool:
    """Return whether all axes except the batch are merged into one."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if node.target in FLATTENING:
        return node.args[1:] in ((1,), (1, -1)) and not node.kwargs
    if node.target in RESHAPING and len(node.args) == 3:  # x.view(x.size(0), -1)
        batch, *rest = node.args[1:]
        same_batch = (shape_of(node) or ())[:1] == (shape_of(node.all_input_nodes[0]) or ())[:1]
        return same_batch and isinstance(batch, fx.Node) and is_batch_size(batch) and rest == [-1]
    return False


def is_batch_size(node: fx.Node) -> bool:
    """Return whether a node uses only the batch size of its tensor."""
    if _is_shape(node):
        return all(is_batch_size(user) for user in node.users)
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and _is_shape(node.args[0]) and bool(node.args[1] == 0)
    return (node.op, node.target) == ("call_method", "size") and node.args[1:] == (0,)


def _is_shape(node: fx.Node) -> bool:
    """Return whether a node is the `shape` or `size()` of a tensor."""
    attribute = node.target is getattr and node.args[1] == "shape"
    return attribute or ((node.op, node.target) == ("call_method", "size") and len(node.args) == 1 and not node.kwargs)


def activation(node: fx.Node, module: nn.Module | None) -> Callable[[Tensor], Tensor] | None:
    """The elementwise function that a node computes; None for any other operation."""
    if module is not None:
        return module if isinstance(module, ACTIVATIONS) else None
    if node.target not in ACTIVATING or any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values())):
        return None
    if node.target is F.dropout and (node.kwargs.get("training", True) or len(node.args) > 2):
        return None
    if node.op == "call_method":
        return lambda x: getattr(x, str(node.target))(*node.args[1:], **node.kwargs)
    function: Any = node.target
    return lambda x: function(x, *node.args[1:], **node.kwargs)


def is_pooling(node: fx.Node, module: nn.Module | None, dims: int) -> bool:
    """Return whether each channel is pooled separately over positions, so that constants remain constant."""
    rank = dims - 2  # without a batch dimension, the pool would take our channels for positions
    if module is not None:
        return isinstance(module, POOLS.get(rank, ())) and _averages_whole_windows(module)
    if node.target in AVERAGING:
        over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(over, int | tuple | list) and all(int(d) % dims > 1 for d in several(over))  # pyright: ignore
    return node.target in POOLING.get(rank, ()) and not node.kwargs.get("return_indices", False)


def _averages_whole_windows(pool: nn.Module) -> bool:
    """Return whether a pool maps a constant to the same value everywhere."""
    averages = isinstance(pool, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
    if averages and (pool.ceil_mode or any(several(pool.padding)) or getattr(pool, "divisor_override", 0)):
        return False
    return not getattr(pool, "return_indices", False)
