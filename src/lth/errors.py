"""The two ways in which lth gives up: wrong use (exit code 2) and failure while working (exit code 1).

Both are for the person at the keyboard: one clear line that says what was given, what was expected, and what to type.
"""

from __future__ import annotations


class LthError(Exception):
    """Work could not go on: a full disk, a lost network, a file that vanished."""

    exit_code = 1


class UsageError(LthError):
    """What was asked for cannot be done as asked: a wrong name, value, file or combination."""

    exit_code = 2
