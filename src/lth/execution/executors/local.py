"""This machine: threads for engines that release the GIL and share one copy of the data, processes for the others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from typing import Any

import torch

from lth.config.userfile import accept
from lth.data import load
from lth.errors import LthError
from lth.execution.executors import Executor, Job, Workers
from lth.execution.job import carry_out
from lth.execution.resources import Resources, choose
from lth.execution.setup import set_up
from lth.plan import Training
from lth.training import processor
from lth.training.loop import Hooks


@contextmanager
def executor(name: str = "local") -> Iterator[Executor]:
    """This machine; there is nothing to connect to."""
    yield Executor(choose, room, workers)


def room(means: Resources) -> int:
    """As many trainings as cores hold, or one a GPU."""
    if means.device == "cuda":
        return torch.cuda.device_count()
    return max(1, processor.cores() // means.threads)


def workers(job: Job) -> AbstractContextManager[Workers]:
    """Threads where the engine releases the GIL, or where there is one worker anyway; else processes."""
    return threads(job) if job.means.engine == "native" or job.count == 1 else processes(job)


@contextmanager
def threads(job: Job) -> Iterator[Workers]:
    """Trainings side by side in this process, over one copy of the data."""
    bench = set_up(job.experiment, job.means, job.folder, job.data)
    stop, news = threading.Event(), queue.SimpleQueue()

    def do(training: Training) -> dict[str, Any]:
        return carry_out(training, bench, Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set))

    yield Workers(do, drain(news), stop.set)


@contextmanager
def processes(job: Job) -> Iterator[Workers]:
    """Trainings in processes of their own, each with its copy of the data and, on GPUs, its GPU."""
    start_tracker()
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    stop, news, places = context.Event(), context.Queue(), context.Queue()
    for place in range(job.count):
        places.put(place)
    set_up_args = (os.getpid(), job.experiment, job.code, job.means, job.folder, job.data_root, stop, news, places)
    with ProcessPoolExecutor(job.count, context, _set_up_process, set_up_args) as pool:

        def do(training: Training) -> dict[str, Any]:
            with deaf_children():
                future = pool.submit(_carry_out_in_process, training)  # which starts a process, while there are too few
            try:
                return future.result()
            except BrokenProcessPool:
                said = "a worker's process died, perhaps for lack of memory; try fewer --workers"
                raise LthError(said) from None

        try:
            yield Workers(do, drain(news), stop.set)
        finally:
            stop.set()


def start_tracker() -> None:
    """Start multiprocessing's own helper, which frees what a stopped run leaves behind: without a word about it."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def drain(news: Any) -> Callable[[], list[tuple[str, int]]]:
    """A function that takes all that a queue holds."""

    def taken() -> list[tuple[str, int]]:
        found = []
        while True:
            try:
                found.append(news.get_nowait())
            except queue.Empty:
                return found

    return taken


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started inside never hear Ctrl-C: the parent does, and asks them to stop.

    They would hear it while they import torch, before they can ignore it, and die with a traceback each. As it is
    blocked and not ignored, one that comes just now still reaches the parent, a moment later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ----------------------------------------------------------------------------------------- inside a worker's process

_worker: dict[str, Any] = {}  # what _set_up_process made for the tasks of this process


def _set_up_process(
    parent: int, experiment: Any, code: Any, means: Resources, folder: Any, data_root: Any, stop: Any, news: Any,
    places: Any,
) -> None:  # fmt: skip
    accept(code)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    news.cancel_join_thread()
    if means.device == "cuda":
        torch.cuda.set_device(places.get() % torch.cuda.device_count())
    data = load(experiment.data.name, data_root, say=lambda line: None)  # the parent has said it
    _worker.update(bench=set_up(experiment, means, folder, data), stop=stop, news=news)


def _end_with_parent(parent: int) -> None:
    """A killed parent cannot say so; its workers must not go on writing.

    The parent tells its number: a worker that asks whose child it is may ask when the parent is dead already.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _carry_out_in_process(training: Training) -> dict[str, Any]:
    stop, news = _worker["stop"], _worker["news"]
    hooks = Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set)
    return carry_out(training, _worker["bench"], hooks)
