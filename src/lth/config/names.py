"""The nearest of the valid names to one that does not exist, and values as messages show them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean X?" where something near exists, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The same for a key whose table may have been left out: for `lr`, "; did you mean 'recipe.lr'?"."""
    whole = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    close = [] if "." in key else difflib.get_close_matches(key, whole, n=1, cutoff=0.7)
    return f"; did you mean {whole[close[0]]!r}?" if close else nearest(key, known)


def shown(value: Any) -> str:
    """A value as messages show it: on one line, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


CONTROL = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}  # also of direction


def printable(text: str) -> str:
    """A text as a terminal may be given it: control characters, which could move its cursor, are written out."""
    return text.translate({code: f"\\u{code:04x}" for code in CONTROL})
