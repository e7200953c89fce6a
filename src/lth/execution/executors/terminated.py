"""Handle SIGTERM in a worker process: its training writes a checkpoint, as it does when the run asks it to stop.

Batch systems may send the signal to all processes of a run at once. It is blocked while a process starts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 10.0  # seconds for writing a checkpoint

_told, _busy = threading.Event(), threading.Event()


def listen() -> None:
    """Begin to handle SIGTERM, including one that arrived while it was blocked."""
    signal.signal(signal.SIGTERM, _hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextmanager
def at_work() -> Iterator[Callable[[], bool]]:
    """Mark that a training is being carried out. Yields a function that returns whether it should stop."""
    _busy.set()
    try:
        yield _told.is_set
    finally:
        _busy.clear()


def _hear(number: int, frame: Any) -> None:
    if not _busy.is_set():
        os._exit(128 + number)
    _told.set()
    timer = threading.Timer(PATIENCE_S, os._exit, (128 + number,))  # nobody may be left to end the process
    timer.daemon = True
    timer.start()
