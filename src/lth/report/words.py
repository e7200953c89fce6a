"""The tables of a run in sentences, also if no level wins, there is one trial alone, or much is missing."""

from __future__ import annotations

from lth.plan import plan
from lth.results import sentences, verdict
from lth.results.captions import format_at_chance
from lth.results.records import Records


def headline(run: Records) -> str:
    """The main finding."""
    if not len(run.summary):
        return "Nothing is trained yet."
    return sentences.headline(verdict.of(run))


def remarks(run: Records) -> list[str]:
    """What follows the headline, one sentence or two each."""
    found = verdict.of(run)
    advice = sentences.advice(found, run.experiment)
    return [*sentences.remarks(found), *([advice] if advice else []), *state(run), *sentences.method(found)]


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
