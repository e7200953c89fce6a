"""Atomic file writes: a reader, or a process restarted after a crash, sees either the old or the new content."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from lth.errors import LthError, UsageError
from lth.storage import layout

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_SYNCED = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EACCES,
}  # some file systems cannot sync folders; others do not allow reading them


def make_folder(folder: Path) -> None:
    """Create a writable folder if it does not exist.

    Raises UsageError if it cannot be one, LthError if the disk fails.
    """
    try:
        make_folders(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        kind = LthError if error.errno in FULL | {errno.EIO} else UsageError
        raise kind(f"{folder} cannot be written: {error.strerror}; give another --out") from None


def make_folders(folder: Path) -> None:
    """Create a folder and its missing parents and sync them, so that they survive a power cut."""
    if folder.is_dir():
        return
    missing = [folder, *takewhile(lambda path: not path.exists(), folder.parents)]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def read(path: Path, most: int = -1) -> bytes:
    """Read at most `most` bytes of a file. Raises OSError if the path is a link (links are not followed) or a pipe."""
    with open_plain(path, "rb") as handle:
        return handle.read(most)


def read_if_there(path: Path) -> bytes | None:
    """Like `read`, but return None if the file does not exist."""
    try:
        return read(path)
    except FileNotFoundError:
        return None


def open_plain(path: Path, mode: str) -> IO[Any]:
    """Open a regular file. Raises OSError if the path is a link, a pipe or a device."""
    text = None if "b" in mode else "utf-8"
    handle = open(path, mode, encoding=text, newline=text and "", opener=_without_links)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    return handle


def _without_links(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, and links are not followed", path) from None
        raise


def write_file(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    with replacing(path, "wb") as handle:
        handle.write(content)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Replace a file atomically with content that is written in pieces; if writing fails, the old file remains."""
    with written_beside(path, mode) as (handle, beside):
        yield handle
        sync(handle)
        handle.close()
        rename(beside, path)


@contextmanager
def written_beside(path: Path, mode: str = "w") -> Iterator[tuple[IO[Any], Path]]:
    """Create a temporary file next to `path` and yield it with its path; it is deleted at the end unless it was
    renamed.
    """
    beside = layout.unfinished(path)
    with failures_named(path):
        make_folders(path.parent)
        try:
            with open_plain(beside, mode.replace("w", "x")) as handle:
                yield handle, beside
        finally:
            beside.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    with open_plain(path, "xb") as handle:
        handle.write(content)
        sync(handle)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing an existing file, and sync both parent folders."""
    source.replace(target)
    for folder in {source.parent, target.parent}:
        sync_folder(folder)


def sync(handle: IO[Any]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, as fsync does for the bytes of a file."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NOT_SYNCED:
            raise


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Convert an OSError of the disk into an LthError that names the path and says that nothing stored is lost."""
    try:
        yield
    except OSError as error:
        mend = "make room" if error.errno in FULL else "mend that"
        raise LthError(
            f"{path} could not be written: {error.strerror}. Everything stored is complete; "
            f"{mend} and run the same command again to go on"
        ) from None
