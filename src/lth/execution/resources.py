"""The resources of a run: engine, device, precision, threads. They are resolved once and then kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lth.config import TASKS, Experiment, is_custom
from lth.errors import UsageError
from lth.models import architecture, build
from lth.training import native_engine
from lth.training.bfloat16 import kernels
from lth.training.precision import resolve


@dataclass(frozen=True)
class Resources:
    """The object "means" in environment.json. Equal resources give equal bits."""

    engine: str
    device: str
    precision: str
    threads: int
    processes: int = 1  # processes that share a training, with torchrun


def choose(
    experiment: Experiment, shape: tuple[int, ...], classes: int, engine: str, device: str
) -> tuple[Resources, str]:
    """Choose the resources for an experiment by fixed rules. Returns them and a line with the reason.

    Raises UsageError if a requested resource is not available.
    """
    device = _device(engine, device)
    model = build(experiment.model, shape, classes)
    task = experiment.data.task
    uncompiled = None if TASKS[task].compiled else f"data.task is {task}"
    obstacle = uncompiled or native_engine.obstacle(experiment.recipe, model, device)
    if engine == "native" and obstacle:
        raise UsageError(f"--engine native: {obstacle}; give --engine torch")
    chosen = "torch" if engine == "torch" or obstacle else "native"
    reason = "asked for" if engine != "auto" else obstacle or "the network is a chain of Linear and ReLU, on the CPU"
    if chosen == "native":
        return Resources(chosen, device, "float32", threads=1), reason
    precision, why = _precision(experiment, model, device)
    return Resources(chosen, device, precision, threads=1), f"{reason}; {precision}: {why}"


def _device(engine: str, device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device was found; give --device cpu")
    if device == "auto":
        device = "cuda" if engine != "native" and torch.cuda.is_available() else "cpu"
    if engine == "native" and device != "cpu":
        raise UsageError(f"--engine native runs on the CPU, not on {device}; give --device cpu or --engine torch")
    return device


def _precision(experiment: Experiment, model: nn.Module, device: str) -> tuple[str, str]:
    """The precision of the torch engine, and the reason."""
    asked = experiment.recipe.precision
    if experiment.recipe.compile and experiment.model.dropout:
        raise UsageError("recipe.compile would compile dropout again for each update; leave out one of them")
    if is_custom(experiment.model.name):
        if asked == "bfloat16":
            raise UsageError("recipe.precision = bfloat16 is for the models of `lth list models`; leave it out")
        return "float32", "a custom model"
    if asked == "auto" and not TASKS[experiment.data.task].load().correct:
        return "float32", "outputs are numbers, of which bfloat16 has three digits"
    if asked == "auto" and not architecture(experiment.model.name).bfloat16:
        return "float32", f"the default of {experiment.model.name}"
    precision, why = resolve(asked, model, device)
    if precision == "bfloat16" and device == "cpu":
        why += f", {kernels.format_support()}"
    return precision, why
