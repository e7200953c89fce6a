"""Files written whole: a reader, or a crash, sees the old content or the new."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lth.errors import LthError, UsageError
from lth.storage.layout import unfinished

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def make_folder(folder: Path) -> None:
    """A folder that can be written. Raises UsageError where there can be none, LthError where the disk fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        kind = LthError if error.errno in FULL | {errno.EIO} else UsageError
        raise kind(f"{folder} cannot be written: {error.strerror}; give another --out") from None


def read_if_there(path: Path) -> bytes | None:
    """A file's bytes; None where there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write_file(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader, or a crash, sees the old one or the new one."""
    with replacing(path, "wb") as handle:
        handle.write(content)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """The same, for content that is written bit by bit; a failure in between leaves the old file."""
    beside = unfinished(path)
    with failures_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = "b" not in mode
            with beside.open(mode, encoding="utf-8" if text else None, newline="" if text else None) as handle:
                yield handle
                _sync(handle)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        _sync(handle)


def _sync(handle: IO[Any]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Turn a failing disk into one clear line: what could not be written, and that nothing stored is lost."""
    try:
        yield
    except OSError as error:
        mend = "make room" if error.errno in FULL else "mend that"
        raise LthError(
            f"{path} could not be written: {error.strerror}. What is stored is whole; "
            f"{mend} and run the same command again to go on"
        ) from None
