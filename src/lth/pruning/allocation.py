"""How many weights each layer loses on the way to a level. Pure functions of counts, independent of weight values.

A pool is a set of layers whose weights compete with each other: one layer per pool (`layerwise`), or all prunable
layers in one pool (`global`). A budget states how many surviving weights each pool loses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import floor

from lth.config import GROUPS, Experiment, Prune
from lth.errors import UsageError

Pools = list[tuple[tuple[str, ...], float]]  # the layers of a pool, and their rate
Budget = list[tuple[tuple[str, ...], int]]  # the layers of a pool, and how many weights they lose
Counts = Mapping[str, int]  # surviving weights of each layer


def rates(groups: Mapping[str, str], prune: Prune) -> dict[str, float]:
    """The rate of each prunable layer. Layers that are never pruned are left out (figure 2's last row)."""
    by_group: dict[str, float] = dict.fromkeys(GROUPS, prune.rate)
    by_group |= {"conv": prune.conv_rate or prune.rate, "output": prune.rate * prune.output_factor}
    return {name: by_group[group] for name, group in groups.items() if group in prune.pruned and by_group[group] > 0}


def budget(
    alive: Mapping[str, int], total: int, groups: Mapping[str, str], experiment: Experiment, level: int
) -> Budget:
    """How many weights each pool loses on the way to `level`.

    `alive` are the surviving weights of each layer of the network that is pruned, `total` the counted weights, alive or
    not. A pool with `n` alive loses floor(n * rate + 0.5); with explicit densities the rates are solved so that
    floor(density * total + 0.5) weights remain overall and the layers keep the ratio of their rates.
    """
    prune = experiment.prune
    rate = rates(groups, prune)
    if prune.densities:
        surplus = sum(alive.values()) - floor(prune.densities[level - 1] * total + 0.5)
        lose = _solve({name: alive[name] for name in rate}, rate, surplus)
        return [(tuple(lose), sum(lose.values()))] if prune.scope == "global" else [((n,), k) for n, k in lose.items()]
    return removals(alive, pools({name: _rate(experiment, level, r) for name, r in rate.items()}, prune.scope))


def _rate(experiment: Experiment, level: int, rate: float) -> float:
    """The fraction of its surviving weights that a layer with this rate loses on the way to `level`."""
    prune = experiment.prune
    if prune.rates:
        return min(1.0, prune.rates[level - 1] * (rate / prune.rate))
    if experiment.strategy == "oneshot":  # the same density as after `level` rounds, in one step
        return 1 - (1 - rate) ** level
    return rate


def share(count: int, rate: float) -> int:
    """How many of `count` surviving weights a pool with this rate loses."""
    return floor(count * rate + 0.5)


def pools(rates: Mapping[str, float], scope: str) -> Pools:
    """One pool per layer or, with scope "global", one pool per rate. Layers with rate 0 are left out."""
    pruned = {name: rate for name, rate in rates.items() if rate > 0}
    if scope == "global":
        return [(tuple(n for n, r in pruned.items() if r == rate), rate) for rate in dict.fromkeys(pruned.values())]
    return [((name,), rate) for name, rate in pruned.items()]


def removals(alive: Counts, pools: Pools) -> Budget:
    """How many of its surviving weights each pool loses."""
    return [(names, share(sum(alive[name] for name in names), rate)) for names, rate in pools]


def after(alive: Counts, lose: Budget, least: Counts | None = None) -> dict[str, int]:
    """The surviving weights after a budget is removed. `least` is the minimum that the structure leaves in each layer.

    For a pool of several layers only the sum is exact, because the scores decide which layer loses how many. Raises
    UsageError naming the layers of a pool that cannot lose as many.
    """
    remaining = dict(alive)
    for names, count in lose:
        for name in names:
            taken = min(count, remaining[name] - (least or {}).get(name, 0))
            remaining[name] -= taken
            count -= taken
        if count:
            raise UsageError(f"{', '.join(names)} cannot lose {count:,} more weights: the structure keeps the others")
    return remaining


@dataclass(frozen=True)
class Advice:
    """What to change if a level is impossible, in the terms of the interface that was used."""

    levels: str  # with {} for the number
    rate: str


def descend(
    first: Counts,
    levels: int,
    lose: Callable[[Counts, int], Budget],
    prunable: Collection[str],
    advice: Advice,
    from_first: bool = False,
    least: Counts | None = None,
) -> list[dict[str, int]]:
    """The surviving weights of each layer at levels 0, 1, ..., `levels`, computed before any training.

    `lose` returns the budget of a level, given the counts of the previous level or, with `from_first`, of level 0.
    `least` is the minimum that the structure leaves in each layer. Raises UsageError at a level that would remove
    nothing, leave no weight in the `prunable` layers, or remove more than the structure allows.
    """
    counts = [dict(first)]
    for level in range(1, levels + 1):
        before = counts[0] if from_first else counts[-1]
        try:
            counts.append(after(before, lose(before, level), least))
        except UsageError as error:
            raise UsageError(f"level {level}: {error}; give {advice.levels.format(level - 1)}") from None
        _check_level(level, counts[-2], counts[-1], prunable, advice)
    return counts


def _check_level(level: int, before: Counts, now: Counts, prunable: Collection[str], advice: Advice) -> None:
    fewer = f"give {advice.levels.format(level - 1)}"
    if sum(now.values()) >= sum(before.values()):
        remaining = f"{sum(before[name] for name in prunable):,} weights remain in {len(before)} layers"
        raise UsageError(f"level {level} would remove nothing: {remaining}; {fewer} or a higher {advice.rate}")
    if not any(now[name] for name in prunable):
        raise UsageError(f"level {level} would leave no weight; {fewer} or a lower {advice.rate}")


def _solve(alive: Mapping[str, int], rate: Mapping[str, float], surplus: int) -> dict[str, int]:
    """Distribute `surplus` removals over layers at rates t * rate, at most 1, solved for t. The total is exact."""
    surplus = max(0, min(surplus, sum(alive.values())))
    wish = lambda t: {name: alive[name] * min(1.0, t * rate[name]) for name in alive}
    low, high = 0.0, 1 / min(rate.values(), default=1.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(wish(middle).values()) < surplus else (low, middle)
    wished = wish(high)
    lose = {name: floor(w) for name, w in wished.items()}
    by_remainder = sorted(
        alive, key=lambda name: lose[name] - wished[name]
    )  # stable sort: the earlier layer comes first on ties
    step = 1 if sum(lose.values()) < surplus else -1
    for name in (by_remainder if step > 0 else by_remainder[::-1]) * 2:
        if sum(lose.values()) != surplus and 0 <= lose[name] + step <= alive[name]:
            lose[name] += step
    return lose


def ladder(
    sizes: Mapping[str, int],
    groups: Mapping[str, str],
    experiment: Experiment,
    first: Mapping[str, int] | None = None,
    least: Mapping[str, int] | None = None,
) -> list[int]:
    """The remaining weights at levels 0, 1, ..., `experiment.levels`, computed before any training.

    `first` has the weights of each layer at level 0, if level 0 is a ticket; `least` the minimum that the structure
    leaves in each. Raises UsageError at a level that would remove nothing from the network or leave none of it, and for
    settings of groups that the network does not have.
    """
    _fitting(groups, experiment.prune)
    total = sum(sizes.values())
    counts = descend(
        first or sizes,
        experiment.levels,
        lambda alive, level: budget(alive, total, groups, experiment, level),
        rates(groups, experiment.prune),
        Advice("--levels {}", "prune.rate"),
        from_first=experiment.strategy == "oneshot",
        least=least,
    )
    return [sum(alive.values()) for alive in counts]


def _fitting(groups: Mapping[str, str], prune: Prune) -> None:
    has = [group for group in GROUPS if group in groups.values()]
    if absent := [group for group in prune.groups or () if group not in has]:
        raise UsageError(f"prune.groups names {', '.join(absent)}, but the network's are {', '.join(has)}")
    if prune.conv_rate is not None and "conv" not in has:
        raise UsageError(f"prune.conv_rate = {prune.conv_rate:g}, but the network has no convolution; leave it out")
