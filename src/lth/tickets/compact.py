"""A pruned module made small: without the units and inputs whose removal changes no output.

A unit is dead where nothing that varies comes in, or where nothing goes out; what is fed by dead units alone is dead
too. A dead unit's output is a constant, of its bias: it moves into the biases of the next layer. So the module that is
left computes the same outputs, in evaluation mode, with smaller dense layers.

The channels of a tensor form a space. Layers lead from one space to another; what works on each channel by itself
(activations, batch norm, pooling) stays within one, and what adds two tensors makes their spaces one. What is not known
to this module pins the spaces that it touches: they lose nothing. Constants are found on the CPU in float64, wherever
the module is.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.prune import BasePruningMethod

from lth.errors import UsageError
from lth.randomness import global_draws
from lth.tickets.speed import difference

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
POOLS: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.AvgPool1d),
    2: (nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d),
    3: (nn.MaxPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d, nn.AvgPool3d),
}
ACTIVATING: set[Any] = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.tanh, F.sigmoid,
    torch.relu, torch.tanh, torch.sigmoid, F.dropout, "relu", "tanh", "sigmoid", "contiguous",
    torch.relu_, torch.tanh_, torch.sigmoid_, "relu_", "tanh_", "sigmoid_",
}  # fmt: skip
POOLING: dict[int, set[Any]] = {
    1: {F.max_pool1d, F.adaptive_avg_pool1d}, 2: {F.max_pool2d, F.adaptive_avg_pool2d}, 3: {F.max_pool3d},
}  # fmt: skip
ADDING: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
FLATTENING: set[Any] = {torch.flatten, "flatten"}
RESHAPING: set[Any] = {torch.reshape, "view", "reshape"}
MEANING: set[Any] = {torch.mean, "mean"}
WRITING = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


@dataclass(eq=False)
class Space:
    """The channels that some tensors have in common, and which of them go."""

    size: int
    pinned: bool = False
    removed: Tensor = field(init=False)
    into: Space | None = None  # the space that this one was made one with

    def __post_init__(self) -> None:
        self.removed = torch.zeros(self.size, dtype=torch.bool)

    def found(self) -> Space:
        return self.into.found() if self.into else self


def _exact(tensor: Tensor) -> Tensor:
    """The tensor's values for computations with constants: float64, on the CPU."""
    return tensor.detach().cpu().double()


def _varying(size: int) -> Tensor:
    return torch.full((size,), torch.nan, dtype=torch.float64)


@dataclass(frozen=True)
class Value:
    """What is known of a tensor: its channels' space and axis, and where a feature is the same for all inputs.

    Flattened, each channel has `repeat` features beside each other. constant: float64 [size * repeat], NaN where a
    feature varies.
    """

    space: Space
    axis: int
    constant: Tensor
    repeat: int = 1

    def kept(self) -> Tensor:
        """Which features stay."""
        return ~self.space.found().removed.repeat_interleave(self.repeat)


@dataclass(frozen=True)
class Use:
    """A layer where it is called: from a tensor (None where nothing is known of it) to a space."""

    name: str
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    inputs: Value | None
    outputs: Space

    def matrix(self) -> Tensor:
        """The weights as float64 [outputs, inputs, places of the kernel]."""
        weight = _exact(self.layer.weight)
        return weight.reshape(*weight.shape[:2], -1)

    def bias(self) -> Tensor:
        bias = self.layer.bias
        return torch.zeros(self.outputs.size).double() if bias is None else _exact(bias)

    def foldable(self, constant: Tensor) -> Tensor:
        """Which constant inputs mean the same for an output at all places: beside a border of zeros, only 0 does."""
        layer = self.layer
        bordered = not isinstance(layer, nn.Linear) and layer.padding != "valid" and any(_several(layer.padding))
        return constant == 0 if bordered else ~constant.isnan()

    def constant(self) -> Tensor:
        """Where an output is the same for all inputs, and what it is."""
        matrix = self.matrix()
        known = _varying(matrix.shape[1]) if self.inputs is None else self.inputs.constant
        fixed = self.foldable(known)
        found = self.bias() + matrix[:, fixed].sum(2) @ known[fixed]
        return found.masked_fill((matrix[:, ~fixed] != 0).flatten(1).any(1), torch.nan)


