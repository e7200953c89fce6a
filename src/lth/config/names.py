"""Suggest valid names for invalid ones, and format values for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean X?" if a similar name exists, else empty."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """Like `nearest`, for a key whose table may be missing: for `lr`, "; did you mean 'recipe.lr'?"."""
    whole = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    close = [] if "." in key else difflib.get_close_matches(key, whole, n=1, cutoff=0.7)
    return f"; did you mean {whole[close[0]]!r}?" if close else nearest(key, known)


def shown(value: Any) -> str:
    """A value for messages: on one line, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


CONTROL = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {
    9,
    10,
}  # including changes of text direction


def printable(text: str) -> str:
    """A text for the terminal, with control characters, which could move its cursor, escaped."""
    return text.translate({code: f"\\u{code:04x}" for code in CONTROL})
