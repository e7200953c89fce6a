"""The learning rate as a pure function of the update."""

from __future__ import annotations

from lth.config import Recipe


def lr_at(recipe: Recipe, update: int) -> float:
    """The learning rate of update `update`, counted from 0: linear warmup, then tenfold drops (section 4).

    Warmup goes "from 0 to the initial rate over k iterations": the n-th update has n / k of it. So the rate would be 0
    before the first update, no update is wasted, and the k-th has the whole of it, also where a drop follows at once.
    """
    drops = sum(update >= drop for drop in recipe.drops)
    warm = min(1.0, (update + 1) / recipe.warmup) if recipe.warmup else 1.0
    return recipe.lr * warm * 0.1**drops
