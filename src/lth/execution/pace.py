"""The pace of trainings on this machine in seconds, and an estimate of their disk space.

paces          from a few updates and one evaluation on a few examples: for dry runs
by_arithmetic  from the speed of a matrix product: for lists of thousands of trainings of dozens of networks
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from lth.config import Experiment, Model
from lth.data import Data
from lth.execution.estimates import Pace, Sizes, work
from lth.execution.job import engine_for
from lth.execution.setup import Levels, Setup
from lth.models import build, groups_of
from lth.native import available
from lth.plan import Training, evaluations
from lth.pruning import masks
from lth.randomness import generator
from lth.storage.tensors import bytes_at
from lth.training.bfloat16 import kernels
from lth.training.precision import hardware

SAMPLED = 128  # number of examples for training, and for evaluation, in a measurement
BRIEF = 0.05  # if an update takes less than this many seconds, more of them are timed
LISTED = Sizes(50_000, 5_000, 10_000)  # approximate inputs of the datasets in the paper's figures
# The arithmetic of a training relative to a matrix product of the same duration; above 1 if fewer operations are needed
# than counted. Measured by `lth bench` and benchmarks/conv_speed.py; without compiled kernels about half.
REACHED = {"lenet": 1.0, "resnet18": 0.75}
CONVOLUTIONS = 1.5  # other networks
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
PRODUCT = 768  # rows and columns of the timed product


# ------------------------------------------------------------------------------------------------------------- measured


def paces(setup: Setup, densities: Mapping[int, float]) -> dict[int, Pace]:
    """The pace at each level, given its density: measured at both ends and interpolated linearly in between.

    Both measurements together take about a second, whatever the size of the network.
    """
    low, high = min(densities.values()), max(densities.values())
    ends = [measured(setup, density) for density in sorted({low, high})]

    def between(density: float) -> Pace:
        share = (density - low) / (high - low) if high > low else 0.0
        first, last = ends[0], ends[-1]
        return Pace(*(a + (b - a) * share for a, b in zip(astuple(first), astuple(last), strict=True)))

    return {level: between(density) for level, density in densities.items()}


def measured(setup: Setup, density: float) -> Pace:
    """Seconds on this machine, from a few updates and an evaluation under a random mask of this density."""
    model = setup.model()
    drawn = generator(0, "estimate")
    start = setup.draw(drawn)
    mask = {
        name: torch.rand(start[name].shape, generator=drawn) < density
        for name in groups_of(setup.experiment.model, model)
    }
    engine = engine_for(setup, model, masks.apply(mask, start), mask, setup.experiment.recipe, ("estimate",))
    engine.advance(1)  # the first update, which is slower
    updates, seconds = 1, min(timed(lambda to=to: engine.advance(to)) for to in (2, 3))
    if seconds < BRIEF:
        updates, seconds = 20, timed(lambda: engine.advance(23))
    evaluation = timed(lambda: engine.evaluate("validation"))
    return Pace(seconds / updates, evaluation / setup.experiment.data.validation)


def timed(work: Callable[[], object]) -> float:
    """The seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def sample(experiment: Experiment, data: Data) -> tuple[Experiment, Data]:
    """The experiment with fewer validation examples, and only as many examples of the data as `measured` needs."""
    validation = min(SAMPLED, experiment.data.validation)
    trained = min(len(data.train_x) - experiment.data.validation, max(SAMPLED, experiment.recipe.batch))
    options = experiment.data.model_copy(update={"validation": validation})
    shown = slice(trained + validation)
    few = replace(data, train_x=data.train_x[shown], train_y=data.train_y[shown])
    few = replace(few, test_x=data.test_x[:SAMPLED], test_y=data.test_y[:SAMPLED])
    return experiment.model_copy(update={"data": options}), few


# -------------------------------------------------------------------------------------------------------- by arithmetic


def estimator(workers: int) -> Callable[[Experiment, Training], float]:
    """A function that returns the seconds of a training, divided by the number of parallel workers."""
    product = cache(product_speed)

    def seconds(experiment: Experiment, training: Training) -> float:
        pace = by_arithmetic(experiment, training, product)
        return work(training.recipe, pace, LISTED) / workers

    return seconds


def by_arithmetic(experiment: Experiment, training: Training, product: Callable[[str], float]) -> Pace:
    """Seconds on this machine, from the arithmetic of surviving weights and the speed of a matrix product."""
    model, recipe = experiment.model, training.recipe
    wide = model.name == "lenet" or recipe.precision == "float32" or not hardware("cpu")
    precision = "float32" if wide else "bfloat16"
    products = per_example(model) / (share(model.name, precision) * product(precision))
    if model.name == "lenet" and available():
        products *= density_at(experiment, training.level) + 0.02  # the rest of an update
    return Pace(6 * products * recipe.batch, 2 * products)


def share(model: str, precision: str) -> float:
    """The fraction of a matrix product's speed that trainings of a model reach."""
    compiled = available() if model == "lenet" else precision == "bfloat16" and kernels.core() is not None
    return REACHED.get(model, CONVOLUTIONS) / (1 if compiled else 2)


def density_at(experiment: Experiment, level: int) -> float:
    """The approximate density at a level, ignoring layers with other pruning rates."""
    prune = experiment.prune
    if prune.densities:
        return prune.densities[level - 1] if level else 1.0
    if experiment.strategy == "oneshot":
        return 1 - prune.rates[level - 1] if level and prune.rates else (1 - prune.rate) ** level
    return math.prod(1 - rate for rate in prune.rates[:level]) if prune.rates else (1 - prune.rate) ** level


def per_example(model: Model) -> int:
    """The number of multiplications in one forward pass of one example."""
    return _per_example(model.model_dump_json())


@cache
def _per_example(tables: str) -> int:
    model = Model.model_validate_json(tables)
    shape = MNIST if model.name == "lenet" else CIFAR
    count = 0

    def add(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal count
        count += module.weight.numel() * (output[0].numel() // len(module.weight))  # at all positions or tokens

    network = build(model, shape, 10).eval()  # not on "meta", for which torch imports modules for two seconds
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    return count


def product_speed(precision: str) -> float:
    """Floating-point operations per second of a matrix product on one thread."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.ones(PRODUCT, PRODUCT, dtype=kind) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def seconds() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - begin

    try:
        return 2 * PRODUCT**3 / min(seconds() for _ in range(8))
    finally:
        torch.set_num_threads(before)


# ----------------------------------------------------------------------------------------------------------------- disk


def bytes_of(setup: Setup, levels: Levels) -> Callable[[Training], float]:
    """The approximate size of a training on disk: start, mask, trained weights, and one line per evaluation in two
    files.

    Unless `store.keep` is all, one training per trial at a time has trained weights: the first one in this estimate.
    """
    tensors = [t for t in setup.model().state_dict().values() if t.ndim]
    recipe = setup.experiment.recipe
    lines = cache(lambda iterations: len(evaluations(recipe.model_copy(update={"iterations": iterations}))))
    weights = cache(lambda level: sum(bytes_at(t.numel(), levels.density(level)) for t in tensors))
    bits = sum(t.numel() for t in tensors) / 8

    def about(training: Training) -> float:
        files = 1 + (setup.experiment.store.keep == "all" or not training.needs)
        return files * weights(training.level) + bits + 8000 + 150 * lines(training.recipe.iterations)

    return about
