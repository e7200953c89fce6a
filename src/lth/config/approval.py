"""The user's list of approved Python files, which lth may run. It is stored outside of run folders.

An experiment or a ticket file may name FILE.py:FUNCTION, and may come from anybody. A file is run only if this user has
approved its path and content, by naming it in a command or a call, or by `lth approve FILE.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lth.config.files import read_bounded
from lth.errors import UsageError

MOST_BYTES = 8 * 2**20  # maximum size of the list, about 40,000 approvals
_approved: set[tuple[str, str]] = set()  # approved in this process, even if the list cannot be written


def list_path() -> Path:
    """The path of the list: approved.json in the user's state folder."""
    import platformdirs

    return Path(platformdirs.user_state_dir("lth")) / "approved.json"


def place(path: str | Path) -> Path:
    """The path of a file with links in its folder resolved, as imports resolve them, but not if the file itself is a
    link.
    """
    return Path(path).parent.resolve() / Path(path).name


def is_approved(path: Path, sha256: str) -> bool:
    """Return whether the user has approved this path with this content. Raises UsageError if the list is damaged."""
    wanted = (str(path), sha256)
    return wanted in _approved or any((e["path"], e["sha256"]) == wanted for e in _entries())


def approve(path: Path, sha256: str) -> str | None:
    """Add a file to the list.

    Returns a warning if the list cannot be written, so that this process only approves it.
    """
    if is_approved(path, sha256):
        return None
    _approved.add((str(path), sha256))
    entry = {"path": str(path), "sha256": sha256, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        with _alone():
            _write([*_entries(), entry])
    except OSError as error:
        return f"{path} is approved for this time only: {list_path()} cannot be written: {error.strerror}"
    return None


def refusal(key: str, path: Path) -> UsageError:
    """The reason why a file is not run, and the command that approves it."""
    return UsageError(
        f"{key}: {path.name} is not run: you have not approved this file, or it has changed since. "
        f"Read it; if you trust it, type: lth approve {shlex.quote(str(path))}"
    )


def _entries() -> list[dict[str, Any]]:
    file = list_path()
    try:
        entries = json.loads(read_bounded(file, MOST_BYTES))["files"]
        if not all(isinstance(e["path"], str) and isinstance(e["sha256"], str) for e in entries):
            raise ValueError("an entry has no path or sha256")
    except OSError:  # without a readable list, nothing is approved
        return []
    except (ValueError, TypeError, KeyError, RecursionError):
        fault = "is damaged: remove it, and approve your files again"
        raise UsageError(f"the list of approved files, {file}, {fault}") from None
    return entries


def _write(entries: list[dict[str, Any]]) -> None:
    file = list_path()
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write((json.dumps({"files": entries}, indent=2) + "\n").encode())
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Lock the list against other processes."""
    file = list_path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file.with_name("approved.lock"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
