"""A custom model, from a Python file: `my.py:build`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth.config import userfile
from lth.errors import UsageError


def build(name: str, shape: tuple[int, ...], classes: int, sha256: str | None = None) -> nn.Module:
    """The module that the function of `name` (FILE.py:FUNCTION) returns; it may draw from the global generator.

    The function is given `shape`, of an input without the batch, and `classes`, if it has parameters of these names.
    `sha256` is of the file as the experiment was made with it; another file is never run.
    Raises UsageError for a missing or failing function, and where the module does not map inputs to [batch, classes].
    """
    make = userfile.function(name, sha256, key="model.name")
    model = userfile.call(name, make, {"shape": lambda: shape, "classes": lambda: classes})
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")
    if extra := [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise UsageError(f"{name}: {extra[0]} is no tensor, which is all that a run stores; use lth.find_tickets")
    with userfile.failures_named(f"{name} on inputs of {shape}"), torch.no_grad():
        outputs = model.eval()(torch.zeros(2, *shape))
    if not isinstance(outputs, Tensor) or outputs.shape != (2, classes):
        given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"{name} takes a batch of 2 inputs of {shape} to {given}, expected (2, {classes})")
    return model.train()
