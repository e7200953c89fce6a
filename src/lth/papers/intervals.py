"""Means of a measure over trials, with 95% intervals by Student's t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lth.papers.claims import Kind

# Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
NORMAL = 1.959964


@dataclass(frozen=True)
class Measured:
    """A measure over n trials: its mean, 95% interval (nan to nan for one trial), least and greatest value."""

    mean: float
    low: float
    high: float
    min: float
    max: float
    n: int

    @property
    def half(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2


def over_trials(kind: Kind, a: np.ndarray, b: np.ndarray | None = None) -> Measured:
    """A measure of the paired values of trials.

    A quotient of early-stop iterations is the quotient of their means over trials, as in the papers' figures; its
    interval is that of the trials' contributions to it in first order.
    """
    if b is None:
        return _student(a, a)
    if kind == "points":
        return _student(a - b, a - b)
    quotient = a.mean() / b.mean()
    contributions = quotient + (a - quotient * b) / b.mean()  # their mean is the quotient
    if kind == "earlier":
        return _student(1 - contributions, 1 - a / b)
    return _student(contributions, a / b)


def _student(values: np.ndarray, each: np.ndarray) -> Measured:
    n, mean = len(values), float(values.mean())
    half = student(n - 1) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    least, greatest = float(each.min()), float(each.max())
    mean = min(max(mean, least), greatest)  # rounding can put the mean of equal values outside
    return Measured(mean, mean - half, mean + half, least, greatest, n)


def student(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t, to four digits."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + (NORMAL**3 + NORMAL) / (4 * freedom) + (5 * NORMAL**5 + 16 * NORMAL**3) / (96 * freedom**2)
