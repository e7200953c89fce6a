"""Histograms with equal bins, and their union."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 40


def edges(limit: float, centred: bool) -> np.ndarray:
    """The edges of the bins: from -limit to limit, or from 0 if not `centred`."""
    return np.linspace(-limit if centred else 0, limit, BINS + 1)


def pooled(
    limits: Sequence[float] | np.ndarray, counts: Sequence[Sequence[float]] | np.ndarray, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The union of several histograms: the edges of its bins, and the count in each.

    The values in a bin are assumed to be evenly distributed in it.
    """
    common = edges(max(limits), centred)
    pairs = zip(limits, counts, strict=True)
    below = [np.interp(common, edges(limit, centred), [0.0, *np.cumsum(part)]) for limit, part in pairs]
    return common, np.diff(np.sum(below, axis=0))
