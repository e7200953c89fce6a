"""Derived columns of summary.csv for claims about the shape of curves (appendix C)."""

from __future__ import annotations

import math

import numpy as np

from lth.papers.paper import Derived


def last_over_least(iterations: np.ndarray, values: np.ndarray) -> float:
    """The last value divided by the minimum."""
    return float(values[-1] / values.min())


def reaches(iterations: np.ndarray, values: np.ndarray) -> float:
    """The first iteration at which the value is 97.5% or more; NaN if there is none."""
    above = values >= 0.975
    return float(iterations[above][0]) if above.any() else math.nan


DERIVED: dict[str, Derived] = {
    "last_val_loss_over_least": ("val_loss", last_over_least),
    "iteration_of_97.5%": ("test_accuracy", reaches),
}
