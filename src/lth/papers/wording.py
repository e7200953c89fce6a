"""Format measures as text."""

from __future__ import annotations

from lth.papers.claims import Kind
from lth.papers.intervals import Measured


def format_value(kind: Kind, value: float) -> str:
    """`2.16 times`, `19.5% earlier`, `+0.41 points`, `98.37%`."""
    if kind == "earlier":
        return f"{100 * abs(value):.1f}% {'later' if value < 0 else 'earlier'}"
    unit = {"times": " times", "points": " points", "accuracy": "%"}[kind]
    return format_number(kind, value) + unit


def format_number(kind: Kind, value: float) -> str:
    """The number without its unit."""
    if kind == "times":
        return f"{value:.2f}"
    if kind == "earlier":
        return f"{100 * value:.1f}"
    return f"{100 * value:+.2f}" if kind == "points" else f"{100 * value:.2f}"


def format_measured(kind: Kind, measured: Measured) -> str:
    """`+0.41 points ± 0.12 (+0.30 to +0.52, n = 5)`: the mean, half of its interval, and the range over trials.

    For a quotient, the ends of the interval: `2.16 times [1.85, 2.66] (1.80 to 2.61, n = 5)`.
    """
    low, high = (format_number(kind, value) for value in (measured.min, measured.max))
    if measured.n == 1:
        return f"{format_value(kind, measured.mean)} (n = 1)"
    trials = f"({low} to {high}, n = {measured.n})"
    if kind in ("times", "earlier"):  # not symmetric
        ends = (format_number(kind, end) for end in (measured.low, measured.high))
        return f"{format_value(kind, measured.mean)} [{', '.join(ends)}] {trials}"
    return f"{format_value(kind, measured.mean)} ± {100 * measured.half:.2f} {trials}"
