"""Files that the user names, opened only where they are files: a pipe would wait, a device might never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_file(path: Path) -> BinaryIO:
    """Open a file, or a link to one, for reading. Raises OSError for a pipe, a device, a socket or a folder."""
    if kind := kind_of(path):  # before it is opened: that alone waits for a pipe, and rewinds a tape
        raise OSError(errno.EINVAL, f"it is {kind}, expected a file", str(path))
    return path.open("rb")


def read_file(path: Path, most: int = -1) -> bytes:
    """A file's bytes, `most` of them at most. Raises OSError as `open_file` does."""
    with open_file(path) as handle:
        return handle.read(most)


def kind_of(path: Path) -> str | None:
    """What lies at a path in place of a file, such as "a pipe"; else None. Raises OSError where nothing does."""
    return _kind(path.stat().st_mode)


def is_special(path: Path) -> bool:
    """Whether a pipe, a device or a socket lies at a path."""
    try:
        return kind_of(path) is not None
    except OSError:
        return False


def _kind(mode: int) -> str | None:
    return KINDS.get(stat.S_IFMT(mode))
