"""This machine: threads for engines that release the GIL and share the data, processes for others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch

from lth.config import Experiment
from lth.config.userfile import accept
from lth.errors import LthError
from lth.execution.executors import Executor, Job, Workers, terminated
from lth.execution.executors.bootstrap import check_guarded
from lth.execution.job import carry_out
from lth.execution.resources import Resources, choose
from lth.execution.setup import load_again, set_up
from lth.plan import Training
from lth.storage.outcomes import is_done, outcome
from lth.training import processor
from lth.training.loop import Hooks, Stopped

SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
REPEATS = 2  # after deaths of its process: the training itself may be the cause
UNKNOWN = -1  # the iteration of a training that has not reported any


@contextmanager
def executor(name: str = "local") -> Iterator[Executor]:
    """This machine; there is nothing to connect to."""
    yield Executor(choose, room, workers)


def room(resources: Resources) -> int:
    """One training per core or per GPU."""
    if resources.device == "cuda":
        return torch.cuda.device_count()
    return max(1, processor.cores() // resources.threads)


def workers(job: Job) -> AbstractContextManager[Workers]:
    """Threads if the engine releases the GIL or there is only one worker; else processes."""
    return threads(job) if job.resources.engine == "native" or job.count == 1 else processes(job)


@contextmanager
def threads(job: Job) -> Iterator[Workers]:
    """Run trainings in threads of this process that share the data."""
    setup = set_up(job.experiment, job.resources, job.folder, job.data)
    stop, news = threading.Event(), queue.SimpleQueue()

    def do(training: Training) -> dict[str, Any]:
        return carry_out(training, setup, Hooks(report=lambda i: news.put((training.id, i)), stopped=stop.is_set))

    yield Workers(do, drain(news), stop.set)


@contextmanager
def processes(job: Job) -> Iterator[Workers]:
    """Run trainings in processes, each with a copy of the data and, with GPUs, a GPU of its own."""
    start_tracker()
    stop = SPAWN.RawValue("b", 0)
    places = [Place(job, number, stop) for number in range(job.count)]
    free: queue.LifoQueue[Place] = (
        queue.LifoQueue()
    )  # last in, first out: a process that is already running is used first
    for place in reversed(places):
        free.put(place)

    def do(training: Training) -> dict[str, Any]:
        place = free.get()
        try:
            return carry_out_in(place, training)
        finally:
            free.put(place)

    def ask_to_stop() -> None:
        stop.value = 1

    try:
        yield Workers(do, lambda: [report for place in places if (report := place.news())], ask_to_stop)
    finally:
        ask_to_stop()
        with ThreadPoolExecutor(len(places)) as closing:
            list(closing.map(Place.close, places))


class Place:
    """A slot for one training at a time: a pool of one process, and two numbers in shared memory.

    No lock is shared, because a process that is killed while it holds a lock never releases it. Slots share nothing
    with each other, so that the loss of one does not affect the others.
    """

    def __init__(self, job: Job, number: int, stop: Any) -> None:
        self.job, self.number, self.stop = job, number, stop
        self.iteration = SPAWN.RawValue("q", UNKNOWN)
        self.training: str | None = None
        self.pool = self.new_pool()

    def new_pool(self) -> ProcessPoolExecutor:
        job = self.job
        shared = (job.experiment, job.code, job.resources, job.folder, job.data_root, self.number, self.stop)
        return ProcessPoolExecutor(1, SPAWN, _set_up_process, (os.getpid(), *shared, self.iteration))

    def attempt(self, training: Training) -> dict[str, Any]:
        """Carry a training out. Raises BrokenProcessPool if its process died, UsageError if it refused."""
        self.iteration.value, self.training = UNKNOWN, training.id
        try:
            with deaf_children():
                future = self.pool.submit(_carry_out_in_process, training)  # starts the process on first use
            started = list(self.pool._processes.values())  # the initial values are lost with the pool
            try:
                return future.result()
            except BrokenProcessPool:
                check_guarded(started)
                raise
        finally:
            self.training = None

    def renew(self) -> None:
        """Replace a dead process."""
        self.close()
        self.pool = self.new_pool()

    def news(self) -> tuple[str, int] | None:
        name, iteration = self.training, self.iteration.value
        return (name, iteration) if name and iteration != UNKNOWN else None

    def close(self) -> None:
        self.pool.shutdown()


def carry_out_in(place: Place, training: Training) -> dict[str, Any]:
    """Carry a training out. If its process dies, resume from its checkpoint in another one, up to `REPEATS` times."""
    folder, again = place.job.folder, is_done(place.job.folder, training.id)
    for repeat in range(REPEATS + 1):
        try:
            return place.attempt(training)
        except BrokenProcessPool:
            place.renew()
        if place.stop.value:
            raise Stopped("stopped; run the same command again to continue")
        if not again and (summary := outcome(folder, training.id)):
            return summary  # the process died after it had stored the training
        if repeat < REPEATS:
            place.job.say(
                f"{training.id} was lost with its process and is repeated ({repeat + 1} of {REPEATS}); "
                "the system kills processes if memory runs out"
            )
    raise LthError(
        f"{training.id}: its process died {REPEATS + 1} times, possibly for lack of memory",
        cure="everything stored is complete; run the same command with fewer --workers to continue",
    )


def start_tracker() -> None:
    """Start multiprocessing's resource tracker, which cleans up after a stopped run, without its warnings."""
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
    """A function that returns everything in a queue."""

    def taken() -> list[tuple[str, int]]:
        items = []
        while True:
            try:
                items.append(news.get_nowait())
            except queue.Empty:
                return items

    return taken


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C: the parent receives it and asks them to stop.

    Otherwise they would receive it while they import torch, before they can ignore it, and end with a traceback each.
    The signal is blocked, not ignored, so that the parent receives it a moment later. They handle SIGTERM once they are
    set up (`terminated.listen`).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ----------------------------------------------------------------------------------------- inside a worker's process

_worker: dict[str, Any] = {}  # created by _set_up_process for the tasks of this process


def _set_up_process(
    parent: int,
    experiment: Experiment,
    code: dict[str, bytes],
    resources: Resources,
    folder: Path,
    data_root: Path | None,
    number: int,
    stop: Any,
    iteration: Any,
) -> None:
    accept(code)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    if resources.device == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
    data = load_again(experiment, data_root, lambda line: None)  # the parent has printed it
    _worker.update(setup=set_up(experiment, resources, folder, data), stop=stop, iteration=iteration)
    terminated.listen()


def _end_with_parent(parent: int) -> None:
    """End this process when its parent dies: a killed parent cannot ask its workers to stop.

    The parent passes its own process id, because it may already be dead when a worker asks for its parent.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _carry_out_in_process(training: Training) -> dict[str, Any]:
    stop, iteration = _worker["stop"], _worker["iteration"]

    def report(reached: int) -> None:
        iteration.value = reached

    with terminated.at_work() as stop_requested:
        hooks = Hooks(report=report, stopped=lambda: bool(stop.value) or stop_requested())
        return carry_out(training, _worker["setup"], hooks)
