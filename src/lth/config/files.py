"""Files that the user names, opened only where they are files: a pipe would wait, a device might never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_file(path: Path) -> BinaryIO:
    """Open a file, or a link to one, for reading. Raises OSError for a pipe, a device, a socket or a folder."""
    if kind := kind_of(path):  # opening a device can do something: a tape is rewound
        raise _no_file(path, kind)
    handle = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if kind := _kind(os.fstat(handle.fileno()).st_mode):  # put in its place since
        handle.close()
        raise _no_file(path, kind)
    return handle


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
