"""How many weights each layer loses on the way to a level. Pure functions of counts: no weight is looked at.

A pool is a set of layers whose weights compete with each other: each layer its own pool (`layerwise`), or all prunable
layers in one (`global`). A budget says how many surviving weights each pool loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor

from lth.config import GROUPS, Experiment, Prune
from lth.errors import UsageError

Budget = list[tuple[tuple[str, ...], int]]


def rates(groups: Mapping[str, str], prune: Prune) -> dict[str, float]:
    """Each prunable layer's rate; layers that are never pruned are left out (figure 2's last row)."""
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
    if prune.scope == "global":
        one = max(rate.values(), default=0.0)  # config has seen to it that all of them are the same
        return [(tuple(rate), share(sum(alive[name] for name in rate), _rate(experiment, level, one)))]
    return [((name,), share(alive[name], _rate(experiment, level, r))) for name, r in rate.items()]


def _rate(experiment: Experiment, level: int, rate: float) -> float:
    """The share that a layer of this rate loses, of the pruned network's surviving weights, on the way to `level`."""
    prune = experiment.prune
    if prune.rates:
        return min(1.0, prune.rates[level - 1] * (rate / prune.rate))
    if experiment.strategy == "oneshot":  # straight to where `level` rounds would have led
        return 1 - (1 - rate) ** level
    return rate


def share(count: int, rate: float) -> int:
    """How many of `count` surviving weights a pool of this rate loses."""
    return floor(count * rate + 0.5)


def _solve(alive: Mapping[str, int], rate: Mapping[str, float], surplus: int) -> dict[str, int]:
    """Split `surplus` removals over layers at rates t * rate, t solved; a rate stops at 1. Exact in total."""
    surplus = max(0, min(surplus, sum(alive.values())))
    wish = lambda t: {name: alive[name] * min(1.0, t * rate[name]) for name in alive}
    low, high = 0.0, 1 / min(rate.values(), default=1.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(wish(middle).values()) < surplus else (low, middle)
    wished = wish(high)
    lose = {name: floor(w) for name, w in wished.items()}
    by_remainder = sorted(alive, key=lambda name: lose[name] - wished[name])  # stable: ties to the earlier layer
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
    """The weights that remain at levels 0, 1, ..., `experiment.levels`: known before any training.

    `first` are those of each layer at level 0, where it is a ticket and not the unpruned network; `least` the fewest
    that the structure leaves in each layer. Raises UsageError at a level that would remove nothing from the whole
    network, leave nothing of it, or less than the structure allows, and for groups that the network does not have.
    """
    _fitting(groups, experiment.prune)
    total = sum(sizes.values())
    alive = first = dict(first or sizes)
    remaining = [sum(alive.values())]
    for level in range(1, experiment.levels + 1):
        before = first if experiment.strategy == "oneshot" else alive
        alive = dict(before)
        for pool, count in budget(before, total, groups, experiment, level):
            # which layers of a global pool lose is not known yet; the sum is all that its next budget asks for
            for name in pool:
                taken = min(count, alive[name] - (least or {}).get(name, 0))
                alive[name] -= taken
                count -= taken
            if count and least:
                raise UsageError(
                    f"level {level} would remove more of {', '.join(pool)} than prune.structure = "
                    f"{experiment.prune.structure} allows; give --levels {level - 1} or fewer weights to remove"
                )
        remaining.append(sum(alive.values()))
        if remaining[level] >= remaining[level - 1]:
            raise UsageError(
                f"level {level} would remove nothing: {remaining[level - 1]} weights remain at level {level - 1}; "
                f"give --levels {level - 1} or a higher prune.rate"
            )
        if remaining[level] == 0 or not any(alive[name] for name in rates(groups, experiment.prune)):
            raise UsageError(f"level {level} would leave no weight; give --levels {level - 1} or a lower prune.rate")
    return remaining


def _fitting(groups: Mapping[str, str], prune: Prune) -> None:
    has = [group for group in GROUPS if group in groups.values()]
    if absent := [group for group in prune.groups or () if group not in has]:
        raise UsageError(f"prune.groups names {', '.join(absent)}, but the network's are {', '.join(has)}")
    if prune.conv_rate is not None and "conv" not in has:
        raise UsageError(f"prune.conv_rate = {prune.conv_rate:g}, but the network has no convolution; leave it out")
