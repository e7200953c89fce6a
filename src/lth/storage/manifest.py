"""The manifest of a run's folder: the checksums of its tables, missing files, and a copy of its experiment.

    {"experiment": DIGEST, "experiment.toml": TEXT, "files": {NAME: [CHECKSUM]}, "left_out": [PATTERN], "seal": SEAL}

While a table is replaced it has two checksums, the new and the old one, so that it matches one of them even if the
process is killed. `experiment` is the digest of all settings that cannot be extended; environment.json has it too.
Version 0.1 wrote no manifest: its tables are read with a warning.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from lth.config import Experiment
from lth.config.registry import MEASURES
from lth.errors import Damaged
from lth.storage import atomic, checksums, documents, layout

OTHER = f"it does not match {layout.MANIFEST}"
log = logging.getLogger(__name__)

Document = dict[str, Any]


def read(folder: Path, experiment: Experiment | None = None) -> Document | None:
    """Read the manifest; None if it does not exist.

    Raises UsageError if it is damaged or belongs to another experiment.
    """
    path = folder / layout.MANIFEST
    document = documents.read_json(path, layout.mended_by(folder))
    if document is None:
        return None
    if not _well_formed(document):
        raise Damaged(path, "it does not list files and their checksums", layout.mended_by(folder))
    if experiment and document.get("experiment", digest := experiment.digest(0)) != digest:
        raise Damaged(path, f"it belongs to another run than {layout.EXPERIMENT}", layout.mended_by(folder))
    return document


def _well_formed(document: Document) -> bool:
    files, left_out = document.get("files"), document.get("left_out", [])
    known = isinstance(files, dict) and all(isinstance(several, list) for several in files.values())
    return known and isinstance(left_out, list) and checksums.KEY in document


def is_whole(folder: Path) -> bool:
    """Return whether the manifest matches its own checksum, for whichever run it was written."""
    try:
        return read(folder) is not None
    except Damaged:
        return False


def copy_of_experiment(folder: Path) -> str | None:
    """The copy of experiment.toml without its checksum, or None if there is no copy.

    Raises UsageError as `read` does.
    """
    text = (read(folder) or {}).get(layout.EXPERIMENT)
    return text if isinstance(text, str) else None


def left_out(document: Document | None, name: str) -> bool:
    """Return whether a file is missing on purpose, like most files of the runs in results/."""
    return any(fnmatch(name, str(pattern)) for pattern in (document or {}).get("left_out", []))


# ------------------------------------------------------------------------------------------------------------- checking


def read_table(folder: Path, name: str) -> bytes:
    """Read a table. Raises ValueError if it does not match the manifest, OSError if it cannot be read."""
    content, fault = checked_table(folder, name)
    if fault:
        raise ValueError(fault)
    return content


def checked_table(folder: Path, name: str) -> tuple[bytes, str | None]:
    """Read a table and describe what is wrong with it, if anything."""
    content = atomic.read(folder / name)
    if fault_of(folder, name, content):
        with _locked(folder, fcntl.LOCK_SH):  # a process that was replacing the table has finished
            content = atomic.read(folder / name)
            return content, fault_of(folder, name, content)
    return content, None


def fault_of(folder: Path, name: str, content: bytes) -> str | None:
    """Describe what is wrong with a table; None if it is intact or not listed in the manifest."""
    return mismatch(read(folder), name, content)


def mismatch(document: Document | None, name: str, content: bytes) -> str | None:
    """Like `fault_of`, for a manifest that was already read."""
    recorded = (document or {}).get("files", {})
    return OTHER if name in recorded and checksums.digest(content) not in recorded[name] else None


def tables(folder: Path) -> list[str]:
    """The tables in a run's folder: of trainings, of measures, and of tickets whose summary does not list them."""
    names = [layout.SUMMARY_TABLE, layout.CURVES_TABLE, layout.PACKED_CURVES]
    paths = [*(folder / name for name in names), *folder.glob(f"{layout.MEASURES}/*.csv")]
    paths += [layout.first_measure_path(folder, name) for name in MEASURES]
    alone = [path for _, path in layout.training_folders(folder) if not (path / layout.SUMMARY).exists()]
    paths += [path / name for path in alone for name in layout.ANATOMY]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def warn_of_unsealed(folder: Path, names: Collection[str]) -> None:
    """Warn on stderr, once, about tables without a checksum."""
    recorded = (read(folder) or {}).get("files", {})
    if lacking := [name for name in names if name not in recorded]:
        _warn(str(folder), ", ".join(lacking))


