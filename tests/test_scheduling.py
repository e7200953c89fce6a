"""Which training is next; and that it costs what is at hand, not what the plan holds."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lth.config import resolve
from lth.errors import LthError
from lth.execution import schedule
from lth.execution.executors import Workers
from lth.execution.progress import MOST_BARS, Display
from lth.execution.schedule import Frontier, execute, to_do
from lth.plan import Training, longest_chain, plan, trainings
from lth.storage import outcomes
from lth.storage.retention import Retention


def experiment(trials: int, levels: int, branches: str = "reinit:1", **tables: Any) -> Any:
    return resolve("lenet", trials=trials, levels=levels, branches=branches, **tables)


def nothing_done(training_id: str) -> None:
    return None


def all_ready(frontier: Frontier) -> list[Training]:
    found = []
    while training := frontier.next():
        found.append(training)
    return found


def test_trainings_are_ready_in_the_order_of_the_plan_as_soon_as_their_needs_are_stored() -> None:
    frontier = Frontier(plan(experiment(trials=2, levels=2)), nothing_done)
    assert frontier.read() == []
    first, second = all_ready(frontier)
    assert (first.id, second.id) == ("trial-1/level-00", "trial-2/level-00")
    frontier.ended(second, "done")
    assert [t.id for t in all_ready(frontier)] == ["trial-2/level-01"]
    frontier.ended(first, "done")
    (level_1,) = all_ready(frontier)
    frontier.ended(frontier.open["trial-2/level-01"], "done")
    frontier.ended(level_1, "done")
    assert [t.id for t in all_ready(frontier)] == [
        "trial-1/level-01/reinit-1", "trial-2/level-01/reinit-1", "trial-1/level-02", "trial-2/level-02",
    ]  # fmt: skip


def test_what_is_stored_is_not_done_again() -> None:
    stored = {"trial-1/level-00": "done", "trial-1/level-01/reinit-1": "collapsed"}
    frontier = Frontier(plan(experiment(trials=1, levels=1)), stored.get)
    frontier.read()
    assert [t.id for t in all_ready(frontier)] == ["trial-1/level-01"] and len(frontier.open) == 1


@pytest.mark.parametrize(("strategy", "longest"), [("resetting", 4), ("oneshot", 2), ("continued", 7)])
def test_the_longest_chain_of_trainings_takes_its_time_however_many_run(strategy: str, longest: int) -> None:
    """Continued training does two trainings a level, one after the other: the ticket, and what is pruned next."""
    whole = plan(resolve("lenet", {"strategy": strategy}, trials=2, levels=3, branches=""))
    each = dict.fromkeys((training.id for training in whole), 10.0)
    assert longest_chain(whole, each) == 10 * longest
    later = [training for training in whole if training.level]  # level 0 is stored: it takes no time
    assert longest_chain(later, each) == 10 * (longest - 1)
    assert longest_chain([], {}) == 0


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_what_needs_a_diverged_training_is_dropped_however_far_ahead_it_is(ahead: int) -> None:
    """Trial 1 diverges at level 0, trial 2 at level 1, where it was stored before."""
    stored = {"trial-2/level-00": "done", "trial-2/level-01": "diverged"}
    frontier = Frontier(trainings(experiment(trials=2, levels=4, branches="reinit:2")), stored.get, ahead)
    dropped = frontier.read()
    first = frontier.next()
    assert first and first.id == "trial-1/level-00"
    dropped += frontier.ended(first, "diverged")
    dropped += frontier.read()
    assert not frontier.open and not frontier.next()
    assert len(dropped) == len({t.id for t in dropped}) == 12 + 11


def test_what_is_to_do_leaves_out_what_cannot_happen() -> None:
    ended = {"trial-1/level-00": "done", "trial-1/level-01": "diverged", "trial-2/level-00": "diverged"}
    whole = list(trainings(experiment(3, 2)))
    assert list(to_do(whole, ended.get)) == [training for training in whole if training.trial == 3]


def test_continued_training_waits_for_both_of_its_needs() -> None:
    frontier = Frontier(plan(resolve("lenet-continued", trials=1, levels=2, branches="")), nothing_done)
    frontier.read()
    done = []
    while ready := all_ready(frontier):
        done += [t.id for t in ready]
        for training in ready:
            assert {*training.needs} < {*done}
            frontier.ended(training, "done")
    assert len(done) == 5 and not frontier.open


@pytest.mark.parametrize("ahead", [40, 10_000])
def test_memory_follows_what_is_at_hand(ahead: int) -> None:
    """A plan of 9,700 trainings, done ten at a time: at most `ahead` of them are known, and at the end none."""
    frontier, most, done = Frontier(trainings(experiment(100, 24, "reinit:3")), nothing_done, ahead), 0, Counter[str]()
    frontier.read()
    running: list[Training] = []
    while frontier.open:
        while len(running) < 10 and (training := frontier.next()):
            running.append(training)
        most = max(most, len(frontier.open))
        training = running.pop(0)
        assert all(done[need] for need in training.needs)
        done[training.id] += 1
        frontier.ended(training, "done")
        frontier.read()
    assert most <= ahead
    assert len(done) == 9700 and set(done.values()) == {1}
    held = [value for name, value in vars(frontier).items() if name not in ("_plan", "_status", "_ahead")]
    assert not any(held)


# ------------------------------------------------------------------------------------------------------------ execute


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A store in memory."""
    found: dict[str, str] = {}
    monkeypatch.setattr(outcomes, "status", lambda folder, name: found.get(name))
    monkeypatch.setattr(outcomes, "is_done", lambda folder, name: name in found)
    monkeypatch.setattr(schedule.tables, "write", lambda folder: 0)
    return found


