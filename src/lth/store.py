"""A run's folder: what is done, and how files get there. Knows bytes and names, no tensors.

A training's folder exists whole or not at all: written beside, then renamed. What begins with a dot is unfinished.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from lth import seals
from lth.config import Experiment, merge, resolve, to_toml
from lth.errors import LthError, UsageError

EXPERIMENT, ENVIRONMENT, SUMMARY = "experiment.toml", "environment.json", "summary.json"
TICKET, TRAINED = "ticket.safetensors", "trained.safetensors"  # a training's; the run's own TICKET is what it was given
STATUSES = ("done", "diverged", "collapsed")
LOCK_SECONDS = 1.0
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# ------------------------------------------------------------------------------------------------------------- the run


def joined(folder: Path, experiment: Experiment) -> Experiment:
    """The experiment that the run's folder will hold with `experiment` in it. Writes nothing.

    Raises UsageError where the folder is something else, or holds another experiment.
    """
    path = folder / EXPERIMENT
    try:
        if path.exists():
            return merge(read_experiment(folder), experiment)
        if folder.exists() and any(not f.name.startswith(".") for f in folder.iterdir()):
            raise UsageError(f"it holds files but no {EXPERIMENT}: it is no run")
    except UsageError as error:
        raise UsageError(f"{folder}: {error}\ngive another --out") from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be a run's folder: {error.strerror}; give another --out") from None
    return experiment


def open_run(folder: Path, experiment: Experiment) -> Experiment:
    """Begin the run in its folder, which is locked, or extend the one there; the experiment that it now holds."""
    experiment = joined(folder, experiment)
    text = seals.sealed(f"# {seals.KEY}: {seals.BLANK}\n{to_toml(experiment)}".encode())
    path = folder / EXPERIMENT
    if not path.exists() or path.read_bytes() != text:
        write_file(path, text)
    return experiment


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run. Raises UsageError where its file is not as it was written."""
    path = folder / EXPERIMENT
    try:
        fault = seals.text_fault(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    experiment = resolve(path)
    if fault:
        raise UsageError(
            f"{path} is damaged: {fault}; if you changed it yourself, remove its first line; else put a copy back, or "
            f"write it again with what `lth show` prints for the command in {ENVIRONMENT}"
        )
    return experiment


def read_environment(folder: Path, experiment: Experiment) -> dict[str, Any] | None:
    """What environment.json says of a run; None where there is none. Raises UsageError where it is damaged."""
    path = folder / ENVIRONMENT
    mend = f"`lth repair {quoted(folder)}` makes it again, or copy it again"
    environment = read_json(path, mend)
    if environment and environment.get("experiment", own := experiment.digest(0)) != own:
        raise UsageError(f"{path} is damaged: it belongs to another run; {mend}")
    return environment


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make the run's folder if need be, and hold it against other processes; a dead owner holds nothing."""
    make_folder(folder)
    with failures_named(folder / ".lock"):
        handle = (folder / ".lock").open("w")
    with handle:
        try:
            patience = time.monotonic() + LOCK_SECONDS
            while not (held := _held(handle)) and time.monotonic() < patience:
                time.sleep(0.013)  # it may be `in_use`, asking for a moment
        except OSError as error:
            raise LthError(f"{folder} cannot be locked: {error.strerror}; give an --out on another disk") from None
        if not held:
            raise UsageError(f"{folder} is in use by another lth; wait for it, or give another --out")
        yield


def make_folder(folder: Path) -> None:
    """A folder that can be written. Raises UsageError where there can be none, LthError where the disk fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        kind = LthError if error.errno in FULL | {errno.EIO} else UsageError
        raise kind(f"{folder} cannot be written: {error.strerror}; give another --out") from None


def _held(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_use(folder: Path) -> bool:
    """Whether a process holds the run's folder."""
    try:
        with (folder / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_json(path: Path, instead: str = "copy it again, or give another --out") -> dict[str, Any] | None:
    """The object in a JSON file, its seal checked; None where there is no file."""
    try:
        content = path.read_bytes()
        value = json.loads(content.decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {instead}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}; {instead}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: it holds no JSON object; {instead}")
    if fault := seals.text_fault(content):
        raise UsageError(f"{path} is damaged: {fault}; {instead}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def sealed_json(value: Mapping[str, Any]) -> bytes:
    return seals.sealed(json_bytes({**value, seals.KEY: seals.BLANK}))


def quoted(path: Path) -> str:
    """A path as a command line takes it."""
    return shlex.quote(str(path))


# ------------------------------------------------------------------------------------------------------------ trainings


def is_done(folder: Path, training_id: str) -> bool:
    return (folder / training_id / SUMMARY).exists()


def outcome(folder: Path, training_id: str, digest: str | None = None) -> dict[str, Any] | None:
    """The summary of a stored training; None where it is not done.

    `digest` is the training's in the plan (`plan.digests`), where that is known. Raises UsageError where the summary is
    damaged, or that of another training.
    """
    path = folder / training_id / SUMMARY
    again = mended_by(folder)
    summary = read_json(path, again)
    if summary is not None and summary.get("status") not in STATUSES:
        raise UsageError(f"{path} is damaged: it has no status; {again}")
    if summary and digest and summary.get("training", digest) != digest:
        raise UsageError(f"{path} is damaged: it is of another training, or another run; {again}")
    return summary


def status(folder: Path, training_id: str) -> str | None:
    """How a stored training ended, one of STATUSES; None where it is not done."""
    summary = outcome(folder, training_id)
    return summary["status"] if summary else None


def mended_by(folder: Path) -> str:
    """The command for a run's folder in which something is damaged."""
    return f"`lth repair {quoted(folder)}` says what can be done"


def write_training(folder: Path, training_id: str, files: Mapping[str, bytes]) -> None:
    """Store a training: all files or, where that fails, none. Its checkpoint goes."""
    target = folder / training_id
    beside = _beside(target)
    with failures_named(beside):
        beside.mkdir(parents=True)
        for name, content in files.items():
            _write_synced(beside / name, content)
        if target.exists() and not is_done(folder, training_id):
            # what is left of a damaged one, and the branches below it
            for name in sorted(files, key=lambda name: name == SUMMARY):  # which makes it whole: the last
                (beside / name).replace(target / name)
            beside.rmdir()
        else:
            try:
                beside.rename(target)
            except OSError:
                if not is_done(folder, training_id):
                    raise
                shutil.rmtree(beside)  # a worker of a driver that died was quicker, with the same bits
    checkpoint_path(folder, training_id).unlink(missing_ok=True)


def read_file(folder: Path, name: str) -> bytes:
    """The bytes of `TRAINING/FILE`, which are those that the training's summary tells of.

    Raises UsageError naming it where it is missing, cannot be read, or is another.
    """
    training_id, _, file = name.rpartition("/")
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {mended_by(folder)}") from None
    summary = outcome(folder, training_id) or {}
    if fault := file_fault(content, summary, file):
        raise UsageError(f"{path} is damaged: {fault}; {mended_by(folder)}")
    return content


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """What a training's summary tells of the files beside it."""
    return {name: seals.digest(content) for name, content in sorted(files.items())}


def file_fault(content: bytes, summary: Mapping[str, Any], file: str) -> str | None:
    """What is wrong with a training's file, by its summary; None where that tells nothing of it."""
    told = told_of(summary)
    other = file in told and seals.digest(content) != told[file]
    return f"it is not the file that {SUMMARY} beside it tells of" if other else None


def told_of(summary: Mapping[str, Any], kind: str = "files") -> dict[str, str]:
    """File -> digest, of the files beside a summary, or of those that the training was `made_from`."""
    told = summary.get(kind)
    return told if isinstance(told, dict) else {}


def has_trained(folder: Path, training_id: str) -> bool:
    return (folder / training_id / TRAINED).exists()


def drop_trained(folder: Path, training_id: str) -> None:
    """Give the place of trained weights back: the training can be done again from its ticket, to the same bits."""
    with failures_named(folder / training_id / TRAINED):
        (folder / training_id / TRAINED).unlink(missing_ok=True)


def start_name(trial: int) -> str:
    return f"trial-{trial}/start.safetensors"


def read_if_there(path: Path) -> bytes | None:
    """A file's bytes; None where there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def checkpoint_path(folder: Path, training_id: str) -> Path:
    target = folder / training_id
    return target.parent / f".{target.name}.checkpoint"


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written; checkpoints stay, but for those of finished trainings."""
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            if name.startswith(".") and name.endswith(".unfinished"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            elif path.suffix == ".checkpoint" and has_trained(Path(parent), path.stem.removeprefix(".")):
                path.unlink(missing_ok=True)  # killed between storing the training and removing this


# ---------------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader, or a crash, sees the old one or the new one."""
    with replacing(path, "wb") as handle:
        handle.write(content)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """The same, for content that is written bit by bit; a failure in between leaves the old file."""
    beside = _beside(path)
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


def _beside(path: Path) -> Path:
    """Where it is written first: a name that no other process has, on this machine or another."""
    return path.parent / f".{path.name}.{uuid4().hex[:12]}.unfinished"


def _write_synced(path: Path, content: bytes) -> None:
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
