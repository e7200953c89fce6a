"""Means of a measure over trials, with 95% intervals: Student's t, and Fieller's theorem for quotients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lth.papers.claims import Kind
from lth.results.intervals import Interval, difference, quotient


@dataclass(frozen=True)
class Measured:
    """A measure over n trials: its mean, 95% interval (nan to nan for one trial), minimum and maximum.

    The interval of a quotient is not symmetric, and may have no upper end (infinity).
    """

    mean: float
    low: float
    high: float
    min: float
    max: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def over_trials(kind: Kind, a: np.ndarray, b: np.ndarray | None = None) -> Measured:
    """A measure of the paired values of trials.

    A quotient of early-stop iterations is the quotient of their means over trials, as in the papers' figures.
    """
    first = a.tolist()
    if kind in ("times", "earlier") and b is not None:
        ratio = _measured(quotient(first, b.tolist()))
        return ratio if kind == "times" else _one_minus(ratio)
    return _measured(difference(first, [0.0] * len(first) if b is None else b.tolist()))


def _measured(interval: Interval) -> Measured:
    value = min(
        max(interval.value, interval.least), interval.greatest
    )  # rounding can put the mean of equal values outside of their range
    return Measured(value, interval.low, interval.high, interval.least, interval.greatest, interval.n)


def _one_minus(m: Measured) -> Measured:
    return Measured(1 - m.mean, 1 - m.high, 1 - m.low, 1 - m.max, 1 - m.min, m.n)
