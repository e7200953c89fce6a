"""The tables of a run in sentences, also if no level wins, there is one trial alone, or much is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lth.plan import plan
from lth.results.captions import format_at_chance, format_percent
from lth.results.records import Records
from lth.results.statistics import branch_order, family, winning_level

EQUAL_ACCURACY = 5e-5  # half of the last digit that a sentence shows
EQUAL_TIME = 0.005


@dataclass(frozen=True)
class Pairs:
    """A level's tickets beside level 0, over the trials that have both: each trial's accuracies and early stops."""

    level: int
    percent: float
    accuracy: tuple[tuple[float, float], ...]  # of (level 0, ticket), test accuracy at early stop
    early_stop: tuple[tuple[float, float], ...]

    @property
    def n(self) -> int:
        return len(self.accuracy)

    @property
    def gain(self) -> float:
        """The mean gain in accuracy, a fraction."""
        return sum(ticket - dense for dense, ticket in self.accuracy) / self.n

    @property
    def sooner(self) -> float:
        """How many times sooner the tickets' early stop comes: the ratio of the means."""
        return sum(dense for dense, _ in self.early_stop) / sum(ticket for _, ticket in self.early_stop)


def headline(run: Records) -> str:
    """The main finding in a sentence."""
    levels = pairs(run.summary)
    winning = winning_level(run.summary)
    if not len(run.summary):
        return "Nothing is trained yet."
    if winning is not None and winning in levels:
        pair = levels[winning]
        return f"At {format_percent(pair.percent)}% of the weights the ticket {compared(pair)}; n = {pair.n}."
    if not levels:
        return "No ticket can be compared with the network it was cut from yet: no trial has both, trained to the end."
    best = max(levels.values(), key=lambda pair: (round(pair.gain, 6), pair.level))
    return (
        "At no level is the ticket, on average, both as early and as accurate as the network it was cut from. "
        f"Where most accurate, at {format_percent(best.percent)}% of the weights, it {compared(best)}; n = {best.n}."
    )


def remarks(run: Records) -> list[str]:
    """Remarks on the headline, one sentence each."""
    levels = pairs(run.summary)
    winning = winning_level(run.summary)
    sentences = []
    if winning is not None and winning in levels:
        sentences.append(WINNING)
        sentences += _in_how_many(levels[winning]) + _controls(run.summary, winning)
    elif levels and max(pair.n for pair in levels.values()) == 1:
        sentences.append(ALONE)
    return sentences + state(run)


def state(run: Records) -> list[str]:
    """What is missing, left out, or smaller than in the full experiment."""
    stored, expected = progress(run)
    sentences = []
    if stored < expected:
        sentences.append(f"Unfinished: {stored} of {expected} trainings are stored; all numbers are of these.")
    for status, text in (
        ("diverged", "diverged; means leave {them} out."),
        ("collapsed", "collapsed: a layer has no weight left."),
    ):
        if count := list(run.summary["status"]).count(status):
            them = "them" if count > 1 else "it"
            sentences.append(f"{count} of {stored} trainings {text.format(them=them)}")
    sentences += [f"{line[0].upper()}{line[1:]}." for line in format_at_chance(run)]
    if run.experiment.scale != 1:
        sentences.append(f"A smaller version: all iterations are scaled by {run.experiment.scale:g}.")
    return sentences


WINNING = "This is the winning level: the smallest density at which the ticket is neither later nor less accurate."
ALONE = "One trial alone: what is chance and what is not cannot be text."


def _in_how_many(pair: Pairs) -> list[str]:
    if pair.n == 1:
        return [ALONE]
    better = sum(ticket >= dense for dense, ticket in pair.accuracy)
    earlier = sum(ticket <= dense for dense, ticket in pair.early_stop)
    return [f"It is no less accurate in {better} of {pair.n} trials, and no later in {earlier} of {pair.n}."]


