"""The curves of a paper as values, and the quantities that they show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from lth.papers.setups import Setup

if TYPE_CHECKING:
    from lth.papers.paper import Paper


@dataclass(frozen=True)
class Curve:
    """A series of a figure: a mean at each x, and the ends of its error bar (the mean itself if no bar is known).

    x is the percentage of weights remaining, and `level` the level there. If x is the iteration, `level` is empty and
    `percent` is the percentage of weights of the network.
    """

    figure: str
    panel: str
    series: str
    setup: Setup
    role: str  # ticket, or the name of a branch: reinit, random-mask, noise-0.5, ...
    column: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: tuple[int, ...] = ()
    percent: float | None = None

    @property
    def means(self) -> dict[int, float]:
        """The mean at each level."""
        return dict(zip(self.level, self.mean, strict=True))


class Key(NamedTuple):
    """The quantity of a curve against density."""

    setup: Setup
    role: str
    column: str


@cache
def by_density(paper: Paper, figures: Collection[str] | None = None) -> dict[Key, Curve]:
    """The curves against density of `figures` (default: `paper.order`), by their quantity.

    A curve that several figures show is taken from the first of them, in the paper's order.
    """
    order = (*paper.order, *paper.by_test)
    figures = paper.order if figures is None else figures
    first: dict[Key, Curve] = {}
    for curve in sorted((c for c in paper.curves if c.level), key=lambda c: order.index(c.figure)):
        if curve.figure in figures:
            first.setdefault(Key(curve.setup, curve.role, curve.column), curve)
    return first


@cache
def roles(paper: Paper) -> tuple[str, ...]:
    """The roles that the curves of a paper show."""
    return tuple(dict.fromkeys(curve.role for curve in paper.curves))


def comparable(column: str, other_length: bool, scheduled: bool) -> bool:
    """Return whether a column of a run with another length than the paper's can be compared with the paper's.

    The values at early stop can, if the learning rate is constant: the longer training then begins like the shorter
    one. The values at a fixed iteration cannot.
    """
    return not other_length or (not scheduled and "early_stop" in column)


def latest_early_stop(paper: Paper, of: Setup, role: str, level: int) -> float:
    """The latest early stop of the paper's trainings there, by its error bar.

    A training that ends later would have had the same early stop. Infinite if the curve has no point at the level,
    because curves leave the plotted range upwards; 0 if no figure shows the early stops of a role, or none up to that
    level.
    """
    for figures in (paper.order, paper.by_test):
        if curve := by_density(paper, figures).get(Key(of, role, "early_stop_iteration")):
            latest = dict(zip(curve.level, curve.high, strict=True))
            return latest.get(level, math.inf if level > curve.level[0] else 0.0)
    return 0.0


def part(curve: Curve, percents: Collection[float]) -> Curve:
    """The part of a curve against density within the range of a run, so that it does not stretch the axis."""
    least, most = 0.99 * min(percents), 1.01 * max(percents)
    return points(curve, [least <= x <= most for x in curve.x])


def points(curve: Curve, selected: Sequence[bool]) -> Curve:
    """A curve against density at the selected points."""
    parts = {name: getattr(curve, name) for name in ("x", "mean", "low", "high", "level")}
    return replace(curve, **{name: tuple(itertools.compress(values, selected)) for name, values in parts.items()})