@cache
def _warn(folder: str, names: str) -> None:
    mend = f"`lth repair {layout.quoted(Path(folder))} --yes` adds them"
    log.warning("%s has no checksums of %s, as version 0.1 wrote none; %s", folder, names, mend)


# -------------------------------------------------------------------------------------------------------------- writing


def record(folder: Path, experiment: Experiment, text: str) -> None:
    """Store a copy of experiment.toml."""
    facts = _facts(experiment, text)
    with _changing(folder) as document:
        if any(document.get(key) != fact for key, fact in facts.items()):
            _write(folder, document | facts)


def add(folder: Path, experiment: Experiment, text: str, names: Collection[str]) -> None:
    """Add the checksums of tables that have none."""
    with _changing(folder) as document:
        files = {name: [_digest(folder / name)] for name in names} | document["files"]
        _write(folder, _facts(experiment, text) | document | {"files": files})


def seal(folder: Path, experiment: Experiment, text: str, left_out: Collection[str] = ()) -> None:
    """Write a new manifest of all tables; `left_out` are patterns of the files that are missing on purpose."""
    files = {name: [_digest(folder / name)] for name in tables(folder)}
    with _locked(folder, fcntl.LOCK_EX):
        _write(folder, _facts(experiment, text) | {"files": files, "left_out": sorted(left_out)})


def _facts(experiment: Experiment, text: str) -> Document:
    return {"experiment": experiment.digest(0), layout.EXPERIMENT: text}


def write_table(folder: Path, name: str, content: bytes) -> None:
    """Replace a table and its checksum."""
    with replacing(folder, [name], "wb") as (handle,):
        handle.write(content)


@contextmanager
def replacing(folder: Path, names: Collection[str], mode: str = "w") -> Iterator[list[IO[Any]]]:
    """Replace several tables that are written in pieces, with their checksums; on failure the old ones remain."""
    with ExitStack() as stack:
        written = [stack.enter_context(atomic.written_beside(folder / name, mode)) for name in names]
        yield [handle for handle, _ in written]
        for handle, _ in written:
            atomic.sync(handle)
        _install(folder, {name: beside for name, (_, beside) in zip(names, written, strict=True)})


def _install(folder: Path, written: Mapping[str, Path]) -> None:
    """Write the new checksums, rename the new tables over the old ones, then remove the old checksums."""
    new = {name: [_digest(beside)] for name, beside in written.items()}
    with _changing(folder) as document:
        recorded = document["files"]
        changed = any(recorded.get(name) != new[name] for name in new)
        if changed:
            _write(
                folder, document | {"files": recorded | {n: new[n] + _old(folder, n, recorded, new[n]) for n in new}}
            )
        for name, beside in written.items():
            atomic.rename(beside, folder / name)
        if changed:
            _write(folder, document | {"files": recorded | new})


def _old(folder: Path, name: str, recorded: Mapping[str, Any], new: list[str]) -> list[str]:
    """The checksum of the table that is about to be replaced; empty if it does not exist or is damaged."""
    if not (folder / name).exists() or (there := _digest(folder / name)) in new:
        return []
    return [there] if name not in recorded or there in recorded[name] else []


def _digest(path: Path) -> str:
    with atomic.open_plain(path, "rb") as handle:
        return hashlib.file_digest(cast("Any", handle), "sha256").hexdigest()


def _write(folder: Path, document: Document) -> None:
    atomic.write_file(folder / layout.MANIFEST, documents.sealed_json(document))


@contextmanager
def _changing(folder: Path) -> Iterator[Document]:
    """Yield the manifest, or a new one, while other processes are locked out."""
    atomic.make_folders(folder)
    with _locked(folder, fcntl.LOCK_EX):
        yield read(folder) or {"files": {}, "left_out": []}


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Lock the folder for some milliseconds. On a file system without locks this does nothing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
