"""The exceptions of lth: wrong use (exit code 2), failure while working (1), interruption (130).

Each message is one line that says what was given, what was expected, and what to type. Its parts are fields of the
exception; no message is parsed.
"""

from __future__ import annotations

from pathlib import Path


class LthError(Exception):
    """The work could not continue: a full disk, a lost connection, a file that disappeared.

    `path` is the file, `fault` what is wrong, `cure` what to do about it, `command` what to type to continue. The
    message is "PATH: FAULT; CURE. To continue: COMMAND", without the parts that are missing.
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
        command = f". To continue: {self.command}" if self.command else ""
        return f"{place}{self.fault}{cure}{command}"


class UsageError(LthError):
    """The request cannot be carried out: a wrong name, value, file or combination."""

    exit_code = 2


class Damaged(UsageError):
    """A stored file differs from what was written: "PATH is damaged: FAULT; CURE"."""

    def __init__(self, path: str | Path, fault: str, cure: str) -> None:
        super().__init__(fault, path=path, cure=cure)
        self.args = (path, fault, cure)  # the arguments from which pickle makes a copy in another process

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.fault}; {self.cure}"


class Interrupted(LthError):
    """Stopped by Ctrl-C or SIGTERM. All finished work is stored."""

    exit_code = 130
