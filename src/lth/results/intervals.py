"""Statistics of means over trials: intervals of differences and quotients, p-values, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
NORMAL = 1.959964
ROUNDING = 1e-9  # sums of fractions such as 0.9793 differ in their last bits


@dataclass(frozen=True)
class Interval:
    """A value over n trials, its 95% interval (nan to nan for one trial), and the range of single trials."""

    value: float
    low: float
    high: float
    least: float
    greatest: float
    n: int

    @property
    def inverse(self) -> Interval:
        """The interval of the inverse quotient."""
        invert = lambda x: math.inf if x == 0 else 1 / x
        low, high, least, greatest = map(invert, (self.high, self.low, self.greatest, self.least))
        return Interval(invert(self.value), low, high, least, greatest, self.n)


def student(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t, to four digits."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return NORMAL + (NORMAL**3 + NORMAL) / (4 * freedom) + (5 * NORMAL**5 + 16 * NORMAL**3) / (96 * freedom**2)


def tail(t: float, freedom: int) -> float:
    """The probability that Student's t exceeds `t`; exact for whole degrees of freedom.

    The finite sums are 26.7.3 and 26.7.4 of Abramowitz and Stegun, Handbook of Mathematical Functions.
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(abs(t), math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):  # 1, 3, ... for even degrees of freedom, 2, 4, ... for odd
        total += term
        term *= cosine**2 * k / (k + 1)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    above = max(0.0, (1 - inside) / 2)
    return above if t >= 0 else 1 - above


def exceeds(values: Sequence[float], bound: float) -> float:
    """The one-sided p-value of a mean above `bound`; nan for one value."""
    n = len(values)
    if n < 2:
        return math.nan
    mean, error = _mean(values) - bound, _error(values)
    if error <= ROUNDING * max(1.0, abs(bound)):  # equal values have no variance
        return 0.0 if mean > ROUNDING else 1.0
    return tail(mean / error, n - 1)


def average(values: Sequence[float]) -> Interval:
    """The mean with its interval by Student's t."""
    return difference(values, [0.0] * len(values))


def difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The mean of a - b, paired by trial, with its interval by Student's t."""
    each = [x - y for x, y in zip(a, b, strict=True)]
    n, mean = len(each), _mean(each)
    half = student(n - 1) * _error(each) if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half, min(each), max(each), n)


def quotient(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The mean of a over the mean of b, both positive and paired by trial, with its interval by Fieller's theorem.

    The interval contains each quotient r for which the mean of a - r * b does not differ from 0 by Student's t. So the
    interval of b over a is the inverse of that of a over b. If the trials give no bound, it begins at 0 or ends at
    infinity.
    """
    each = [x / y for x, y in zip(a, b, strict=True)]
    n, value = len(each), _mean(a) / _mean(b)
    low, high = _fieller(a, b) if n > 1 else (math.nan, math.nan)
    return Interval(value, low, high, min(each), max(each), n)


def _fieller(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The smallest interval that contains all positive solutions r of (A - r B)^2 <= t^2 var(A - r B)."""
    n, mean_a, mean_b = len(a), _mean(a), _mean(b)
    factor = student(n - 1) ** 2 / (n * (n - 1))
    squares = lambda x, y, mx, my: factor * math.fsum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
    aa, bb = mean_a**2 - squares(a, a, mean_a, mean_a), mean_b**2 - squares(b, b, mean_b, mean_b)
    ab = mean_a * mean_b - squares(a, b, mean_a, mean_b)  # now: bb r^2 - 2 ab r + aa <= 0
    root = math.sqrt(max(0.0, ab**2 - aa * bb))
    if bb > 0:
        # the smaller root from the product of both, which avoids cancellation
        high = (ab + root) / bb
        low = aa / (ab + root) if ab + root > 0 else 0.0
        return max(0.0, low), high
    if aa > 0:  # the mean of b may be 0: there is only a lower bound
        return aa / (ab + root) if ab + root > 0 else 0.0, math.inf
    return 0.0, math.inf


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method, in the same order. NaN stays and is not counted."""
    order = sorted((p, i) for i, p in enumerate(values) if not math.isnan(p))
    corrected, least = [math.nan] * len(values), 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        corrected[i] = least
    return corrected


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _error(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    n, mean = len(values), _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