def summary(status: str) -> dict[str, Any]:
    return {"status": status, "density": 1.0, "iterations": 40, "seconds": 0.5}


def display(total: int, out: io.StringIO | None = None, **options: Any) -> Display:
    return Display(
        Console(file=out or io.StringIO(), width=90, **options), lambda training: 1.0, 0, total, float(total)
    )


def keeping(given: Any) -> Retention:
    return Retention(given, given, Path("run"))


def test_everything_is_done_once_and_said(stored: dict[str, str]) -> None:
    given, out = experiment(trials=3, levels=3), io.StringIO()
    ends: dict[str, str] = {"trial-3/level-02": "diverged"}
    begun: list[str] = []

    def do(training: Training) -> dict[str, Any]:
        begun.append(training.id)
        stored[training.id] = ends.get(training.id, "done")
        return summary(stored[training.id])

    told: list[str] = []
    execute(trainings(given), keeping(given), Workers(do, list, lambda: None), 4, display(21, out), told.append)
    assert sorted(begun) == sorted(told) and len(begun) == 21 - 3 and len({*begun}) == len(begun)
    assert "[18/18]" in out.getvalue() and "diverged" in out.getvalue()


def test_a_failure_stops_the_others_before_it_is_raised(stored: dict[str, str]) -> None:
    order: list[str] = []

    def do(training: Training) -> dict[str, Any]:
        if training.trial == 2:
            raise LthError("the disk is full")
        while "stop" not in order:
            time.sleep(0.01)
        order.append("checkpoint")
        raise LthError("stopped")

    workers = Workers(do, list, lambda: order.append("stop"))
    with pytest.raises(LthError, match="disk is full"):
        execute(trainings(experiment(2, 0)), keeping(experiment(2, 0)), workers, 2, display(2))
    assert order == ["stop", "checkpoint"]


def test_a_failing_table_ends_the_run(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> int:
        raise LthError("no room for tables")

    monkeypatch.setattr(schedule.tables, "write", fail)
    tables = schedule.Tables(Path("run"))
    tables.refresh()
    assert tables.writing is None  # it is not due
    tables.due = 0.0
    tables.refresh()
    assert tables.writing
    tables.writing.join()
    with pytest.raises(LthError, match="no room for tables"):
        tables.refresh()


# ------------------------------------------------------------------------------------------------------------ progress


@pytest.fixture
def each() -> Iterator[Training]:
    first = plan(experiment(1, 0))[0]
    return (replace(first, id=f"trial-{n}/level-00", trial=n) for n in range(1, 1000))


def test_a_thousand_running_trainings_fit_a_terminal(each: Iterator[Training]) -> None:
    shown, running = display(999, force_terminal=True), list(each)
    for training in running:
        shown.reached(training, 100)
    assert len(shown.bars) == MOST_BARS and len(shown.live.tasks) == MOST_BARS + 1
    for training in running[:990]:
        shown.ended(training, summary("done"))
    shown.reached(running[-1], 200)
    assert shown.bars.keys() == {running[-1].id} and len(shown.credit) == 9


def test_the_time_left_is_known_from_trainings_too_short_for_news(each: Iterator[Training]) -> None:
    out = io.StringIO()
    shown = display(999, out)
    shown.ended(next(each), summary("done"))
    assert "[1/999]" in out.getvalue() and "estimating" not in out.getvalue() and "min left" in out.getvalue()
