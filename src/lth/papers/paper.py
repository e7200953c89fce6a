"""A paper as a value: everything that a run is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from lth.papers.claims import Claim
from lth.papers.curves import Curve
from lth.papers.setups import Setup

# a column of curves.csv, and a function of its iterations and values: a derived column of summary.csv
Derived = tuple[str, Callable[[np.ndarray, np.ndarray], float]]


@dataclass(frozen=True, eq=False)
class Paper:
    """The claims and curves of a paper.

    `order`: its figures; a curve that several of them show is taken from the first. `by_test`: figures in which early
    stop is at the minimum of the test loss. `derived`: derived columns of summary.csv for claims, by name.
    `dense_of`: the setup whose curve shows the unpruned network if a setup's own curve does not.
    """

    cite: str
    curves: tuple[Curve, ...]
    claims: tuple[Claim, ...]
    order: tuple[str, ...]
    by_test: tuple[str, ...] = ()
    derived: Mapping[str, Derived] = field(default_factory=dict)
    dense_of: Callable[[Setup], Setup | None] = lambda of: None

    def claims_of(self, setup: Setup) -> tuple[Claim, ...]:
        """The claims about this setup, in the paper's order."""
        return tuple(claim for claim in self.claims if claim.setup == setup)


@cache
def known_setups(paper: Paper) -> tuple[Setup, ...]:
    """All setups that occur in a curve or a claim of the paper."""
    setups = (*(curve.setup for curve in paper.curves), *(claim.setup for claim in paper.claims))
    return tuple(dict.fromkeys(setups))


@cache
def plotted_setups(paper: Paper) -> tuple[Setup, ...]:
    """All setups that occur in a curve of the paper."""
    return tuple(dict.fromkeys(curve.setup for curve in paper.curves))
