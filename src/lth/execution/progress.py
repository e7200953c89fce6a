"""The progress display: live on a terminal, plain lines elsewhere, with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from lth.execution.estimates import format_duration
from lth.plan import Training
from lth.results.metrics import metric_in

MOST_BARS = 12  # maximum number of displayed trainings: a cluster has more than a terminal has lines


def headline(training: Training, summary: Mapping[str, Any]) -> str:
    """One line on a finished training."""
    result = summary["status"]
    if metric := metric_in(summary):
        score = metric.text(summary[metric.at_early_stop])
        result = f"early stop at {summary['early_stop_iteration']:,}, test {metric.name} there {score}"
    if summary["status"] == "diverged":
        result = f"diverged: its loss is not finite at iteration {summary['iterations']:,}"
    if summary.get("collapsed_layers"):
        result += f"; no weight left in {', '.join(summary['collapsed_layers'])}"
    name = f"trial {training.trial} level {training.level} {training.branch}"
    return f"{name}: {100 * summary['density']:.2f}% of weights, {result}, {summary['seconds']:.1f} s"


def has_widgets(console: Console) -> bool:
    """Return whether the console is a notebook that can update its output."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class Display:
    """Count finished work and show it."""

    def __init__(self, console: Console, cost_of: Callable[[Training], float], done: int, total: int, left: float):
        self.console, self.cost_of = console, cost_of
        self.finished, self.total, self.left = done, total, left
        self.credit: dict[str, float] = {}  # work already counted for running trainings
        self.begun: float | None = None
        self.worked = 0.0
        self.bars: dict[str, TaskID] = {}
        bar = [BarColumn()] if console.width >= 70 else []  # the numbers take precedence over the bar
        self.live = Progress(
            TextColumn("{task.description}"),
            *bar,
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.overall = self.live.add_task("trainings", total=self.total, completed=done, note="")

    @contextmanager
    def shown(self) -> Iterator[Display]:
        if not (self.console.is_terminal or has_widgets(self.console)):
            yield self
            return
        with self.live:
            yield self

    def reached(self, training: Training, iteration: int) -> None:
        """Record that a running training has done this many updates."""
        self.begun = self.begun or time.monotonic()
        share = self.cost_of(training) * iteration / training.recipe.iterations
        if training.id in self.credit:  # updates before a resume are not work of this process
            self.worked += share - self.credit[training.id]
        self.left -= share - self.credit.get(training.id, 0.0)
        self.credit[training.id] = share
        if training.id not in self.bars and len(self.bars) < MOST_BARS:
            name = f"  trial {training.trial} level {training.level} {training.branch}"
            self.bars[training.id] = self.live.add_task(name, total=training.recipe.iterations, note="")
        if training.id in self.bars:
            self.live.update(self.bars[training.id], completed=iteration)
        self.live.update(self.overall, note=self.time_left())

    def ended(self, training: Training, summary: Mapping[str, Any]) -> None:
        if training.id not in self.credit:  # too short to report progress
            self.begun = self.begun or time.monotonic() - summary["seconds"]
            self.credit[training.id] = 0.0
        self.reached(training, training.recipe.iterations)
        self.finished += 1
        del self.credit[training.id]
        if training.id in self.bars:
            self.live.remove_task(self.bars.pop(training.id))
        self.live.update(self.overall, completed=self.finished, note=self.time_left())
        # highlight=False, because rich would colour the numbers
        line = f"[{self.finished}/{self.total}] {headline(training, summary)}; {self.time_left()}"
        self.live.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def dropped(self, trainings: Iterable[Training]) -> None:
        """Record trainings that cannot happen, because a training that they need diverged."""
        for training in trainings:
            self.left -= self.cost_of(training)
            self.total -= 1
        self.live.update(self.overall, total=self.total)

    def time_left(self) -> str:
        if self.begun is None or self.worked <= 0:
            return "estimating the time left"
        pace = (time.monotonic() - self.begun) / self.worked
        return f"about {format_duration(max(0.0, self.left * pace))} left"
