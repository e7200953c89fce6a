"""Convert a network to bfloat16: the same layers under the same names, channels_last, with fused neighbours.

Sums over many terms stay float32: batch norm's parameters and statistics, the output layer, the loss. If a network has
parameters outside of linear layers, convolutions and batch norm (layer norms, embeddings, tokens), everything between
its layers is float32 too, such as a transformer's residual stream; each layer converts its input, and attention scores
are computed in bfloat16.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lth.errors import UsageError
from lth.models import counted
from lth.pruning.masks import Mask
from lth.training.bfloat16 import kernels, matrices, sparse

# Operations after a convolution that can be fused with it: in the network -> in the kernels. Pooling and ReLU
# may be exchanged: relu(max(x)) = max(relu(x)).
TAILS = {("pool", "relu"): ("pool", "relu"), ("relu", "pool"): ("pool", "relu"), ("relu",): ("relu",), (): ()}


@dataclass(frozen=True)
class Lowered:
    """A converted network, and how its tensors correspond to those of the original.

    parameters: bfloat16 or float32, by the network's names. channels: weights whose columns are ordered by (pixel,
    channel) instead of (channel, pixel). places: weights of which only survivors are stored.
    """

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    channels: dict[str, int]
    places: dict[str, sparse.Survivors]

    def arranged(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the original parameter `name` in the layout of this network."""
        arranged = by_pixel(tensor, self.channels.get(name))
        return self.places[name].gather(arranged) if name in self.places else arranged

    def standard(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `arranged`, in torch's standard layout."""
        whole = self.places[name].scatter(tensor) if name in self.places else tensor
        channels = self.channels.get(name)
        return whole.unflatten(1, (-1, channels)).mT.flatten(1) if channels else whole.contiguous()


def by_pixel(matrix: Tensor, channels: int | None) -> Tensor:
    """Reorder columns from (channel, pixel) to (pixel, channel) if there are channels."""
    return matrix.unflatten(1, (channels, -1)).mT.flatten(1) if channels else matrix


class FlattenLast(nn.Module):
    """Flatten images by (pixel, channel), which moves no data in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def lower(model: nn.Module, device: str, mask: Mask, compiled_kernels: bool = True) -> Lowered:
    """Convert `model` to bfloat16 on `device` under `mask`. The model is not changed; its weights are set separately.

    Raises UsageError if `model` has counted weights outside of its Linear and Conv2d layers.
    """
    _check_weights(model)
    module = copy.deepcopy(model).to(device)
    mixed = _is_mixed(module)
    compiled = compiled_kernels and device == "cpu" and kernels.core() is not None and not mixed
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    used = Counter[Tensor](
        parameter for parent in module.modules() for part in parent.children() for parameter in part.parameters(False)
    )
    for layer in layers[:-1]:
        if not (compiled and _fits(layer)):
            layer.bfloat16()
            if mixed:
                layer.register_forward_pre_hook(_in_bfloat16)
        if isinstance(layer, nn.Conv2d):
            layout = kernels.layout(layer) if compiled else torch.channels_last
            layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
    for layer in layers[-1:]:
        layer.register_forward_pre_hook(_in_float32)
    channels: dict[str, int] = {}
    places: dict[str, sparse.Survivors] = {}
    for parent in list(module.modules()):
        if type(parent) is nn.Sequential:
            channels |= {names[weight]: count for weight, count in _flatten_last(parent).items()}
        if compiled:
            for child, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear | nn.Conv2d) and layer in layers[:-1] and used[layer.weight] == 1:
                    name = names[id(layer.weight)]
                    if few := _sparse(layer, mask.get(name), channels.get(name)):
                        places[name] = few.where.survivors
                        setattr(parent, child, few)
            _join(parent, layers[-1:])
    return Lowered(module, dict(module.named_parameters()), channels, places)


def _sparse(
    layer: nn.Module, mask: Tensor | None, channels: int | None
) -> sparse.SparseLinear | sparse.SparseConv | None:
    """A module that computes `layer` from its surviving weights; None if there is none, or it is not faster."""
    if mask is None or not sparse.gains(mask):
        return None
    if type(layer) is nn.Linear:
        return sparse.SparseLinear(layer.bias, sparse.places(by_pixel(mask, channels)))
    if type(layer) is nn.Conv2d and kernels.usual(layer):
        return sparse.SparseConv(layer.bias, sparse.kernel_places(mask))
    return None


def _in_float32(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def _in_bfloat16(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.bfloat16() for x in inputs)


def _check_weights(model: nn.Module) -> None:
    """Raise UsageError if a weight is shared: other modules that read it expect float32."""
    for name in counted(model):
        owner = model.get_submodule(name.rpartition(".")[0])
        if not isinstance(owner, nn.Linear | nn.Conv2d):
            raise UsageError(
                f"{name} of {type(owner).__name__} cannot be trained in bfloat16, which is for weights of Linear and "
                "Conv2d alone; give recipe.precision=float32"
            )


def _is_mixed(model: nn.Module) -> bool:
    """Return whether float32 parameters of modules other than layers and batch norm meet the activations."""
    known = nn.Linear | nn.Conv2d | _NormBase
    return any(not isinstance(m, known) and any(True for _ in m.parameters(recurse=False)) for m in model.modules())


def _fits(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and kernels.fits(layer)


def _flatten_last(chain: nn.Sequential) -> dict[int, int]:
    """Replace Flatten between images and a Linear layer. Returns the id of its weight -> channels of the images."""
    channels, by_weight = 0, {}
    for (name, part), (_, following) in itertools.pairwise(chain.named_children()):
        if isinstance(part, nn.Conv2d):
            channels = part.out_channels
        elif isinstance(part, nn.Flatten) and isinstance(following, nn.Linear) and channels:
            whole = (part.start_dim, part.end_dim) == (1, -1) and following.in_features % channels == 0
            if whole:
                setattr(chain, name, FlattenLast())
                by_weight[id(following.weight)] = channels
    return by_weight


def _join(parent: nn.Module, last: list[nn.Linear | nn.Conv2d]) -> None:
    """Replace convolutions and, in a Sequential, the pooling and ReLU after them by compiled kernels.

    The `last` one, the output layer, stays float32.
    """
    parts = list(parent.named_children())
    kinds = [_kind(part) if type(parent) is nn.Sequential else "" for _, part in parts]
    for at, (name, part) in enumerate(parts):
        if part in last:
            continue
        if _fits(part):
            assert isinstance(part, nn.Conv2d)
            tail = next(tail for tail in TAILS if kinds[at + 1 : at + 1 + len(tail)] == list(tail))
            setattr(parent, name, kernels.Conv(part, TAILS[tail]))
        elif type(part) is nn.Conv2d and matrices.fits(part):
            setattr(parent, name, matrices.Conv(part))
            continue
        elif TAILS.get(tuple(kinds[at : at + 2])) == ("pool", "relu"):
            tail = ("pool",)
            setattr(parent, name, kernels.Pool())
        else:
            continue
        for n in range(at + 1, at + 1 + len(tail)):
            setattr(parent, parts[n][0], nn.Identity())
            kinds[n] = ""


def _kind(part: nn.Module) -> str:
    if type(part) is nn.ReLU:
        return "relu"
    if type(part) is nn.MaxPool2d:
        given = (part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode, part.return_indices)
        return "pool" if given in ((2, 2, 0, 1, False, False), ((2, 2), (2, 2), 0, 1, False, False)) else ""
    return ""
