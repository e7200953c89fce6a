"""Read a dataset's files from an official .tar.gz in memory. Nothing in it is written to disk under its own name."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from io import BytesIO

from lth.data.mirrors import download
from lth.data.rawfiles import Absent, Damaged, unpack
from lth.data.registry import Archive, DatasetInfo, RawFile


def read_archive(archive: Archive, info: DatasetInfo) -> dict[str, bytes]:
    """The verified content of each of the dataset's files by name. Raises `Absent` if the archive is unavailable."""
    packed = download(archive.url, limit=archive.size)
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if md5 != archive.md5:
        raise Absent(f"what it sent has md5 {md5}, expected {archive.md5}; not used")
    try:
        return _contents(packed, archive, info)
    except Damaged as damage:
        raise Absent(f"what it holds {damage}; not used") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise Absent(f"what it sent does not unpack: {error}; not used") from None


def _contents(packed: bytes, archive: Archive, info: DatasetInfo) -> dict[str, bytes]:
    if info.python and archive.folder == info.python.folder:
        from lth.data.cifar import from_pickle, most_pickled

        layout = info.python
        held = _members(packed, archive.folder, layout.files, most_pickled(max(info.files, key=_size)))
        return {f.name: from_pickle(held[n], f, layout) for n, f in zip(layout.files, info.files, strict=True)}
    names = [file.name for file in info.files]
    held = _members(packed, archive.folder, names, max(map(_size, info.files)))
    return {file.name: unpack(held[file.name], file) for file in info.files}


def _size(file: RawFile) -> int:
    return file.size


def _members(packed: bytes, folder: str, names: list[str] | tuple[str, ...], most: int) -> dict[str, bytes]:
    """The regular files `folder`/name of a .tar.gz, unpacked up to their maximum total size."""
    wanted = {f"{folder}/{name}": name for name in names}
    held: dict[str, bytes] = {}
    with tarfile.open(fileobj=BytesIO(packed), mode="r|gz") as tar:
        for member in tar:
            if member.offset_data + member.size > (len(names) + 1) * most:
                raise Damaged(f"is more than {len(names)} files of {most:,} bytes")
            content = tar.extractfile(member) if member.isreg() and member.name in wanted else None
            if content:
                held[wanted[member.name]] = content.read()
            if len(held) == len(wanted):
                return held
    raise Damaged(f"lacks {', '.join(name for name in names if name not in held)}")
