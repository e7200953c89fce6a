"""One training on all processes of torchrun, for a network too large for one trial per GPU.

Every process holds the network and does the same updates, each with its part of the batch. DistributedDataParallel sums
the gradients; batch norm, dropout and augmentation see the whole batch. So the curve is that of one process within
float32 rounding, except for random numbers that a custom model draws for its part. The loop runs on process 0, and the
others follow its commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lth.config import Recipe
from lth.models.dropout import set_row
from lth.pruning.masks import Mask, Weights
from lth.training.batches import Key
from lth.training.learners import Float32, Moments
from lth.training.losses import CLASSIFICATION, Objective
from lth.training.torch_engine import Prepared, TorchEngine


class DistributedEngine:
    """One training of `model` on all processes. On process 0 it is an Engine; the others `follow` it."""

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, data: Prepared, key: Key, device: str,
        begin: int = 0, moments: Moments | None = None, objective: Objective = CLASSIFICATION,
    ) -> None:  # fmt: skip
        given = (model, start, mask, recipe, data, key, device, begin, moments, objective)
        self.engine = TorchEngine(*given, Distributed)

    @property
    def iteration(self) -> int:
        return self.engine.iteration

    def advance(self, until: int) -> list[Tensor]:
        tell("advance", until)
        return self.engine.advance(until)

    def evaluate(self, split: str) -> tuple[float, float | None]:
        tell("evaluate", split)
        return self._evaluate(split)

    def weights(self) -> dict[str, Tensor]:
        return self.engine.weights()

    def set_weights(self, weights: Weights) -> None:
        tell("set_weights", weights)
        self.engine.set_weights(weights)

    def state(self) -> dict[str, Tensor]:
        return self.engine.state()

    def moments(self) -> dict[str, Tensor]:
        return self.engine.moments()

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        tell("restore", state, iteration)
        self.engine.restore(state, iteration)

    def follow(self) -> None:
        """Carry out the commands of process 0 until the training ends there."""
        obeyed = {
            "advance": self.engine.advance,
            "evaluate": self._evaluate,
            "set_weights": self.engine.set_weights,
            "restore": self.engine.restore,
        }
        while (message := hear())[0] != "end":
            obeyed[message[0]](*message[1:])

    def _evaluate(self, split: str) -> tuple[float, float | None]:
        """Evaluate the split together: process r of n takes every n-th batch, beginning with the r-th."""
        sums = self.engine.sums(split, dist.get_rank(), dist.get_world_size())
        dist.all_reduce(sums)
        return self.engine.means(split, sums)


def tell(*message: Any) -> None:
    """Send a value from process 0 to the others, which `hear` it."""
    dist.broadcast_object_list([message], src=0)


def hear() -> tuple[Any, ...]:
    """Receive the next value from process 0."""
    received = [None]
    dist.broadcast_object_list(received, src=0)
    assert isinstance(received[0], tuple)
    return received[0]


class Distributed:
    """Weights and optimizer like `Float32`, replicated on all processes, which divide the batch of each update."""

    def __init__(
        self, model: nn.Module, start: Weights, mask: Mask, recipe: Recipe, device: str,
        objective: Objective = CLASSIFICATION,
    ) -> None:  # fmt: skip
        self.total = objective.total
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.forward = partial(whole_batch_norm, module)  # pyright: ignore[reportAttributeAccessIssue]
        self.learner = Float32(model, start, mask, recipe, device, objective)
        self.module, self.outputs = self.learner.module, self.learner.outputs
        self.weights, self.set_weights = self.learner.weights, self.learner.set_weights
        self.state, self.restore = self.learner.state, self.learner.restore
        self.moments, self.set_moments = self.learner.moments, self.learner.set_moments
        self.parallel = DistributedDataParallel(self.module)

    def update(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """One update; returns this process's contribution to the mean loss of the batch."""
        rank, count = dist.get_rank(), dist.get_world_size()
        part = slice(len(x) * rank // count, len(x) * (rank + 1) // count)
        set_row(self.module, part.start)
        if rank:  # all processes have the same seed, so parts of a batch would drop the same units
            torch.manual_seed(torch.initial_seed() + rank)
        loss = self.total(self.parallel(x[part]), y[part]) / len(x)
        self.learner.step(loss * count, lr)  # DistributedDataParallel averages gradients over the processes
        return loss.detach()


def whole_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm of this process's part of a batch, with mean and variance of the whole batch."""
    if not norm.training:
        return type(norm).forward(norm, x)
    across = [dimension for dimension in range(x.dim()) if dimension != 1]
    shape = [-1 if dimension == 1 else 1 for dimension in range(x.dim())]
    count = _Sum.apply(torch.full((1,), float(x.numel() // x.shape[1]), device=x.device))
    mean = _Sum.apply(x.sum(across)) / count
    centred = x - mean.reshape(shape)
    variance = _Sum.apply(centred.square().sum(across)) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * count / (count - 1), share)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is None:
        return centred * scale.reshape(shape)
    return centred * (norm.weight * scale).reshape(shape) + norm.bias.reshape(shape)


class _Sum(torch.autograd.Function):
    """The sum over all processes, and of gradients in the backward pass."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole
