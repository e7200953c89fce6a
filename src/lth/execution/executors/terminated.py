"""SIGTERM in a worker's process: its training writes a checkpoint, as it does when the run asks it to stop.

The signal may come to all processes of a run at once, as batch systems send it. It is blocked while a process starts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 10.0  # for a checkpoint to be written

_told, _busy = threading.Event(), threading.Event()


def listen() -> None:
    """From now on SIGTERM is heard, also one that came while it was blocked."""
    signal.signal(signal.SIGTERM, _hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextmanager
def at_work() -> Iterator[Callable[[], bool]]:
    """A training is being carried out; yields what says whether it should write a checkpoint and stop."""
    _busy.set()
    try:
        yield _told.is_set
    finally:
        _busy.clear()


def _hear(number: int, frame: Any) -> None:
    if not _busy.is_set():
        os._exit(128 + number)
    _told.set()
    timer = threading.Timer(PATIENCE_S, os._exit, (128 + number,))  # nobody may be there to end it afterwards
    timer.daemon = True
    timer.start()
