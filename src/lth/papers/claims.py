"""Claims as values: which trainings are compared, by which measure and rules; and functions to write them.

The text of a claim states the paper's fact in our words, with its numbers. The value of its figure is computed from
the paper's curves by the same measures as the run's value, so that it cannot be mistyped. Levels stand for densities:
level 7 of LeNet is 21.1% of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lth.papers.setups import Setup

Kind = Literal["times", "earlier", "points", "accuracy"]
Rule = Literal["near", "side", "above", "held", "same"]
Rules = tuple[Rule, ...]

NEAR: Rules = ("near",)
SIDE: Rules = ("near", "side")
ABOVE: Rules = ("above",)
HELD: Rules = ("held",)
SAME: Rules = ("same",)
BOTH: Rules = ("near", "above")

ES, TEST, VAL = "early_stop_iteration", "test_accuracy_at_early_stop", "val_accuracy_at_early_stop"
LAST, TRAIN = "final_test_accuracy", "final_train_accuracy"


@dataclass(frozen=True)
class Term:
    """The trainings of a role at a level, or at all levels of a range, and the column to read; `of`: another run's."""

    role: str
    level: int | tuple[int, int]
    column: str
    of: Setup | None = None

    @property
    def levels(self) -> tuple[int, ...]:
        return (self.level,) if isinstance(self.level, int) else tuple(range(self.level[0], self.level[1] + 1))


@dataclass(frozen=True)
class Check:
    """A measure of one or two terms, and the rules that it must pass.

    Kinds: `times` is a over b; `earlier` is the fraction of b by which a is smaller; `points` is a minus b; `accuracy`
    is a itself. The value for no difference is 1 for `times` and 0 for the others.

    Rules: `near`: the mean is within the tolerance of the paper's figure. `side`: the interval is not entirely on the
    other side of no difference than the figure (the tolerance may reach across). `above`: the whole interval is above
    no difference. `held`: the mean is no lower than no difference minus the tolerance. `same`: the mean is within the
    tolerance of no difference.
    """

    kind: Kind
    a: Term
    b: Term | None
    rules: Rules
    what: str = ""

    @property
    def terms(self) -> tuple[Term, ...]:
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def null(self) -> float:
        """The value of no difference."""
        return 1.0 if self.kind == "times" else 0.0


@dataclass(frozen=True)
class Claim:
    """A claim about one experiment of a paper.

    Its values are taken from `figures`. A claim without checks cannot be measured, and `lacks` gives the reason.
    """

    id: str
    section: str
    setup: Setup
    text: str
    figures: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    note: str = ""  # what else the figure shows, where text and figure disagree
    lacks: str = ""


# -------------------------------------------------------------------------------------------------- how to write checks


def ticket(level: int | tuple[int, int], column: str, of: Setup | None = None) -> Term:
    return Term("ticket", level, column, of)


def reinit(level: int | tuple[int, int], column: str) -> Term:
    return Term("reinit", level, column)


def random_mask(level: int | tuple[int, int], column: str) -> Term:
    return Term("random-mask", level, column)


def times(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """The quotient of a and b."""
    return Check("times", a, b, rules, what)


def earlier(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """The fraction of b by which a is earlier."""
    return Check("earlier", a, b, rules, what)


def gain(a: Term, b: Term, rules: Rules, what: str = "") -> Check:
    """The points by which a is more accurate than b."""
    return Check("points", a, b, rules, what)


def accuracy(a: Term, rules: Rules = NEAR, what: str = "") -> Check:
    return Check("accuracy", a, None, rules, what)


def sooner(level: int, rules: Rules = BOTH, what: str = "") -> Check:
    """How many times sooner the ticket reaches early stop than the unpruned network."""
    return times(ticket(0, ES), ticket(level, ES), rules, what)


def better(level: int | tuple[int, int], rules: Rules = BOTH, what: str = "", column: str = TEST) -> Check:
    """The points by which the ticket is more accurate than the unpruned network."""
    return gain(ticket(level, column), ticket(0, column), rules, what)


def over_reinit(level: int, rules: Rules, what: str = "", column: str = TEST) -> Check:
    """The points by which the ticket is more accurate than its reinit."""
    return gain(ticket(level, column), reinit(level, column), rules, what)
