"""Arrays of anybody's making as tensors: NumPy's and pandas's, lists, and what a Dataset's examples hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth.config import shown
from lth.errors import UsageError

NUMBERS = "buifc"  # NumPy's kinds of numbers


def tensor(values: Any, name: str, floats: torch.dtype) -> Tensor:
    """The values as a tensor, pandas's by position: of `floats` where they are floating-point numbers, else int64.

    Inputs, whose `name` ends in x, stay bytes, booleans or complex numbers where they are. Raises UsageError naming
    what is no array of numbers.
    """
    if callable(getattr(values, "to_numpy", None)):
        values = values.to_numpy()
    if isinstance(values, np.ndarray):
        values = _native(values, name)
    try:
        made = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, KeyError, OverflowError):
        raise _no_numbers(values, name) from None
    if made.layout != torch.strided or made.is_nested:
        raise UsageError(
            f"{name} is a sparse or nested tensor, of which batches cannot be taken: {name[-1]}.to_dense()"
        )
    if not made.dim():
        raise UsageError(f"{name} is a single number: expected one for each example")
    return _typed(made, name, floats)


def _typed(made: Tensor, name: str, floats: torch.dtype) -> Tensor:
    is_input = name.endswith("x")
    if made.is_floating_point():
        return made.to(floats)
    if made.is_complex():
        if not is_input:
            raise UsageError(f"{name} holds complex numbers: expected whole or floating-point ones, such as y.real")
        return made.to(torch.complex128 if floats == torch.float64 else torch.complex64)
    return made if is_input and made.dtype in (torch.uint8, torch.bool) else made.long()


def _native(values: np.ndarray, name: str) -> np.ndarray:
    """The array in a form that torch takes: numbers in this machine's byte order, writable, and no reversed view."""
    if values.dtype.kind == "O":
        values = _of_objects(values, name)
    if values.dtype.kind not in NUMBERS:
        raise _no_numbers(values, name)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return values if values.flags.writeable else values.copy()  # torch warns of memory that it may not write


def _of_objects(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers that are kept as Python's objects, as pandas does, by their own type."""
    missing = np.argwhere([value is None or value != value for value in values.ravel()])  # NaN is not itself
    if len(missing) and values.size:
        raise UsageError(f"{name} lacks a value: number {missing[0][0]:,} is {shown(values.flat[missing[0][0]])}")
    try:
        return np.array(values.tolist())
    except ValueError:
        raise _no_numbers(values, name) from None


def _no_numbers(values: Any, name: str) -> UsageError:
    """The error for what cannot be a tensor: text, examples of different shapes, or something else."""
    axis = name[-1]
    several = isinstance(values, list | tuple | np.ndarray)
    first = next(iter(np.ravel(np.asarray(values, dtype=object))), None) if several and len(values) else None
    if isinstance(first, str | bytes):
        mend = "classes, y = np.unique(y, return_inverse=True)" if axis == "y" else "expected an array of numbers"
        return UsageError(f"{name} holds text ({shown(first)}): {mend}")
    if shapes := _shapes(values) if several else None:
        return UsageError(f"{name} holds examples of the shapes {shapes}: pad or cut them to one shape")
    held = f" of {type(first).__name__}" if first is not None else ""
    return UsageError(f"{name} is {type(values).__name__}{held}: expected an array or a tensor of numbers")


def _shapes(values: Any) -> str | None:
    """Two shapes of which there are examples; None where all have one."""
    try:
        shapes = [np.shape(value) for value in values]
    except ValueError:  # an example is ragged itself
        return None
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    return f"{shapes[0]} and {other}" if other is not None else None
