"""A custom model, from a Python file: `my.py:build`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lth.config import userfile
from lth.errors import UsageError

Build = Callable[[], nn.Module]

_shares: dict[tuple[Any, ...], bool] = {}  # results of `_shares_tensors` by function and arguments


def builder(name: str, shape: tuple[int, ...], classes: int, sha256: str | None = None) -> Build:
    """A function that builds the module of `name` (FILE.py:FUNCTION), with new tensors in each call.

    The user's function gets `shape` (of an input without the batch) and `classes` or `outputs` (the number of outputs)
    if it has parameters with these names, and may draw from the global generators. Modules, parameters and buffers that
    it keeps between calls are copied. `sha256` is the recorded checksum of the file; a different file is not run.
    Raises UsageError if the function is missing or fails.
    """
    function = userfile.function(name, sha256, key="model.name")
    build = partial(_built, name, function, shape, classes)
    key = (name, function, shape, classes)
    if key not in _shares:
        _shares[key] = _shares_tensors(build(), build())
    return partial(_copied, name, build) if _shares[key] else build


def _built(name: str, function: Callable[..., Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    model = userfile.call(
        name, function, {"shape": lambda: shape, "classes": lambda: classes, "outputs": lambda: classes}
    )
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")
    return model


def _copied(name: str, build: Build) -> nn.Module:
    try:
        return copy.deepcopy(build())
    except Exception as error:  # any exception of the module's own code
        raise UsageError(
            f"{name} returns tensors that it keeps between calls, and its module cannot be copied "
            f"({type(error).__name__}: {userfile.first_line(error)}): build a new module in each call"
        ) from error


def _shares_tensors(one: nn.Module, other: nn.Module) -> bool:
    """Return whether training one of two modules would change the other."""
    return not {*_identities(one)}.isdisjoint(_identities(other))


def _identities(model: nn.Module) -> Iterator[tuple[str, int]]:
    """The ids of all parameters and buffers, and of the memory that they use."""
    for tensor in (*model.parameters(), *model.buffers()):
        yield "object", id(tensor)
        if not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta":
            yield "memory", tensor.untyped_storage().data_ptr()


def check_outputs(name: str, model: nn.Module, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return the module, in training mode. Raises UsageError if it does not map inputs to [batch, classes].

    In regression, the outputs may have another shape with as many values.
    """
    if extra := [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise UsageError(f"{name}: {extra[0]} is not a tensor, and a run stores only tensors; use lth.find_tickets")
    with _failures_named(f"{name} on inputs of {shape}", model), torch.no_grad():
        outputs = model.eval()(
            torch.zeros(2, *shape, dtype=torch.float32)
        )  # the dtype of data, whatever the default dtype is
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != (2,) or outputs.numel() != 2 * classes:
        given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"{name} takes a batch of 2 inputs of {shape} to {given}, expected (2, {classes})")
    return model.train()


@contextmanager
def _failures_named(what: str, model: nn.Module) -> Iterator[None]:
    """Like `userfile.failures_named`, with a hint if weights and inputs have different dtypes."""
    others = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} - {torch.float32}
    try:
        with userfile.failures_named(what):
            yield
    except UsageError as error:
        if not others:
            raise
        dtypes = ", ".join(sorted(map(str, others)))
        cure = f"its weights are {dtypes}, and inputs torch.float32: build it in float32, or convert in its forward()"
        raise UsageError(error.fault, cure=cure) from error


def reset(model: nn.Module) -> None:
    """Draw new weights from the global generator with `reset_parameters` of each module that has it.

    Submodules come first, as in construction: nn.MultiheadAttention draws weights for its parts.
    """
    for module in reversed(list(model.modules())):
        for name in ("reset_parameters", "_reset_parameters"):
            if callable(method := getattr(module, name, None)):
                method()
