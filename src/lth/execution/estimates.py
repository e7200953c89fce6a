"""Estimate the time of trainings with one formula and a pace. No torch here.

The pace is `relative`, in updates of the dense network (for the time left during a run), or in seconds on this machine,
`measured` or `by_arithmetic` (see `lth.execution.pace`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lth.config import Recipe
from lth.plan import evaluations

# a native update costs this constant plus the density, in units of a dense update
NATIVE_FLOOR = 0.06


class Sizes(NamedTuple):
    """The number of examples of each split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Pace:
    """The time, in seconds or another unit, of one update and of evaluating one example."""

    update: float
    example: float


def work(recipe: Recipe, pace: Pace, sizes: Sizes) -> float:
    """The work of a training: its updates, its evaluations, and those of the weights at early stop and at the end."""
    tested = [with_test for _, with_test in evaluations(recipe)]
    evaluated = sizes.validation * len(tested) + sizes.test * (sum(tested) + 1)
    evaluated += 2 * sizes.train * recipe.train_accuracy
    return recipe.iterations * pace.update + evaluated * pace.example


def format_duration(seconds: float) -> str:
    """A duration for readers: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def relative(density: float, engine: str, batch: int) -> Pace:
    """In dense updates; the forward pass of an example is a third of its part of an update."""
    update = min(1.0, density + NATIVE_FLOOR) if engine == "native" else 1.0
    return Pace(update, update / (3 * batch))
