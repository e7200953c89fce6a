"""A module's torch.fx graph, run node by node: shapes, and the tensors that an in-place operation writes to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from lth.errors import UsageError

WRITING = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


def _writing(name: str) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    return lambda x, other: x.tracer.create_proxy("call_function", getattr(operator, name), (x, other), {})


# fx.Proxy records `x += y` as `x = x + y`, although aliases of the tensor see the change
WritingProxy = type("WritingProxy", (fx.Proxy,), {f"__{name}__": _writing(name) for name in WRITING})


def graph_of(model: nn.Module) -> fx.GraphModule:
    """Trace the module with torch.fx. Raises UsageError if torch.fx cannot."""
    tracer = fx.Tracer()
    tracer.proxy = lambda node: WritingProxy(node, tracer)
    try:
        return fx.GraphModule(model, tracer.trace(model))
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} cannot be made compact: torch.fx cannot trace it ({str(error).splitlines()[0]})"
        ) from error


def run(graph: fx.GraphModule, example: tuple[Tensor, ...]) -> Iterator[tuple[Any, list[fx.Node]]]:
    """Run the graph node by node and record shapes. Returns the earlier nodes to whose memory each node wrote."""
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    interpreter.args_iter = iter(clones(example))
    tensors = dict[fx.Node, Tensor]()
    for node in graph.graph.nodes:
        before = {earlier: tensor._version for earlier, tensor in tensors.items()}
        interpreter.env[node] = interpreter.run_node(node)
        touched = {
            _memory(tensors[earlier]) for earlier, version in before.items() if tensors[earlier]._version != version
        }
        written = [earlier for earlier in before if touched and _memory(tensors[earlier]) in touched]
        if isinstance(interpreter.env[node], Tensor):
            tensors[node] = interpreter.env[node]
        for changed in (node, *written):
            changed.meta["shape"] = tuple(tensors[changed].shape) if changed in tensors else None
        yield node, written


def clones(example: tuple[Tensor, ...]) -> list[Tensor]:
    """Copies of the inputs, because the module may write to them."""
    return [x.clone() for x in example]


def _memory(tensor: Tensor) -> int:
    """A key that is equal for tensors that share memory."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
