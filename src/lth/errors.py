"""The ways in which lth gives up: wrong use (exit code 2), failure while working (1), interruption (130).

All are for the person at the keyboard: one clear line that says what was given, what was expected, and what to type.
What a caller may need of that line is a field of the exception; no message is parsed.
"""

from __future__ import annotations

from pathlib import Path


class LthError(Exception):
    """Work could not go on: a full disk, a lost network, a file that vanished.

    `path` is the file at fault, `fault` what is wrong, `cure` what to do about it, `command` what to type to go on.
    The message is made of them: "PATH: FAULT; CURE. To go on: COMMAND", without what is not given.
    """

    exit_code = 1

    def __init__(
        self, fault: str = "", *, path: str | Path | None = None, cure: str | None = None, command: str | None = None
    ) -> None:
        super().__init__(fault)
        self.fault = fault
        self.path = path
        self.cure = cure
        self.command = command

    def __str__(self) -> str:
        place = "" if self.path is None else f"{self.path}: "
        cure = f"; {self.cure}" if self.cure else ""
        command = f". To go on: {self.command}" if self.command else ""
        return f"{place}{self.fault}{cure}{command}"


class UsageError(LthError):
    """What was asked for cannot be done as asked: a wrong name, value, file or combination."""

    exit_code = 2


class Damaged(UsageError):
    """A stored file is not what was written: "PATH is damaged: FAULT; CURE"."""

    def __init__(self, path: str | Path, fault: str, cure: str) -> None:
        super().__init__(fault, path=path, cure=cure)
        self.args = (path, fault, cure)  # from which a copy in another process is made

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.fault}; {self.cure}"


class Interrupted(LthError):
    """Stopped by Ctrl-C or SIGTERM; all that was done is kept."""

    exit_code = 130