@dataclass(frozen=True)
class Traced:
    """The layers of a module as they are called, the norms between them, and the Flattens of its inputs."""

    uses: list[Use] = field(default_factory=list)
    norms: dict[str, Value] = field(default_factory=dict)
    flattens: dict[str, Value] = field(default_factory=dict)


class FlattenSelect(nn.Module):
    """Flattens, then takes the features that are used: those at `places`."""

    places: Tensor

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", places)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self.places)


def compact(model: nn.Module, *example: Tensor) -> nn.Module:
    """A smaller dense copy of a pruned module with the same outputs, in evaluation mode; `example` are its inputs.

    Modules keep their names and kinds; a Flatten of the inputs becomes one that takes the used ones. What cannot be
    followed keeps its size. Raises UsageError where torch.fx cannot trace the module at all, or torch.nn.utils.prune
    still keeps masks of it, and LthError where the copy's outputs for `example` differ by more than rounding: inputs
    that vary show more of this than zeros.
    """
    device = next((x.device for x in example), torch.device("cpu"))
    # Inference tensors would not tell whether they were written to.
    with torch.inference_mode(False), torch.no_grad(), global_draws(device) as seed:
        model = _copied(model).eval()
        seed(0)
        expected = _tensors(model(*_cloned(example)))
        traced = trace(model, example)
        remove(traced)
        small = load_compact(model, smaller_state(model, traced))
        seed(0)
        difference(expected, _tensors(small(*_cloned(example))))
    return small


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of modules that keep a tensor computed with gradients, which weight norm does."""
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                raise UsageError(
                    f"{name or type(model).__name__} keeps its mask beside its weights, as torch.nn.utils.prune does: "
                    f'to make them one, call torch.nn.utils.prune.remove(module, "{hook._tensor_name}") first'
                )
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot be made compact: Python cannot copy it ({str(error).splitlines()[0]})"
        ) from error


def _cloned(example: tuple[Tensor, ...]) -> list[Tensor]:
    """Copies of the inputs: the module may write to them."""
    return [x.clone() for x in example]


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


# ------------------------------------------------------------------------------------------------------------ following


def _writing(name: str) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    return lambda x, other: x.tracer.create_proxy("call_function", getattr(operator, name), (x, other), {})


# fx.Proxy takes `x += y` for `x = x + y`, although whatever else is the same tensor sees it too.
WritingProxy = type("WritingProxy", (fx.Proxy,), {f"__{name}__": _writing(name) for name in WRITING})


def _traced_by_fx(model: nn.Module) -> fx.GraphModule:
    tracer = fx.Tracer()
    tracer.proxy = lambda node: WritingProxy(node, tracer)
    return fx.GraphModule(model, tracer.trace(model))


def trace(model: nn.Module, example: tuple[Tensor, ...]) -> Traced:
    """Follow the channels through the module, from its inputs to its outputs.

    A layer that is called twice or has two names, or whose parameters are also read outside of it, keeps its size.
    """
    try:
        graph = _traced_by_fx(model)
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} cannot be made compact: torch.fx cannot trace it ({str(error).splitlines()[0]})"
        ) from error
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    read = {node.target.rpartition(".")[0] for node in graph.graph.nodes if node.op == "get_attr"}
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    traced, values = Traced(), dict[fx.Node, Value | None]()
    for node, written in _run(graph, example):
        module = graph.get_submodule(node.target) if node.op == "call_module" else None
        once = module is not None and calls[node.target] == names[id(module)] == 1 and node.target not in read
        values[node] = _follow(node, module, values, traced, once)
        _overwrite(written, values[node], _shape(node), values)
    return traced


def _run(graph: fx.GraphModule, example: tuple[Tensor, ...]) -> Iterator[tuple[Any, list[fx.Node]]]:
    """Run node after node and note the shapes; with each, the earlier nodes in whose memory it wrote."""
    run = fx.Interpreter(graph, garbage_collect_values=False)
    run.args_iter = iter(_cloned(example))
    tensors = dict[fx.Node, Tensor]()
    for node in graph.graph.nodes:
        before = {earlier: tensor._version for earlier, tensor in tensors.items()}
        run.env[node] = run.run_node(node)
        touched = {
            _memory(tensors[earlier]) for earlier, version in before.items() if tensors[earlier]._version != version
        }
        written = [earlier for earlier in before if touched and _memory(tensors[earlier]) in touched]
        if isinstance(run.env[node], Tensor):
            tensors[node] = run.env[node]
        for known in (node, *written):
            known.meta["shape"] = tuple(tensors[known].shape) if known in tensors else None
        yield node, written


def _memory(tensor: Tensor) -> int:
    """Equal for tensors that share memory."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _overwrite(
    written: list[fx.Node], value: Value | None, shape: tuple[int, ...] | None, values: dict[fx.Node, Value | None]
) -> None:
    """What a node wrote to has the node's own value for all that read it later; where it cannot, nothing is known."""
    for node in written:
        known = values[node]
        if known and value and _shape(node) == shape and _alike(known, value):
            values[node] = value
        elif known:
            values[node] = None
            for one in (known, value):
                if one:
                    one.space.found().pinned = True


