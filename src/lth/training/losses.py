"""The loss of a batch, and of how many targets it is the mean: some may be ignored, and some weigh more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, nll_loss

from lth.errors import UsageError

IGNORED = -100  # the target that cross entropy leaves out, unless it is told another

Measure = Callable[[Tensor, Tensor], Tensor | float]


@dataclass(frozen=True)
class Objective:
    """The loss of a task, of outputs and targets (`lth list tasks`).

    `mean` is the loss of a batch, and `total` the sum of those of its examples. `correct` counts right answers; it is
    None if there is no such thing.
    """

    mean: Callable[[Tensor, Tensor], Tensor]
    total: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor] | None = None


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """The number of targets that are the largest output's."""
    return (outputs.argmax(1) == targets).sum()


def flat_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error; `targets` are [n, values], and outputs as many numbers in any shape."""
    return mse_loss(outputs.reshape(targets.shape), targets)


def total_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum over the examples of the squared error's mean over their values."""
    return mse_loss(outputs.reshape(targets.shape), targets, reduction="sum") / targets.shape[1]


CLASSIFICATION = Objective(cross_entropy, partial(cross_entropy, reduction="sum"), count_correct)
REGRESSION = Objective(flat_error, total_error)


def default_loss(targets: Tensor) -> Measure:
    """Cross entropy for whole numbers, the mean squared error for others."""
    return squared_error if targets.is_floating_point() else cross_entropy


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error; raises UsageError where shapes differ, which torch would stretch to each other."""
    if outputs.shape != targets.shape:
        raise UsageError(
            f"the model's outputs are {tuple(outputs.shape)}, but the targets {tuple(targets.shape)}: give targets "
            "of the outputs' shape (y[:, None]), or a loss of your own"
        )
    return mse_loss(outputs, targets)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of targets, without those that cross entropy ignores, that are the largest output's."""
    return (outputs.argmax(1) == targets)[targets != IGNORED].double().mean().item()


def count(loss: Measure, targets: Tensor) -> float:
    """What the mean of a batch is divided by: its share in the mean over several batches.

    Of whole targets, how many are not ignored; each counts as much as its class weighs, where torch's cross entropy or
    negative log likelihood has weights. Of others, the examples. A loss of the user's own is taken to ignore what
    torch's ignore.
    """
    if targets.is_floating_point():
        return len(targets)
    options = options_of(loss)
    counted = targets[targets != options.get("ignore_index", IGNORED)]
    weight = options.get("weight")
    return counted.numel() if weight is None else float(weight.to(counted.device, torch.float64)[counted].sum())


def options_of(loss: Measure) -> Mapping[str, Any]:
    """The `weight` and `ignore_index` of torch's losses over classes; empty for any other."""
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return {"weight": loss.weight, "ignore_index": loss.ignore_index}
    if isinstance(loss, partial) and loss.func in (cross_entropy, nll_loss):
        return loss.keywords
    return {}


def is_of_torch(loss: Measure) -> bool:
    """Whether it is a loss over classes of torch, whose gradients are 0 where all targets are ignored."""
    return loss in (cross_entropy, nll_loss) or bool(options_of(loss))


def check_mean(loss: Measure | None) -> None:
    """Raise UsageError if a loss says itself that it is no mean over the batch."""
    said = loss.keywords.get("reduction", "mean") if isinstance(loss, partial) else getattr(loss, "reduction", "mean")
    if said != "mean":
        raise UsageError(f"the loss has reduction = {said!r}: expected the mean over a batch; leave reduction out")


def of_nothing(outputs: Tensor) -> Tensor:
    """The loss of a batch whose targets are all ignored: 0, with gradients of 0."""
    return outputs.masked_fill(torch.tensor(True, device=outputs.device), 0).sum()  # a product would keep NaN
