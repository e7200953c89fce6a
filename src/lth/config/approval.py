"""The Python files that a user lets lth run: a list of the user's own, outside the folders of runs.

An experiment or a ticket file may name FILE.py:FUNCTION, and may come from anybody. So a file is run only where this
user has approved it, at its place and with its bytes: by naming it in a command or a call, or by `lth approve FILE.py`.
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

MOST_BYTES = 8 * 2**20  # of the list: some 40,000 approvals
_approved: set[tuple[str, str]] = set()  # by this process: they hold also where the list cannot be written


def list_path() -> Path:
    """Where the list is: approved.json in the user's state folder."""
    import platformdirs

    return Path(platformdirs.user_state_dir("lth")) / "approved.json"


def place(path: str | Path) -> Path:
    """A file's place: links in its folder are followed, as imports from it do; a link that the file is, is not."""
    return Path(path).parent.resolve() / Path(path).name


def is_approved(path: Path, sha256: str) -> bool:
    """Whether the user has approved the file at this place with these bytes. Raises UsageError for a damaged list."""
    wanted = (str(path), sha256)
    return wanted in _approved or any((e["path"], e["sha256"]) == wanted for e in _entries())


def approve(path: Path, sha256: str) -> str | None:
    """Put a file on the list; what to say where the list cannot be written, and the approval holds for now only."""
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
    """Why a file is not run, and the line that approves it."""
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
    except OSError:  # no list, or one that this user may not read: nothing is approved
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
    """Hold the list against other processes that add to it."""
    file = list_path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file.with_name("approved.lock"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
