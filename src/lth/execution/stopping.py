"""Ctrl-C and SIGTERM stop a command: soon, in one line, and with the command to go on where there is one."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE_S = 1.5  # for what is going on, such as a checkpoint that is written, to end by itself
CLUSTER_PATIENCE_S = 30.0  # the same where checkpoints come from other machines


@dataclass
class Command:
    """The command that is carried out: the words that were typed after `lth`, and what is known of it so far."""

    words: Sequence[str]
    resumes: bool = False  # typed again, it goes on where it stopped
    patience_s: float = PATIENCE_S  # from a signal to the end
    announced: bool = False  # the line that says how it ended is printed

    @property
    def line(self) -> str:
        return shlex.join(["lth", *self.words])

    def begin_run(self, executor: str) -> None:
        """From now on this is a run, on this executor."""
        self.resumes = True
        self.patience_s = PATIENCE_S if executor == "local" else CLUSTER_PATIENCE_S


def format_stopped(command: Command) -> str:
    return f"lth: stopped; what is done is kept. To go on: {command.line}" if command.resumes else "lth: stopped"


@contextmanager
def stopped_by_signals(command: Command) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM stop whatever is going on, after `patience_s` at the latest; yields the signals that came.

    A second one is not thrown into what the first has ended; after `PATIENCE_S` it ends all. Only the main thread can
    listen.
    """
    signals: list[int] = []
    ending = math.inf  # when a second one counts

    def hear(number: int, frame: object) -> None:
        nonlocal ending
        signals.append(number)
        if len(signals) == 1:
            ending = time.monotonic() + PATIENCE_S
            leave_after(command.patience_s, command)
            raise KeyboardInterrupt
        if time.monotonic() > ending:
            leave(command)

    listening = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, hear) for n in (signal.SIGINT, signal.SIGTERM)} if listening else {}
    try:
        yield signals
    finally:  # the timer goes on: threads that are still at work must not keep a stopped process alive
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if signals else handler)  # one more would cut Python's own end short


def leave_after(seconds: float, command: Command) -> None:
    timer = threading.Timer(seconds, leave, (command,))
    timer.daemon = True
    timer.start()


def leave(command: Command) -> None:
    """End at once: all that is stored is whole, and a training goes on from its last checkpoint."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # a live display hides the cursor
    if not command.announced:
        sys.stderr.write(f"{format_stopped(command)}\n")
    sys.stderr.flush()
    os._exit(130)
