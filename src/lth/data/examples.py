"""A dataset in memory, and the validation of arrays from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lth.data.classes import Order, by_number, numbered
from lth.data.targets import class_fault, class_hint, from_zero, number_fault, range_fault
from lth.errors import UsageError

_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Data:
    """A whole dataset.

    x: uint8 (pixels in 0..255) or float32, [n, channels, height, width], or [n, features] for plain vectors. y: int64
    [n] in 0..classes-1. `class_names` are the class names in that order; empty if classes are only numbers. In
    regression, y is float32 [n, values], and `classes` is the number of values. It is always the number of outputs of a
    network.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    class_names: tuple[str, ...] = ()


def digest(data: Data) -> str:
    """A SHA-256 of all examples: equal for equal numbers of equal types, whatever file they come from."""
    sha256 = hashlib.sha256()
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def from_arrays(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    class_names: Sequence[str] = (),
    order: Order = by_number,
    task: str = "classification",
) -> Data:
    """A dataset from arrays. Raises UsageError naming an invalid array and what was expected.

    x may be uint8 or finite floats of shape [n, features], [n, h, w], [n, h, w, c] or [n, c, h, w]; in the last two,
    the channels are the smaller of axes 1 and 3 (axis 1 if they are equal) and at most 4. y may be integers [n], with
    classes from 0 to the largest label, or text [n], with the labels in `order` as classes. Each class needs an example
    in y_train. With the task regression, y may be finite floats of any shape [n, ...].
    """
    train_x, test_x = _images(x_train, f"{name}: x_train"), _images(x_test, f"{name}: x_test")
    if (train_x.dtype, train_x.shape[1:]) != (test_x.dtype, test_x.shape[1:]):
        raise UsageError(
            f"{name}: x_train is {train_x.dtype} of shape {x_train.shape}, x_test {test_x.dtype} of shape "
            f"{x_test.shape}; expected the same type and, but for the number of examples, the same shape"
        )
    if task == "regression":
        return _of_numbers(name, (train_x, y_train), (test_x, y_test))
    if y_train.dtype.kind in "US" and y_test.dtype.kind in "US":
        class_names, y_train, y_test = numbered(y_train, y_test, order, name)
    train_y = _labels(y_train, len(train_x), name, "y_train")
    test_y = _labels(y_test, len(test_x), name, "y_test")
    return Data(name, train_x, train_y, test_x, test_y, _count_classes(train_y, test_y, name), tuple(class_names))


def _of_numbers(name: str, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Data:
    (train_x, y_train), (test_x, y_test) = train, test
    train_y, test_y = _values(y_train, len(train_x), name, "y_train"), _values(y_test, len(test_x), name, "y_test")
    if y_train.shape[1:] != y_test.shape[1:]:
        raise UsageError(
            f"{name}: y_train has shape {y_train.shape}, y_test {y_test.shape}; expected the same shape but for the "
            "number of examples"
        )
    return Data(name, train_x, train_y, test_x, test_y, train_y.shape[1])


def _values(y: np.ndarray, examples: int, name: str, key: str) -> np.ndarray:
    """Targets as float32 [n, values]."""
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite and are refused
        numbers = y.astype(np.float32) if y.dtype.kind == "f" else y
    if fault := number_fault(numbers, examples, key):
        raise UsageError(f"{name}: {key} {fault}")
    numbers = numbers.reshape(examples, -1)
    numbers.setflags(write=False)
    return numbers


def _images(x: np.ndarray, name: str) -> np.ndarray:
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise UsageError(
            f"{name} has shape {x.shape}, expected [n, features], [n, h, w], [n, h, w, c] or [n, c, h, w] without zeros"
        )
    x = _channels_first(_numbers(x, name), name)
    x.setflags(write=False)
    return x


def _numbers(x: np.ndarray, name: str) -> np.ndarray:
    if x.dtype == np.uint8:
        return x.view()
    if x.dtype.kind != "f":
        pixels = x.dtype.kind in "iu" and 0 <= int(x.min()) <= int(x.max()) <= 255 and int(x.max()) > 1
        mend = "x.astype('float32')" + (", or x.astype('uint8') for pixels" if pixels else "")
        raise UsageError(f"{name} is of type {x.dtype}, expected uint8 (pixels in 0..255) or float32: {mend}")
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite and are refused
        numbers = x.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UsageError(
            f"{name} holds values that are not finite as float32 (NaN or infinite); expected finite numbers"
        )
    return numbers


def _channels_first(x: np.ndarray, name: str) -> np.ndarray:
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if min(x.shape[1], x.shape[3]) > _MOST_CHANNELS:
        raise UsageError(
            f"{name} has shape {x.shape}: neither axis 1 nor axis 3 can be the channels, of which there are "
            f"{_MOST_CHANNELS} at most"
        )
    return x if x.shape[1] <= x.shape[3] else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _labels(y: np.ndarray, examples: int, name: str, key: str) -> np.ndarray:
    if fault := class_fault(y, (examples,), key):
        raise UsageError(f"{name}: {key} {fault}{class_hint(y)}")
    if int(y.max()) > np.iinfo(np.int64).max:
        raise UsageError(f"{name}: {key} holds the label {int(y.max())}, expected 0 and up")
    labels = y.astype(np.int64)
    labels.setflags(write=False)
    return labels


def _count_classes(train_y: np.ndarray, test_y: np.ndarray, name: str) -> int:
    """The number of classes. Raises UsageError if they are not numbered from 0 without gaps."""
    present = np.unique(train_y)
    if len(present) < 2:
        raise UsageError(f"{name}: y_train holds one class only ({present[0]}), expected two or more")
    low, high = int(present[0]), int(present[-1])
    if (low, high) != (0, len(present) - 1):
        raise UsageError(f"{name}: {_gap(present)}; {_renumbered(low, high, len(present))}")
    if range_fault(int(test_y.min()), int(test_y.max()), len(present)):
        worst = int(test_y.min()) if test_y.min() < 0 else int(test_y.max())
        raise UsageError(
            f"{name}: y_test holds the label {worst}, which no example in y_train has; expected labels 0 to {high}"
        )
    return len(present)


def _gap(present: np.ndarray) -> str:
    if present[0] < 0:
        return f"y_train holds the label {present[0]}, expected 0 and up, without gaps"
    missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
    return (
        f"y_train has labels up to {present[-1]} but no example of class {missing}; "
        "expected classes numbered from 0 without gaps"
    )


def _renumbered(low: int, high: int, count: int) -> str:
    if from_zero(low, high, count):
        return f"save y_train = {from_zero(low, high, count, 'y_train')} and y_test likewise"
    return "save y_train.astype('U') and y_test.astype('U'): classes that are text may have any names"
