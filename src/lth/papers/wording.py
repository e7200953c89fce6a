"""Measures in words."""

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
    """`2.16 times ± 0.40 (1.80 to 2.61, n = 5)`: the mean, half of its interval, and the extremes over trials."""
    low, high = (format_number(kind, value) for value in (measured.min, measured.max))
    if measured.n == 1:
        return f"{format_value(kind, measured.mean)} (n = 1)"
    half = f"{measured.half:.2f}" if kind == "times" else f"{100 * measured.half:.{1 if kind == 'earlier' else 2}f}"
    return f"{format_value(kind, measured.mean)} ± {half} ({low} to {high}, n = {measured.n})"
