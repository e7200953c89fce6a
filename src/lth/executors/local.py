"""This machine: threads for engines that release the GIL and share one copy of the data, processes for the others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lth.config import Experiment
from lth.data import load
from lth.executors import Workers
from lth.plan import Training
from lth.step import Bench, Means, carry_out, set_up
from lth.training.loop import Hooks


def _drain(news: Any) -> Callable[[], list[tuple[str, int]]]:
    def drain() -> list[tuple[str, int]]:
        found = []
        while True:
            try:
                found.append(news.get_nowait())
            except queue.Empty:
                return found

    return drain


@contextmanager
def threads(bench: Bench, count: int) -> Iterator[Workers]:
    """Trainings side by side in this process, over one copy of the data."""
    stop, news = threading.Event(), queue.SimpleQueue()

    def step(training: Training) -> dict[str, Any]:
        return carry_out(training, bench, Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set))

    with ThreadPoolExecutor(count) as pool:
        try:
            yield Workers(count, lambda training: pool.submit(step, training), _drain(news), stop.set)
        finally:
            stop.set()


@contextmanager
def processes(
    experiment: Experiment, means: Means, folder: Path, data_root: Path | None, count: int
) -> Iterator[Workers]:
    """Trainings in processes of their own, each with its copy of the data."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    stop, news = context.Event(), context.Queue()
    set_up_args = (os.getpid(), experiment, means, folder, data_root, stop, news)
    with ProcessPoolExecutor(count, context, _set_up_process, set_up_args) as pool:
        try:
            yield Workers(count, lambda training: pool.submit(_step_in_process, training), _drain(news), stop.set)
        finally:
            stop.set()


# ----------------------------------------------------------------------------------------- inside a worker's process

_worker: dict[str, Any] = {}  # what _set_up_process made for the tasks of this process


def _set_up_process(
    parent: int, experiment: Experiment, means: Means, folder: Path, data_root: Path | None, stop: Any, news: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and asks for the stop
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    news.cancel_join_thread()
    data = load(experiment.data.name, data_root, say=lambda line: None)  # the parent has said it
    _worker.update(bench=set_up(experiment, means, folder, data), stop=stop, news=news)


def _end_with_parent(parent: int) -> None:
    """A killed parent cannot say so; its workers must not go on writing.

    The parent tells its number: a worker that asks whose child it is may ask when the parent is dead already.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _step_in_process(training: Training) -> dict[str, Any]:
    stop, news = _worker["stop"], _worker["news"]
    hooks = Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set)
    return carry_out(training, _worker["bench"], hooks)
