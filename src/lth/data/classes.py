"""The names of classes in the order of the network's outputs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from lth.config import nearest, shown
from lth.errors import UsageError

Order = Callable[[Iterable[str]], tuple[str, ...]]  # sort the names of a dataset's classes
MOST_LETTERS, MOST_TEXT = 255, 1_000_000  # maximum characters of a name, and of all names together
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")


def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Sort by value if all names are numbers (2 before 10), else as text."""
    names = by_text(names)
    return tuple(sorted(names, key=float)) if all(map(_NUMBER.fullmatch, names)) else names


def by_text(names: Iterable[str]) -> tuple[str, ...]:
    """Sort as text (10 before 2): the order of version 0.1."""
    return tuple(sorted(names))


def recorded(record: Sequence[str]) -> Order:
    """The order in data.classes."""
    return partial(_as_recorded, tuple(record))


def in_ticket(record: tuple[str, ...], same_data: bool) -> Order:
    """The order with which a ticket was found: the recorded one, or that of version 0.1, which did not record it.

    By number if it was found on other data.
    """

    def order(names: Iterable[str]) -> tuple[str, ...]:
        names = by_text(names)
        if sorted(record) == sorted(names):
            return record
        return names if same_data and not record else by_number(names)

    return order


def _as_recorded(record: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    names = by_number(names)
    if sorted(record) == sorted(names):
        return record
    if lost := [name for name in record if name not in names]:
        raise UsageError(
            f"data.classes names {shown(lost[0])}, and no class is called so{nearest(lost[0], names)}; "
            f"the data have {format_names(names)}"
        )
    missing = [name for name in names if name not in record]
    raise UsageError(f"data.classes lacks {format_names(missing)}: name every class, or leave data.classes out")


def of_folder(name: str) -> str:
    """A folder's name as text that any file can contain: bytes that are not valid UTF-8 are written as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def format_names(names: Sequence[str], most: int = 5) -> str:
    """The first names in one line, and the number of others."""
    texts = [name if name.isprintable() else ascii(name) for name in names]
    few = [text if len(text) <= 40 else f"{text[:37]}..." for text in texts[:most]]
    return ", ".join(few) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def numbered(
    y_train: np.ndarray, y_test: np.ndarray, order: Order, name: str
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The class names of text labels, and the labels as indices into them, in the same shapes.

    Raises UsageError if a test label has no training example, or labels cannot be names.
    """
    (train_names, train_places), (test_names, test_places) = (_unique(y, name) for y in (y_train, y_test))
    if len({*train_names}) < len(train_names):
        raise UsageError(f"{name}: two labels of y_train differ in characters that are no text; write them otherwise")
    if lost := [label for label in test_names if label not in {*train_names}]:
        raise UsageError(f"{name}: y_test holds {shown(lost[0])}, which no example in y_train has")
    names = order(train_names)
    place = {label: n for n, label in enumerate(names)}
    of = lambda labels: np.array([place[label] for label in labels], dtype=np.int64)
    return names, of(train_names)[train_places], of(test_names)[test_places]


def _unique(y: np.ndarray, name: str) -> tuple[list[str], np.ndarray]:
    """The distinct labels as text, and the index of each example's label among them."""
    labels, places = np.unique(y, return_inverse=True)
    longest = labels.dtype.itemsize // (4 if labels.dtype.kind == "U" else 1)
    if longest > MOST_LETTERS or len(labels) * longest > MOST_TEXT:
        raise UsageError(
            f"{name}: y holds {len(labels):,} different texts of up to {longest:,} characters; expected names of "
            f"classes, of {MOST_LETTERS} characters at most and {MOST_TEXT:,} together"
        )
    codes = np.dtype("u4").newbyteorder(labels.dtype.byteorder)
    if labels.dtype.kind == "U" and labels.view(codes).max() > sys.maxunicode:  # Python cannot convert it to text
        raise UsageError(f"{name}: y holds characters that are no text")
    return [_text(label) for label in labels.tolist()], places.reshape(y.shape)


def _text(label: str | bytes) -> str:
    content = label if isinstance(label, bytes) else label.encode("utf-8", "surrogatepass")
    return content.decode("utf-8", "backslashreplace")
