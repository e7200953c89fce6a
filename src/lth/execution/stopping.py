"""Ctrl-C and SIGTERM stop a command soon and with one line that names the command to continue, if there is one."""

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

PATIENCE_S = 1.5  # seconds for work in progress, such as writing a checkpoint
CLUSTER_PATIENCE_S = 30.0  # the same if checkpoints come from other machines


@dataclass
class Command:
    """The command in progress: the words after `lth`, and what is known about it so far."""

    words: Sequence[str]
    resumes: bool = False  # typed again, it goes on where it stopped
    patience_s: float = PATIENCE_S  # set from a signal to the end
    announced: bool = False  # whether the line on how it ended has been printed

    @property
    def line(self) -> str:
        return shlex.join(["lth", *self.words])

    def begin_run(self, executor: str) -> None:
        """Record that this command is a run, on this executor."""
        self.resumes = True
        self.patience_s = PATIENCE_S if executor == "local" else CLUSTER_PATIENCE_S


def format_stopped(command: Command) -> str:
    return f"lth: stopped; finished work is kept. To continue: {command.line}" if command.resumes else "lth: stopped"


@contextmanager
def stopped_by_signals(command: Command) -> Iterator[list[int]]:
    """Stop the work in progress on Ctrl-C and SIGTERM, after at most `patience_s`; yields the received signals.

    A second signal does not interrupt the cleanup after the first; after `PATIENCE_S` it ends the process. Only the
    main thread can handle signals.
    """
    signals: list[int] = []
    ending = math.inf  # the time after which a second signal counts

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
    finally:  # keep the timer: threads that still work must not keep a stopped process alive
        for number, handler in before.items():
            signal.signal(
                number, signal.SIG_IGN if signals else handler
            )  # another signal would interrupt Python's own shutdown


def leave_after(seconds: float, command: Command) -> None:
    timer = threading.Timer(seconds, leave, (command,))
    timer.daemon = True
    timer.start()


def leave(command: Command) -> None:
    """End at once: everything stored is complete, and a training resumes from its last checkpoint."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # the live display hides the cursor
    if not command.announced:
        sys.stderr.write(f"{format_stopped(command)}\n")
    sys.stderr.flush()
    os._exit(130)