def _alike(a: Value, b: Value) -> bool:
    return (a.space.found(), a.axis, a.repeat) == (b.space.found(), b.axis, b.repeat)


def _follow(
    node: fx.Node, module: nn.Module | None, values: Mapping[fx.Node, Value | None], traced: Traced, once: bool
) -> Value | None:
    """What is known of a node's result. Whatever is not known pins what it looks at."""
    shape = _shape(node)
    if node.op == "placeholder" and shape and len(shape) > 1:
        return Value(Space(shape[1], pinned=True), 1, _varying(shape[1]))
    first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    value = values[first] if first else None
    if first and shape and node.op != "output" and (module is None or _is_plain(module)):
        dims = len(_shape(first) or ())
        if isinstance(module, LAYERS) and once:
            return _through_layer(str(node.target), module, value, dims, traced)
        if value and isinstance(module, _BatchNorm) and once and value.axis == 1 and module.running_mean is not None:
            traced.norms[str(node.target)] = value
            return Value(value.space, 1, _normed(module, value.constant), value.repeat)
        if value and _is_flatten(node, module) and value.axis == 1:
            return _flattened(node, first, value, _shape(first) or (), traced, selecting=once)
        if value and (act := _activation(node, module)):
            return Value(value.space, value.axis, _activated(act, value, dims), value.repeat)
        if value and value.axis == 1 and _is_pooling(node, module, dims):
            return value
        if value and module is None and node.target in ADDING and (added := _added(node, values)):
            return added
    for used in node.all_input_nodes:
        if (known := values[used]) and not (known.axis > 0 and _is_batch_size(node)):
            known.space.found().pinned = True
    return None


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its kind does from parameters of its own: nothing hooked on, no weight derived."""
    own = {name for name, _ in module.named_parameters(recurse=False)}
    derived = any(getattr(module, key, None) is not None and key not in own for key in ("weight", "bias"))
    return not (derived or module._forward_hooks or module._forward_pre_hooks)


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    return node.meta.get("shape")


def _through_layer(name: str, layer: Any, value: Value | None, dims: int, traced: Traced) -> Value | None:
    linear = isinstance(layer, nn.Linear)
    axis = dims - 1 if linear else 1
    plain = linear or bool(layer.groups == 1 and layer.padding_mode == "zeros" and dims == layer.weight.dim())
    if value and (value.axis != axis or not plain):
        value.space.found().pinned = True
        value = None
    if not plain:
        return None
    use = Use(name, layer, value, Space(layer.weight.shape[0]))
    traced.uses.append(use)
    return Value(use.outputs, axis, use.constant())


def _normed(norm: _BatchNorm, constant: Tensor) -> Tensor:
    """Batch norm of constants. A channel of scale 0 is constant whatever comes in."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.ones_like(constant) if norm.weight is None else _exact(norm.weight)
    shift = torch.zeros_like(constant) if norm.bias is None else _exact(norm.bias)
    found = (constant - _exact(norm.running_mean)) / (_exact(norm.running_var) + norm.eps).sqrt() * scale + shift
    return torch.where(scale == 0, shift, found)


