"""Follow the channels through a module, from its inputs to its outputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth.tickets.compact.channels import LAYERS, Space, Traced, Use, Value, exact, varying
from lth.tickets.compact.graph import graph_of, run
from lth.tickets.compact.operations import (
    ADDING,
    activation,
    is_batch_size,
    is_flatten,
    is_plain,
    is_pooling,
    shape_of,
)

Values = dict[fx.Node, Value | None]


def trace(model: nn.Module, example: tuple[Tensor, ...]) -> Traced:
    """The layers, norms and Flattens of the module, with the values of the tensors between them.

    A layer keeps its size if it is called twice, has two names, or has parameters that are read outside of it.
    Raises UsageError if torch.fx cannot trace the module.
    """
    graph = graph_of(model)
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    read = {node.target.rpartition(".")[0] for node in graph.graph.nodes if node.op == "get_attr"}
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    traced, values = Traced(), Values()
    for node, written in run(graph, example):
        module = graph.get_submodule(node.target) if node.op == "call_module" else None
        once = module is not None and calls[node.target] == names[id(module)] == 1 and node.target not in read
        values[node] = _follow(node, module, values, traced, once)
        _overwrite(written, values[node], shape_of(node), values)
    return traced


def _overwrite(written: list[fx.Node], value: Value | None, shape: tuple[int, ...] | None, values: Values) -> None:
    """Give the tensors that a node wrote in place the node's value, for all later readers.

    If shapes or channels differ, they become unknown.
    """
    for node in written:
        before = values[node]
        if before and value and shape_of(node) == shape and _alike(before, value):
            values[node] = value
        elif before:
            values[node] = None
            for one in (before, value):
                _pin(one)


def _alike(a: Value, b: Value) -> bool:
    return (a.space.root(), a.axis, a.repeat) == (b.space.root(), b.axis, b.repeat)


def _pin(value: Value | None) -> None:
    """Prevent the removal of a tensor's channels."""
    if value:
        value.space.root().pinned = True


def _follow(
    node: fx.Node, module: nn.Module | None, values: Mapping[fx.Node, Value | None], traced: Traced, once: bool
) -> Value | None:
    """The value of a node's result. An unknown operation pins the tensors that it reads."""
    shape = shape_of(node)
    if node.op == "placeholder" and shape and len(shape) > 1:
        return Value(Space(shape[1], pinned=True), 1, varying(shape[1]))
    first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    if first and shape and node.op != "output" and (module is None or is_plain(module)):
        if isinstance(module, LAYERS) and once:
            return _through_layer(str(node.target), module, values[first], len(shape_of(first) or ()), traced)
        if (value := values[first]) and (result := _through(node, module, first, value, traced, once)):
            return result
        if value and module is None and node.target in ADDING and (total := _sum(node, values)):
            return total
    for used in node.all_input_nodes:
        if (value := values[used]) and not (value.axis > 0 and is_batch_size(node)):
            _pin(value)
    return None


def _through(
    node: fx.Node, module: nn.Module | None, first: fx.Node, value: Value, traced: Traced, once: bool
) -> Value | None:
    """The result of an operation on each channel separately; None for any other operation."""
    shape = shape_of(first) or ()
    if isinstance(module, _BatchNorm) and once and value.axis == 1 and module.running_mean is not None:
        traced.norms[str(node.target)] = value
        return Value(value.space, 1, _normed(module, value.constant), value.repeat)
    if is_flatten(node, module) and value.axis == 1:
        return _flattened(node, first, value, shape, traced, selecting=once)
    if act := activation(node, module):
        return Value(value.space, value.axis, _activated(act, value, len(shape)), value.repeat)
    return value if value.axis == 1 and is_pooling(node, module, len(shape)) else None


def _through_layer(name: str, layer: Any, value: Value | None, dims: int, traced: Traced) -> Value | None:
    linear = isinstance(layer, nn.Linear)
    axis = dims - 1 if linear else 1
    usual = linear or bool(layer.groups == 1 and layer.padding_mode == "zeros" and dims == layer.weight.dim())
    if value and (value.axis != axis or not usual):
        _pin(value)
        value = None
    if not usual:
        return None
    use = Use(name, layer, value, Space(layer.weight.shape[0]))
    traced.uses.append(use)
    return Value(use.outputs, axis, use.constant())


def _normed(norm: _BatchNorm, constant: Tensor) -> Tensor:
    """Batch norm of constants. A channel with scale 0 is constant for all inputs."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.ones_like(constant) if norm.weight is None else exact(norm.weight)
    shift = torch.zeros_like(constant) if norm.bias is None else exact(norm.bias)
    outputs = (constant - exact(norm.running_mean)) / (exact(norm.running_var) + norm.eps).sqrt() * scale + shift
    return torch.where(scale == 0, shift, outputs)


def _flattened(
    node: fx.Node, first: fx.Node, value: Value, before: tuple[int, ...], traced: Traced, selecting: bool
) -> Value:
    """The features of a flattened tensor. Those of the module's inputs can be selected individually."""
    features = math.prod(before[2:])
    if selecting and first.op == "placeholder":
        selected = Value(Space(before[1] * features), 1, value.constant.repeat_interleave(features))
        traced.flattens[str(node.target)] = selected
        return selected
    return Value(value.space, 1, value.constant.repeat_interleave(features), value.repeat * features)


def _activated(act: Callable[[Tensor], Tensor], value: Value, dims: int) -> Tensor:
    """The activation of constants, applied to a tensor with as many dimensions as the module's own."""
    shape = [1] * dims
    shape[value.axis] = -1
    outputs = act(value.constant.clone().view(shape)).flatten()  # a clone, because the activation may write to it
    return outputs.masked_fill(value.constant.isnan(), torch.nan)


def _sum(node: fx.Node, values: Mapping[fx.Node, Value | None]) -> Value | None:
    """The sum of two tensors with equal axes, whose spaces are merged."""
    if len(node.args) != 2 or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
        return None
    nodes = [arg for arg in node.args if isinstance(arg, fx.Node)]
    a, b = (values[arg] for arg in nodes)
    if a is None or b is None or shape_of(nodes[0]) != shape_of(nodes[1]) or (a.axis, a.repeat) != (b.axis, b.repeat):
        return None
    one, other = a.space.root(), b.space.root()
    if one is not other:
        other.merged_into, one.pinned = one, one.pinned or other.pinned
    return Value(one, a.axis, a.constant + b.constant, a.repeat)
