"""About how long trainings take on this machine, from their arithmetic alone: it needs no data, and a second.

`lth run --dry-run` measures; this is for lists of thousands of trainings of dozens of networks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from lth.config import Experiment, Model
from lth.models import build
from lth.native import available
from lth.plan import Training, evaluations
from lth.training.bfloat16 import kernels
from lth.training.precision import hardware

# Arithmetic of a training, plainly counted, over that of a matrix product in the same time: above 1 where there is less
# to do than counted. Measured by `lth bench` and benchmarks/conv_speed.py; without compiled kernels about half is left.
REACHED = {"lenet": 1.0, "resnet18": 0.75}
CONVOLUTIONS = 1.5  # the other networks
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
VALIDATION, TEST = 5_000, 10_000
SIZE = 768  # rows and columns of the product that is timed


def estimator(workers: int) -> Callable[[Experiment, Training], float]:
    """A function that gives the seconds of a training, divided by the number of workers side by side."""
    speeds: dict[str, float] = {}

    def seconds(experiment: Experiment, training: Training) -> float:
        wide = experiment.model.name == "lenet" or experiment.recipe.precision == "float32" or not hardware("cpu")
        precision = "float32" if wide else "bfloat16"
        if precision not in speeds:
            speeds[precision] = speed(precision)
        reached = share(experiment.model.name, precision)
        return operations(experiment, training) / (reached * speeds[precision]) / workers

    return seconds


def share(model: str, precision: str) -> float:
    """Of a matrix product's speed, what the trainings of a model come to."""
    compiled = available() if model == "lenet" else precision == "bfloat16" and kernels.core() is not None
    return REACHED.get(model, CONVOLUTIONS) / (1 if compiled else 2)


def operations(experiment: Experiment, training: Training) -> float:
    """Floating-point operations of a training; with the native engine those of surviving weights alone."""
    products = per_example(experiment.model)
    if experiment.model.name == "lenet" and available():
        products *= density(experiment, training.level) + 0.02  # the rest of a step
    recipe = training.recipe
    tested = [is_test for _, is_test in evaluations(recipe)]
    updates = 6 * products * recipe.iterations * recipe.batch
    return updates + 2 * products * (VALIDATION * len(tested) + TEST * sum(tested))


def density(experiment: Experiment, level: int) -> float:
    """The share of weights at a level, about: layers that go at another rate are not told apart."""
    prune = experiment.prune
    if prune.densities:
        return prune.densities[level - 1] if level else 1.0
    if experiment.strategy == "oneshot":
        return 1 - prune.rates[level - 1] if level and prune.rates else (1 - prune.rate) ** level
    return math.prod(1 - rate for rate in prune.rates[:level]) if prune.rates else (1 - prune.rate) ** level


def per_example(model: Model) -> int:
    """Multiplications of one forward pass of one example."""
    return _per_example(model.model_dump_json())


@cache
def _per_example(tables: str) -> int:
    model = Model.model_validate_json(tables)
    shape = MNIST if model.name == "lenet" else CIFAR
    found = 0

    def count(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal found
        found += module.weight.numel() * (output[0].numel() // len(module.weight))  # at all places or tokens

    with torch.device("meta"):
        network = build(model, shape, 10)
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(count)
        network.eval()(torch.empty(1, *shape))
    return found


def speed(precision: str) -> float:
    """Floating-point operations a second of one thread's matrix product."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.ones(SIZE, SIZE, dtype=kind) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def seconds() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - begin

    try:
        return 2 * SIZE**3 / min(seconds() for _ in range(8))
    finally:
        torch.set_num_threads(before)