def _is_flatten(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether all but the batch becomes one axis."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if node.target in FLATTENING:
        return node.args[1:] in ((1,), (1, -1)) and not node.kwargs
    if node.target in RESHAPING and len(node.args) == 3:  # x.view(x.size(0), -1)
        batch, *rest = node.args[1:]
        kept = (_shape(node) or ())[:1] == (_shape(node.all_input_nodes[0]) or ())[:1]
        return kept and isinstance(batch, fx.Node) and _is_batch_size(batch) and rest == [-1]
    return False


def _is_batch_size(node: fx.Node) -> bool:
    """Whether a node asks a tensor for nothing but the size of its batch."""
    if _is_shape(node):
        return all(_is_batch_size(user) for user in node.users)
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and _is_shape(node.args[0]) and bool(node.args[1] == 0)
    return (node.op, node.target) == ("call_method", "size") and node.args[1:] == (0,)


def _is_shape(node: fx.Node) -> bool:
    """Whether a node is a tensor's `shape` or `size()`."""
    asked = node.target is getattr and node.args[1] == "shape"
    return asked or ((node.op, node.target) == ("call_method", "size") and len(node.args) == 1 and not node.kwargs)


def _flattened(
    node: fx.Node, first: fx.Node, value: Value, before: tuple[int, ...], traced: Traced, selecting: bool
) -> Value:
    """The features of a flattened tensor. Those of the module's inputs can be chosen from one by one."""
    features = math.prod(before[2:])
    if selecting and first.op == "placeholder":
        chosen = Value(Space(before[1] * features), 1, value.constant.repeat_interleave(features))
        traced.flattens[str(node.target)] = chosen
        return chosen
    return Value(value.space, 1, value.constant.repeat_interleave(features), value.repeat * features)


def _activation(node: fx.Node, module: nn.Module | None) -> Callable[[Tensor], Tensor] | None:
    """What a node does to each element by itself, whatever its place; None where it does something else."""
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


def _activated(act: Callable[[Tensor], Tensor], value: Value, dims: int) -> Tensor:
    """The constants as they come out, having gone in as a tensor of as many dimensions as the module's own."""
    shape = [1] * dims
    shape[value.axis] = -1
    found = act(value.constant.clone().view(shape)).flatten()  # a clone, since it may be written to
    return found.masked_fill(value.constant.isnan(), torch.nan)


def _is_pooling(node: fx.Node, module: nn.Module | None, dims: int) -> bool:
    """Whether places are pooled, each channel by itself, so that what is constant remains so."""
    rank = dims - 2  # of fewer dimensions is what has no batch: the pool's places are then our channels
    if module is not None:
        if not isinstance(module, POOLS.get(rank, ())):
            return False
        averages = isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
        if averages and (module.ceil_mode or any(_several(module.padding)) or getattr(module, "divisor_override", 0)):
            return False
        return not getattr(module, "return_indices", False)
    if node.target in MEANING:
        over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(over, int | tuple | list) and all(int(d) % dims > 1 for d in _several(over))  # pyright: ignore
    return node.target in POOLING.get(rank, ()) and not node.kwargs.get("return_indices", False)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _added(node: fx.Node, values: Mapping[fx.Node, Value | None]) -> Value | None:
    """The sum of two tensors of the same kind, whose spaces become one."""
    if len(node.args) != 2 or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
        return None
    nodes = [arg for arg in node.args if isinstance(arg, fx.Node)]
    a, b = (values[arg] for arg in nodes)
    if a is None or b is None or _shape(nodes[0]) != _shape(nodes[1]) or (a.axis, a.repeat) != (b.axis, b.repeat):
        return None
    one, other = a.space.found(), b.space.found()
    if one is not other:
        other.into, one.pinned = one, one.pinned or other.pinned
    return Value(one, a.axis, a.constant + b.constant, a.repeat)


# ------------------------------------------------------------------------------------------------------------- removing


def remove(traced: Traced) -> None:
    """Mark in every space the channels that can go, until nothing more can. One stays in each: no layer is empty."""
    spaces = {id(space): space for space in (_space_of(value) for value in _values(traced))}
    changed = True
    while changed:
        changed = False
        for space in spaces.values():
            found = _removable(space, traced.uses)
            if found.all():
                found[(~space.removed).nonzero()[0]] = False
            if not space.pinned and not torch.equal(found, space.removed):
                space.removed, changed = found, True


def _values(traced: Traced) -> list[Value]:
    inputs = [use.inputs for use in traced.uses if use.inputs]
    return [*inputs, *traced.norms.values(), *traced.flattens.values()]


def _space_of(value: Value) -> Space:
    return value.space.found()


def _removable(space: Space, uses: list[Use]) -> Tensor:
    """The channels that no layer needs: a layer takes a constant into its biases."""
    found = torch.ones(space.size, dtype=torch.bool)
    for use in uses:
        if use.inputs and use.inputs.space.found() is space:
            rows = ~use.outputs.found().removed
            needed = (use.matrix()[rows] != 0).any(2).any(0) & ~use.foldable(use.inputs.constant)
            found &= ~needed.reshape(space.size, -1).any(1)
    return found


def smaller_state(model: nn.Module, traced: Traced) -> dict[str, Tensor]:
    """The state_dict of what is left: rows, columns, and biases with the constants of what is gone."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for use in traced.uses:
        weight, rows = use.layer.weight.detach(), ~use.outputs.found().removed
        columns = use.inputs.kept() if use.inputs else torch.ones(weight.shape[1], dtype=torch.bool)
        state[f"{use.name}.weight"] = weight[rows][:, columns].contiguous()
        bias = use.bias()
        if use.inputs:
            bias = bias + use.matrix()[:, ~columns].sum(2) @ use.inputs.constant[~columns].nan_to_num()
        if use.layer.bias is not None or bias[rows].any():
            state[f"{use.name}.bias"] = bias[rows].to(weight.dtype)
    for name, value in traced.norms.items():
        for key in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.{key}" in state:
                state[f"{name}.{key}"] = state[f"{name}.{key}"][value.kept()].contiguous()
    for name, value in traced.flattens.items():
        if not value.kept().all():
            state[f"{name}.places"] = value.kept().nonzero().squeeze(1)
    return state


def load_compact(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`model` with its layers cut to the shapes of a compact state_dict, and with its values; in evaluation mode."""
    for name, module in list(model.named_modules()):
        own = {key.removeprefix(f"{name}."): t for key, t in state.items() if key.rpartition(".")[0] == name}
        if isinstance(module, nn.Flatten) and "places" in own:
            path, _, last = name.rpartition(".")
            places = torch.zeros_like(own["places"], device=next(model.parameters(), own["places"]).device)
            setattr(model.get_submodule(path), last, FlattenSelect(places))
        elif isinstance(module, (*LAYERS, _BatchNorm)):
            for key, tensor in own.items():
                before = getattr(module, key)
                if not isinstance(before, Tensor) or before.shape != tensor.shape:
                    kind = nn.Parameter if isinstance(before, nn.Parameter) or before is None else torch.Tensor.detach
                    device = (module.weight if before is None else before).device
                    setattr(module, key, kind(torch.empty_like(tensor, device=device)))
            for key, size in _sizes(module).items():
                setattr(module, key, size)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UsageError(f"the state_dict does not fit {type(model).__name__}: {error}") from None
    return model.eval()


def _sizes(module: nn.Module) -> dict[str, int]:
    """What a layer says of its own sizes, from its tensors."""
    if isinstance(module, _BatchNorm):
        return {} if module.running_mean is None else {"num_features": len(module.running_mean)}
    if isinstance(module, nn.Linear):
        return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}
    assert isinstance(module, _ConvNd)
    return {"out_channels": module.weight.shape[0], "in_channels": module.weight.shape[1] * module.groups}
