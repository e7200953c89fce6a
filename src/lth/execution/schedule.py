"""Decide which training is next, until all trainings of the plan are stored.

Time and memory follow the number of workers, not the size of the plan: finished trainings are forgotten, and trainings
far ahead are not read yet. `benchmarks/scheduling.py` measures both.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lth.errors import LthError
from lth.execution.executors import Workers
from lth.execution.progress import Display
from lth.plan import Training
from lth.results import tables
from lth.storage.retention import Retention

AHEAD = 4096  # minimum number of pending trainings read from the plan
AHEAD_EACH = 16  # the same per worker, so that a trial that is ahead of others rarely waits


class Frontier:
    """The part of a plan in memory: trainings that wait for others, are ready, or run.

    `status` returns how a training ended (done, diverged, ...), or None if it is not done. At most `ahead`
    trainings are in memory. Trainings that need a diverged training cannot happen and are dropped.
    """

    def __init__(self, plan: Iterable[Training], status: Callable[[str], str | None], ahead: int = AHEAD) -> None:
        self._plan, self._status, self._ahead = enumerate(plan), status, ahead
        self.open: dict[str, Training] = {}
        self._order: dict[str, int] = {}
        self._lacking: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = {}
        self._ready: list[tuple[int, str]] = []
        self._gone: set[str] = set()  # diverged or dropped

    def read(self) -> list[Training]:
        """Read more of the plan if there is room. Returns the dropped trainings.

        A training comes after all that it needs, so a needed training that is not in memory is done or dropped.
        """
        dropped = []
        while len(self.open) < self._ahead and (item := next(self._plan, None)):
            index, training = item
            if status := self._status(training.id):
                if status == "diverged":
                    self._gone.add(training.id)
            elif self._gone.intersection(training.needs):
                self._gone.add(training.id)
                dropped.append(training)
            else:
                self._take(index, training)
        return dropped

    def _take(self, index: int, training: Training) -> None:
        self.open[training.id], self._order[training.id] = training, index
        waits_for = [need for need in training.needs if need in self.open]
        for need in waits_for:
            self._dependents.setdefault(need, []).append(training.id)
        self._lacking[training.id] = len(waits_for)
        if not waits_for:
            heapq.heappush(self._ready, (index, training.id))

    def next(self) -> Training | None:
        """The first training of the plan that can begin; None if none can yet."""
        return self.open[heapq.heappop(self._ready)[1]] if self._ready else None

    def ended(self, training: Training, status: str) -> list[Training]:
        """Record that a training is stored. Returns the trainings that are dropped because of it."""
        dependents = self._forget(training.id)
        if status == "diverged":
            self._gone.add(training.id)
            return self._drop(dependents)
        for name in dependents:
            self._lacking[name] -= 1
            if not self._lacking[name]:
                heapq.heappush(self._ready, (self._order[name], name))
        return []

    def _forget(self, name: str) -> list[str]:
        """Remove a training from memory. Returns the trainings in memory that wait for it."""
        del self.open[name], self._order[name], self._lacking[name]
        return [dependent for dependent in self._dependents.pop(name, ()) if dependent in self.open]

    def _drop(self, names: list[str]) -> list[Training]:
        dropped = []
        for name in names:
            if name in self.open:
                dropped.append(self.open[name])
                self._gone.add(name)
                dropped += self._drop(self._forget(name))
        return dropped


def to_do(plan: Iterable[Training], status: Callable[[str], str | None]) -> Iterator[Training]:
    """The trainings that are pending and can still happen, as far as is known."""
    gone: set[str] = set()
    for training in plan:
        ended = status(training.id)
        if ended == "diverged" or (not ended and gone.intersection(training.needs)):
            gone.add(training.id)
        elif not ended:
            yield training


def execute(
    plan: Iterable[Training],
    keeping: Retention,
    workers: Workers,
    count: int,
    display: Display,
    stored: Callable[[str], None] = lambda training_id: None,
) -> None:
    """Carry out all pending trainings in the order of the plan, each as soon as those that it needs are stored.

    `count` trainings run in parallel. After a failure or Ctrl-C all are asked to stop, and have written their
    checkpoints when this function returns.
    """
    frontier = Frontier(plan, keeping.status, max(AHEAD, AHEAD_EACH * count))
    ended: queue.SimpleQueue[tuple[Training, Future[dict[str, Any]]]] = queue.SimpleQueue()
    tables, running = Tables(keeping.folder), 0

    def drop(gone: list[Training]) -> None:
        display.dropped(gone)
        for training in gone:
            keeping.over(training)

    with display.shown(), ThreadPoolExecutor(count) as pool:
        try:
            drop(frontier.read())
            while frontier.open:
                while running < count and (training := frontier.next()):
                    future = pool.submit(workers.do, training)
                    future.add_done_callback(lambda future, training=training: ended.put((training, future)))
                    running += 1
                arrived = _arrived(ended, seconds=0.2)
                for name, iteration in workers.news():
                    if name in frontier.open:
                        display.reached(frontier.open[name], iteration)
                for training, future in arrived:
                    summary = future.result()
                    running -= 1
                    display.ended(training, summary)
                    stored(training.id)
                    keeping.over(training)
                    drop(frontier.ended(training, summary["status"]) + frontier.read())
                tables.refresh()
        finally:
            workers.stop()
    tables.finish()


def _arrived(ended: queue.SimpleQueue[Any], seconds: float) -> list[Any]:
    """The trainings that have ended, with their futures; waits up to `seconds` for the first."""
    try:
        trainings = [ended.get(timeout=seconds)]
        while not ended.empty():
            trainings.append(ended.get_nowait())
        return trainings
    except queue.Empty:
        return []


class Tables:
    """Keep summary.csv and curves.csv up to date during the work, for a few percent of one core's time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.due = folder, time.monotonic() + 10
        self.writing: threading.Thread | None = None
        self.failure: LthError | None = None

    def refresh(self) -> None:
        """Start to write them if that is due. Raises LthError if the last time failed."""
        if self.failure:
            raise self.failure
        if time.monotonic() >= self.due:
            self.due = float("inf")
            self.writing = threading.Thread(target=self._write, daemon=True)
            self.writing.start()

    def _write(self) -> None:
        began = time.monotonic()
        try:
            tables.write(self.folder)
        except LthError as error:
            self.failure = error
        now = time.monotonic()
        self.due = now + max(10, 30 * (now - began))

    def finish(self) -> None:
        """Write them one last time."""
        if self.writing:
            self.writing.join()
        tables.write(self.folder)