def _controls(summary: pd.DataFrame, level: int) -> list[str]:
    """The branches at a level beside its tickets, over the trials that have both."""
    rows = summary.loc[(summary["level"] == level) & (summary["status"] != "diverged")]
    rows = rows.loc[rows["test_accuracy_at_early_stop"].notna()]
    tickets = rows.loc[rows["branch"] == "ticket"].set_index("trial")["test_accuracy_at_early_stop"]
    sentences = []
    for name in sorted({family(label) for label in rows["branch"]} - {"ticket"}, key=branch_order):
        trainings = rows.loc[(rows["branch"].map(family) == name) & rows["trial"].isin(tickets.index)]
        if len(trainings):
            means = trainings.groupby("trial")["test_accuracy_at_early_stop"].mean()
            gain = float(np.mean(means - tickets.loc[means.index]))
            sentences.append(f"At the same level, {name} is {format_accuracy(gain)} the ticket; n = {len(trainings)}.")
    return sentences


def pairs(summary: pd.DataFrame) -> dict[int, Pairs]:
    """The levels above 0 that can be compared with level 0, over the trials that have both, neither diverged."""
    columns = ["early_stop_iteration", "test_accuracy_at_early_stop"]
    tickets = summary.loc[(summary["branch"] == "ticket") & (summary["status"] != "diverged")].dropna(subset=columns)
    dense = tickets.loc[tickets["level"] == 0].set_index("trial")
    pairs_by_level = {}
    compared_ = tickets.loc[(tickets["level"] > 0) & tickets["trial"].isin(dense.index)]
    for level in map(int, np.unique(compared_["level"])):
        rows = compared_.loc[compared_["level"] == level]
        first = dense.loc[rows["trial"]]
        early_stop, accuracy = (tuple(zip(first[c].tolist(), rows[c].tolist(), strict=True)) for c in columns)
        pairs_by_level[level] = Pairs(level, 100 * float(np.mean(rows["density"])), accuracy, early_stop)
    return pairs_by_level


def progress(run: Records) -> tuple[int, int]:
    """The numbers of stored and of expected trainings; a trunk ends at a level that diverges."""
    places = zip(run.summary["trial"], run.summary["level"], run.summary["branch"], run.summary["status"], strict=True)
    status = {place[:3]: place[3] for place in places}
    trainings = plan(run.experiment)
    by_id = {t.id: status.get((t.trial, t.level, t.branch)) for t in trainings}
    gone: set[str] = set()
    for training in trainings:  # in an order in which needs come first
        if by_id[training.id] is None and any(need in gone or by_id.get(need) == "diverged" for need in training.needs):
            gone.add(training.id)
    return len(status), max(len(status), len(trainings) - len(gone))


# ------------------------------------------------------------------------------------------------------ parts of speech


def compared(pair: Pairs) -> str:
    """The predicate: `is 0.4 points more accurate than ... and reaches its lowest validation loss 1.3 times sooner`."""
    accuracy, time = format_accuracy(pair.gain), format_sooner(pair.sooner)
    return f"is {accuracy} the network it was cut from, and reaches its lowest validation loss {time}"


def format_accuracy(gain: float) -> str:
    """`0.4 points more accurate than`, for a gain that is a fraction."""
    if abs(gain) < EQUAL_ACCURACY:
        return "as accurate as"
    points = 100 * abs(gain)
    size = f"{points:.1f}" if points >= 0.095 else f"{points:.2f}"
    return f"{size} points {'more' if gain > 0 else 'less'} accurate than"


def format_sooner(ratio: float) -> str:
    """`1.3 times sooner`, for the ratio of level 0's early stop to the ticket's."""
    if abs(ratio - 1) < EQUAL_TIME:
        return "just as soon"
    times = max(ratio, 1 / ratio)
    size = f"{times:.1f}" if times >= 1.095 else f"{times:.2f}"
    return f"{size} times {'sooner' if ratio > 1 else 'later'}"
