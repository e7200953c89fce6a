"""The requirements on targets, and expressions that convert them, for dataset files and for data from Python."""

from __future__ import annotations

import numpy as np

from lth.config import shown


def class_fault(y: np.ndarray, shape: tuple[int, ...], given: str = "y") -> str | None:
    """Describe why `y` is not a tensor of classes of this shape, with an expression that converts it; None if it is.

    `given` is the user's name of the array in that expression.
    """
    kind = "text" if y.dtype.kind in "US" else str(y.dtype)
    if y.dtype.kind in "iu" and y.shape == shape:
        return None
    cure = class_expression(y, shape, given)
    if y.shape != shape:
        mend = f": {cure}" if cure else ": one class for each example of x"
        return f"has shape {y.shape}, expected {shape}{mend}"
    mend = f": {cure}" if cure else ", which number the classes from 0"
    return f"is of type {kind}, expected integers{mend}"


def class_expression(y: np.ndarray, shape: tuple[int, ...], given: str = "y") -> str | None:
    """An expression that converts `y` to integer classes of this shape; None if there is no simple one."""
    if y.dtype.kind in "USO":
        return f"np.unique({given}, return_inverse=True)[1]"
    if y.shape == (*shape, 1):
        y, given = y[..., 0], f"{given}[..., 0]" if y.ndim > 2 else f"{given}[:, 0]"
    elif y.ndim == len(shape) + 1 and y.shape[0] == shape[0] and is_one_hot(y):
        return f"{given}.argmax(1)"
    if y.shape != shape or not whole(y):
        return None
    return given if y.dtype.kind in "iu" else f"{given}.astype('int64')"


def is_one_hot(y: np.ndarray) -> bool:
    """Return whether each row along axis 1 has a single 1 among zeros."""
    return bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def whole(y: np.ndarray) -> bool:
    """Return whether all numbers are integers, whatever their dtype."""
    return y.dtype.kind != "f" or bool(np.isfinite(y).all() and (y == np.floor(y)).all())


def range_fault(low: int, high: int, classes: int, given: str = "y") -> str | None:
    """Describe what is wrong with classes from `low` to `high` if there are `classes` of them; None if they fit."""
    if low >= 0 and high < classes:
        return None
    cure = from_zero(low, high, classes, given)
    return f"holds labels from {low} to {high}, expected 0 to {classes - 1}" + (f": {cure}" if cure else "")


def from_zero(low: int, high: int, classes: int, given: str = "y") -> str | None:
    """An expression that numbers the classes from 0; None if a shift is not sufficient."""
    if (low, high) == (-1, 1) and classes == 2:
        return f"({given} > 0).astype('int64')"
    if low in (-1, 1) and high - low < classes:
        return f"{given} + 1" if low < 0 else f"{given} - 1"
    return None


def class_hint(y: np.ndarray) -> str:
    """A hint if targets that should be classes are other numbers; empty if they are not."""
    return "; for targets that are numbers, data.task=regression" if y.dtype.kind == "f" and not whole(y) else ""


def number_fault(y: np.ndarray, examples: int, given: str = "y") -> str | None:
    """Describe why `y` is not one floating-point target per example; None if it is."""
    if y.dtype.kind in "US":
        return "holds text, which is for data.task=classification; expected floating-point numbers"
    if y.dtype.kind != "f":
        return (
            f"is of type {y.dtype}: if it holds classes, leave out data.task=regression; else {given}.astype('float32')"
        )
    if not y.ndim or len(y) != examples or 0 in y.shape:
        return f"has shape {y.shape}, expected ({examples}, ...): a target for each example of x"
    return value_fault(y)


def value_fault(y: np.ndarray) -> str | None:
    """Describe why a loss cannot be computed from `y`; None if it can."""
    if y.dtype.kind not in "fiub":
        return f"is of type {y.dtype}, expected numbers"
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(y))[0]))
        return f"holds {shown(float(y[place]))} at {list(place)}, expected finite numbers"
    return None
