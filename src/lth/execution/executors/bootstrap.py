"""Detect scripts that call lth.run at their top level: each process that the run starts executes the script again.

Such a process refuses the call and ends with a special exit code, which tells the run why it died.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Collection
from multiprocessing.process import BaseProcess

from lth.errors import UsageError

EXIT_CODE = 79  # exit code of a process that refused the call
PATIENCE_S = 5.0  # seconds until a dead process has an exit code
UNGUARDED = (
    "the run starts processes, and each executes the script again: call lth.run below "
    '`if __name__ == "__main__":`, or give workers=1'
)


def refuse_in_starting_process() -> None:
    """End this process if it is being started and executes the script of its parent."""
    if getattr(
        multiprocessing.current_process(), "_inheriting", False
    ):  # the attribute that multiprocessing itself checks
        sys.stderr.write(f"lth: {UNGUARDED}\n")
        sys.exit(EXIT_CODE)


def check_guarded(processes: Collection[BaseProcess]) -> None:
    """Raise UsageError if one of the dead processes refused the call."""
    for process in processes:
        process.join(PATIENCE_S)
    if any(process.exitcode == EXIT_CODE for process in processes):
        raise UsageError(UNGUARDED)
