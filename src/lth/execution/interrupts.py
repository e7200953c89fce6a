"""Signals and torch's threads during a run; both are restored at its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Make SIGTERM end a run like Ctrl-C, unless it is already handled. Only the main thread can do so."""
    taken = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.default_int_handler)
    if taken or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Restore the caller's number of torch threads at the end."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
