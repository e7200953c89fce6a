"""About how long trainings take: one formula, and what it needs to know of the pace. No torch here.

The pace is `relative`, in updates of the dense network (for the time left of work whose pace is seen as it goes), or in
seconds of this machine, `measured` or `by_arithmetic` (see `lth.execution.pace`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lth.config import Recipe
from lth.plan import evaluations

# A native update costs about this much plus the density, in units of a dense one.
NATIVE_FLOOR = 0.06


class Sizes(NamedTuple):
    """Examples of each split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Pace:
    """Seconds, or any other unit of work, of one update, and of evaluating one example."""

    update: float
    example: float


def work(recipe: Recipe, pace: Pace, sizes: Sizes) -> float:
    """What a training takes: its updates, its evaluations, and those of the weights at early stop and at the end."""
    tested = [with_test for _, with_test in evaluations(recipe)]
    evaluated = sizes.validation * len(tested) + sizes.test * (sum(tested) + 1)
    evaluated += 2 * sizes.train * recipe.train_accuracy
    return recipe.iterations * pace.update + evaluated * pace.example


def format_duration(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def relative(density: float, engine: str, batch: int) -> Pace:
    """In dense updates; an example's forward pass is a third of its part of an update."""
    update = min(1.0, density + NATIVE_FLOOR) if engine == "native" else 1.0
    return Pace(update, update / (3 * batch))
