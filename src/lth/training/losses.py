"""The loss of a batch, and the weight of a batch in a mean over several: some targets may be ignored or weighted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, nll_loss

from lth.errors import UsageError

IGNORED = -100  # the target that cross entropy ignores by default

Measure = Callable[[Tensor, Tensor], Tensor | float]


@dataclass(frozen=True)
class Objective:
    """The loss of a task as a function of outputs and targets (`lth list tasks`).

    `mean` is the loss of a batch, and `total` the sum over its examples. `correct` counts correct answers; it is None
    if the task has none.
    """

    mean: Callable[[Tensor, Tensor], Tensor]
    total: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor] | None = None


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """The number of targets that equal the index of the largest output."""
    return (outputs.argmax(1) == targets).sum()


def flat_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error; `targets` are [n, values], and outputs have any shape with as many values."""
    return mse_loss(outputs.reshape(targets.shape), targets)


def total_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum over examples of the mean squared error of their values."""
    return mse_loss(outputs.reshape(targets.shape), targets, reduction="sum") / targets.shape[1]


CLASSIFICATION = Objective(cross_entropy, partial(cross_entropy, reduction="sum"), count_correct)
REGRESSION = Objective(flat_error, total_error)


def default_loss(targets: Tensor) -> Measure:
    """Cross entropy for integer targets, the mean squared error for others."""
    return squared_error if targets.is_floating_point() else cross_entropy


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error. Raises UsageError if shapes differ, which torch would broadcast."""
    if outputs.shape != targets.shape:
        raise UsageError(
            f"the model's outputs are {tuple(outputs.shape)}, but the targets {tuple(targets.shape)}: give targets "
            "of the outputs' shape (y[:, None]), or your own loss"
        )
    return mse_loss(outputs, targets)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The fraction of targets that equal the index of the largest output, without those that cross entropy ignores."""
    return (outputs.argmax(1) == targets)[targets != IGNORED].double().mean().item()


def count(loss: Measure, targets: Tensor) -> float:
    """The divisor of a batch's mean, and so its weight in the mean over several batches.

    For integer targets it is the number of targets that are not ignored or, if torch's cross entropy or negative log
    likelihood has class weights, the sum of their weights; for other targets, the number of examples. Custom losses are
    assumed to ignore the same targets as torch's.
    """
    if targets.is_floating_point():
        return len(targets)
    options = options_of(loss)
    counted = targets[targets != options.get("ignore_index", IGNORED)]
    weight = options.get("weight")
    return counted.numel() if weight is None else float(weight.to(counted.device, torch.float64)[counted].sum())


def options_of(loss: Measure) -> Mapping[str, Any]:
    """The `weight` and `ignore_index` of torch's classification losses; empty for any other loss."""
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return {"weight": loss.weight, "ignore_index": loss.ignore_index}
    if isinstance(loss, partial) and loss.func in (cross_entropy, nll_loss):
        return loss.keywords
    return {}


def is_of_torch(loss: Measure) -> bool:
    """Return whether it is a torch classification loss, whose gradients are 0 if all targets are ignored."""
    return loss in (cross_entropy, nll_loss) or bool(options_of(loss))


def check_mean(loss: Measure | None) -> None:
    """Raise UsageError if a loss declares that it is not a mean over the batch."""
    reduction = (
        loss.keywords.get("reduction", "mean") if isinstance(loss, partial) else getattr(loss, "reduction", "mean")
    )
    if reduction != "mean":
        raise UsageError(f"the loss has reduction = {reduction!r}: expected the mean over a batch; leave reduction out")


def of_nothing(outputs: Tensor) -> Tensor:
    """The loss of a batch whose targets are all ignored: 0, with zero gradients."""
    return outputs.masked_fill(torch.tensor(True, device=outputs.device), 0).sum()  # multiplying by 0 would keep NaN
