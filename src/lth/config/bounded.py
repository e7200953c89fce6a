"""Files read whole, but only regular files, and not beyond a number of bytes: a pipe never ends, and memory does."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lth.config.files import KINDS


class TooLarge(ValueError):
    """A file has more bytes than are read of its kind."""


def read_bounded(path: Path, most: int) -> bytes:
    """A regular file's bytes. Raises OSError as `open` does, TooLarge, and ValueError where it is no regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait for one
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise ValueError(f"it is {KINDS.get(stat.S_IFMT(mode), 'no regular file')}, expected a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise TooLarge(f"it has more than the {most:,} bytes that are read of such a file")
    return content
