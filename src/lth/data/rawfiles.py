"""A dataset's official files on disk: plain or gzipped, verified by checksum, stored atomically.

Missing and damaged files are treated differently. A source without a file is skipped; a damaged file is reported,
because the user might otherwise train for hours on wrong data.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from lth.config.files import is_special, kind_of, read_file
from lth.data.registry import IMAGE_BYTES, DatasetInfo, RawFile
from lth.errors import LthError, UsageError

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_OVERHEAD = 2**20  # gzip adds a header and up to a few bytes per thousand
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Absent(Exception):
    """A source does not have the dataset; `lost` is true if it failed during the transfer."""

    def __init__(self, reason: str, lost: bool = False):
        super().__init__(reason)
        self.lost = lost


class Damaged(Exception):
    """A file exists but does not have the expected content."""


def read_folder(folder: Path, info: DatasetInfo) -> dict[str, bytes]:
    """The uncompressed, verified content of each of the dataset's files in the folder, by name."""
    try:
        paths = [_find(folder, file) for file in info.files]
        return {file.name: _read(path, file) for path, file in zip(paths, info.files, strict=True)}
    except OSError as error:
        raise Damaged(f"{error.filename or folder} cannot be read: {error.strerror}") from None


def unpack(content: bytes, file: RawFile) -> bytes:
    """The content of a plain or gzipped file.

    Raises Damaged unless size and SHA-256 are the official ones and, in a file of records, the labels are in range.
    """
    raw = _gunzip(content, file.size) if content.startswith(_GZIP_MAGIC) else content
    if len(raw) > file.size:
        raise Damaged(f"has more than the expected {file.size:,} bytes")
    if len(raw) < file.size:
        raise Damaged(f"has {len(raw):,} bytes, expected {file.size:,}")
    if file.sha256 and (sha256 := hashlib.sha256(raw).hexdigest()) != file.sha256:
        raise Damaged(f"has sha256 {sha256[:16]}..., expected {file.sha256[:16]}...: some of its bytes were altered")
    for place, count in enumerate(file.labels):
        labels = raw[place :: len(file.labels) + IMAGE_BYTES]
        if (worst := max(labels)) >= count:
            raise Damaged(f"has the label {worst} in record {labels.index(worst):,}, expected 0 to {count - 1}")
    return raw


def most_bytes(file: RawFile) -> int:
    """The maximum size of the file, plain or gzipped; nothing beyond it is read."""
    return file.size + _GZIP_OVERHEAD


def store(folder: Path, contents: dict[str, bytes]) -> None:
    """Write the files into the folder, each under a temporary name that is renamed when it is complete.

    A reader never sees a partial file, and several processes may store the same dataset at once.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content)
    except OSError as error:
        if error.errno in _SPACE_ERRORS:
            raise LthError(f"cannot store data in {folder}: {error.strerror}; make room there and try again") from None
        raise UsageError(
            f"cannot store data in {folder}: {error.strerror}; "
            "make that folder writable, or lay the data out in a folder of yours and give it with --data-root"
        ) from None


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    with writing_whole(path) as out:
        out.write(content)


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file atomically with content that is written in pieces."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
        os.chmod(beside, 0o644)  # noqa: PTH101  (mkstemp makes it private; a cache may be shared)
        os.replace(beside, path)  # noqa: PTH105
    finally:
        Path(beside).unlink(missing_ok=True)


def _find(folder: Path, file: RawFile) -> Path:
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if is_special(path):
            raise Damaged(f"{path} is {kind_of(path)}, expected a file")
        if path.is_file():
            return path
    raise Absent(f"no {file.name} (nor .gz) in {folder}")


def _read(path: Path, file: RawFile) -> bytes:
    content = read_file(path, most_bytes(file) + 1)
    if path.suffix == ".gz" and not content.startswith(_GZIP_MAGIC):
        raise Damaged(f"{path} is not a gzip file")
    try:
        return unpack(content, file)
    except Damaged as damage:
        raise Damaged(f"{path} {damage}") from None


def _gunzip(packed: bytes, size: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(packed)) as stream:
            return stream.read(size + 1)
    except EOFError:
        raise Damaged("is truncated: the gzip stream breaks off") from None
    except (OSError, zlib.error) as error:
        raise Damaged(f"does not unpack: {error}") from None
