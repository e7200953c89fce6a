"""Signals and torch's threads around a run: both are as before when it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, unless something handles it already. Only the main thread can listen."""
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
    """A run sets torch's number of threads; the caller's number comes back."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
