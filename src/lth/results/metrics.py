"""The metrics by which networks are judged: accuracy, or loss in a task without accuracy. One entry each.

Tables, verdict, figures and report take columns, direction, margins and words from here. All margins were fixed before
any result was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth.config import TASKS, Experiment
from lth.results.intervals import Interval, difference, quotient


@dataclass(frozen=True)
class Metric:
    """A quantity on the test set, by its `name` in columns, and how two networks are compared by it.

    Two networks are equal within `margin`, and a ticket matches the whole network within `tolerance`: in the metric's
    unit or, if `relative`, as a fraction of the other network's value. Tables show `unit` times a value in the format
    `form`.
    """

    name: str
    plural: str
    relative: bool  # lower is better, and differences are fractions
    margin: float
    tolerance: float
    unit: float
    form: str  # factor for values in tables
    sign: str  # after a value
    equal: str
    sides: tuple[str, str]  # for a better and a worse ticket
    difference: str  # unit of a difference
    best: str
    kind: str  # for "no ticket is as ... as the whole network"

    @property
    def at_early_stop(self) -> str:
        return f"test_{self.name}_at_early_stop"

    @property
    def final(self) -> str:
        return f"final_test_{self.name}"

    def column(self, of_accuracy: str) -> str:
        """The column that replaces a column of accuracies."""
        return of_accuracy.replace("accuracy", self.name)

    def text(self, value: float) -> str:
        """`97.89%`, `0.01234`."""
        return f"{self.number(value)}{self.sign}"

    def number(self, value: float) -> str:
        """A value for a table whose head has the unit."""
        return format(self.unit * value, self.form)

    def size(self, gain: float) -> str:
        """A gain in points, or in percent of the other network's value."""
        points = 100 * gain
        return f"{points:.1f}" if abs(points) >= 0.095 else f"{points:.2f}"

    def amount(self, share: float) -> str:
        """A margin in words: `0.5 points`, `5%`."""
        return f"{100 * share:g}{'%' if self.relative else ' points'}"

    def gain(self, tickets: Sequence[float], others: Sequence[float]) -> Interval:
        """How much better tickets are than other networks, paired by trial: a difference, or a fraction."""
        if not self.relative:
            return difference(tickets, others)
        if min(*tickets, *others) <= 0:  # a loss of exactly 0 has no quotient
            each = [_share(t, o) for t, o in zip(tickets, others, strict=True)]
            value = _share(math.fsum(tickets), math.fsum(others))
            return Interval(value, -math.inf, 1.0, min(each), max(each), len(each))
        r = quotient(tickets, others)
        return Interval(1 - r.value, 1 - r.high, 1 - r.low, 1 - r.greatest, 1 - r.least, r.n)

    def reversed(self, gain: Interval) -> Interval:
        """The gain from the other network's side."""
        turn = _share_of_other if self.relative else lambda difference: -difference
        least, greatest = turn(gain.greatest), turn(gain.least)
        return Interval(turn(gain.value), turn(gain.high), turn(gain.low), least, greatest, gain.n)

    def betters(self, tickets: Sequence[float], others: Sequence[float]) -> list[float]:
        """How much better each ticket is; the mean is the value of `gain`."""
        if not self.relative:
            return [t - o for t, o in zip(tickets, others, strict=True)]
        mean = math.fsum(others) / len(others)
        return [_share(mean + t - o, mean) for t, o in zip(tickets, others, strict=True)]

    def scale(self, others: Sequence[float]) -> float:
        """The divisor of values before they are tested: losses may have any magnitude, and tests round at 1e-9."""
        return (math.fsum(others) / len(others) if self.relative else 1.0) or 1.0

    def within(self, ticket: float, other: float) -> tuple[float, float, float]:
        """How much better a ticket is, and the remaining margin below and above: linear in both values."""
        if self.relative:
            wide = 1 + self.margin
            return other - ticket, wide * other - ticket, wide * ticket - other
        return ticket - other, self.margin + ticket - other, self.margin - ticket + other

    def of_constant(self, best: float, chance: float, examples: int) -> bool:
        """Return whether the best network is no better than a constant answer with the score `chance`."""
        if self.relative:
            return best >= (1 - self.margin) * chance
        return best <= chance + 3 * math.sqrt(chance * (1 - chance) / examples)


def _share(ticket: float, other: float) -> float:
    """The fraction of the other's loss by which a ticket's loss is lower."""
    return 1 - ticket / other if other else (0.0 if ticket == other else -math.inf)


def _share_of_other(gain: float) -> float:
    """The fraction from the other network's side: 1 - o/t from 1 - t/o."""
    return -math.inf if gain == 1 else 1 - 1 / (1 - gain)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "accuracy", "accuracies", relative=False, margin=0.002, tolerance=0.005, unit=100, form=".2f", sign="%",
        equal="about equally accurate", sides=("higher", "lower"), difference=" points", best="Most accurate",
        kind="accurate",
    ),
    "loss": Metric(
        "loss", "losses", relative=True, margin=0.02, tolerance=0.05, unit=1, form=".4g", sign="",
        equal="about equal in loss", sides=("lower", "higher"), difference="%", best="Lowest loss",
        kind="low in loss",
    ),
}  # fmt: skip
ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]


def metric_of(experiment: Experiment) -> Metric:
    """The metric of an experiment."""
    return METRICS[TASKS[experiment.data.task].metric]


def metrics_of(experiments: Sequence[Experiment]) -> list[Metric]:
    """The metrics of several experiments, each once."""
    return list(dict.fromkeys(map(metric_of, experiments))) or [ACCURACY]


def metric_in(summary: Mapping[str, Any]) -> Metric | None:
    """The metric of a training, from its summary; None if it has no such value."""
    return next((metric for metric in METRICS.values() if summary.get(metric.at_early_stop) is not None), None)
