"""The learning rate as a pure function of the update: warmup, then one of the schedules below."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from lth.config import Recipe
from lth.config.registry import SCHEDULES
from lth.errors import UsageError

Schedule = Callable[
    [Recipe, int], float
]  # (recipe, update) -> factor of recipe.lr after warmup; updates are counted from 0


def lr_at(recipe: Recipe, update: int) -> float:
    """The learning rate of update `update`, counted from 0: linear warmup times the recipe's schedule.

    Warmup goes "from 0 to the initial rate over k iterations" (section 4). Here the n-th update has n / k of the rate,
    so that no update has rate 0, and the k-th has the full rate, even if a drop follows at once.
    """
    warm = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    return recipe.lr * warm * _named(recipe.schedule)(recipe, update)


@cache
def _named(name: str) -> Schedule:
    if name not in SCHEDULES:
        raise UsageError(f"unknown schedule {name!r}; give one of: {', '.join(SCHEDULES)}")
    return SCHEDULES[name].load()


def steps(recipe: Recipe, update: int) -> float:
    """Division by 10 at each of `drops` (section 4), from the update after its iteration."""
    return 0.1 ** sum(update >= drop for drop in recipe.drops)


def cosine(recipe: Recipe, update: int) -> float:
    """Cosine decay from 1 to 0 (Loshchilov & Hutter, SGDR, 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * _progress(recipe, update)))


def linear(recipe: Recipe, update: int) -> float:
    """Linear decay from 1 to 0."""
    return 1 - _progress(recipe, update)


def _progress(recipe: Recipe, update: int) -> float:
    """The fraction of the iterations after warmup that precede an update; below 1 for the last one."""
    after_warmup = max(1, recipe.iterations - recipe.warmup)
    return min(1.0, max(0.0, (update - recipe.warmup) / after_warmup))
