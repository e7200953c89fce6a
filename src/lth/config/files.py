"""Open files that the user names, only if they are regular files: reading a pipe or device might never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_file(path: Path) -> BinaryIO:
    """Open a file, or a link to one, for reading. Raises OSError for a pipe, a device, a socket or a folder."""
    if kind := kind_of(path):  # checked first, because opening alone waits for a pipe and rewinds a tape
        raise OSError(errno.EINVAL, f"it is {kind}, expected a file", str(path))
    return path.open("rb")


def read_file(path: Path, most: int = -1) -> bytes:
    """Read at most `most` bytes of a file. Raises OSError as `open_file` does."""
    with open_file(path) as handle:
        return handle.read(most)


def kind_of(path: Path) -> str | None:
    """What is at a path instead of a file, such as "a pipe"; None if it is a file. Raises OSError if nothing is."""
    return _kind(path.stat().st_mode)


def is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a device or a socket."""
    try:
        return kind_of(path) is not None
    except OSError:
        return False


def _kind(mode: int) -> str | None:
    return KINDS.get(stat.S_IFMT(mode))


class TooLarge(ValueError):
    """A file is larger than the limit for its kind."""


def read_bounded(path: Path, most: int) -> bytes:
    """Read a regular file. Raises OSError as `open` does, TooLarge, and ValueError if it is not a regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its writer
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise ValueError(f"it is {KINDS.get(stat.S_IFMT(mode), 'no regular file')}, expected a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise TooLarge(f"it is larger than the maximum of {most:,} bytes for such a file")
    return content
