"""Convert arrays of other libraries to tensors: NumPy, pandas, lists, and the examples of a Dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth.config import shown
from lth.errors import UsageError

NUMBERS = "buifc"  # NumPy's kinds of numeric dtypes


def tensor(values: Any, name: str, floats: torch.dtype) -> Tensor:
    """The values as a tensor (pandas by position): floating-point numbers as `floats`, other numbers as int64.

    Inputs, whose `name` ends in x, keep bytes, booleans and complex numbers. Raises UsageError naming an array that
    does not consist of numbers.
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
            f"{name} is a sparse or nested tensor, which cannot be divided into batches: {name[-1]}.to_dense()"
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
    """The array in a form that torch accepts: native byte order, writable, no negative strides."""
    if values.dtype.kind == "O":
        values = _of_objects(values, name)
    if values.dtype.kind not in NUMBERS:
        raise _no_numbers(values, name)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return values if values.flags.writeable else values.copy()  # torch warns about read-only memory


def _of_objects(values: np.ndarray, name: str) -> np.ndarray:
    """Convert an array of Python objects, such as pandas creates, to the type of its numbers."""
    missing = np.argwhere([value is None or value != value for value in values.ravel()])  # NaN does not equal itself
    if len(missing) and values.size:
        raise UsageError(f"{name} lacks a value: number {missing[0][0]:,} is {shown(values.flat[missing[0][0]])}")
    try:
        return np.array(values.tolist())
    except ValueError:
        raise _no_numbers(values, name) from None


def _no_numbers(values: Any, name: str) -> UsageError:
    """The error for values that cannot be a tensor: text, examples of different shapes, or something else."""
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
    """Two different shapes of examples; None if all have the same shape."""
    try:
        shapes = [np.shape(value) for value in values]
    except ValueError:  # a single example is ragged
        return None
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    return f"{shapes[0]} and {other}" if other is not None else None
