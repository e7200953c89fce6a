"""A custom model, from a Python file: `my.py:build`."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lth.config import nearest
from lth.errors import UsageError


def build(name: str, shape: tuple[int, ...], classes: int, sha256: str | None = None) -> nn.Module:
    """The module that the function of `name` (FILE.py:FUNCTION) returns; it may draw from the global generator.

    The function is given `shape`, of an input without the batch, and `classes`, if it has parameters of these names.
    `sha256` is of the file as the experiment was made with it: it is never another that is run.
    Raises UsageError where there is none, it fails, or what it returns does not take such inputs to [batch, classes].
    """
    path, _, function = name.rpartition(":")
    make = _function(Path(path).absolute(), function, sha256)
    known: dict[str, Any] = {"shape": shape, "classes": classes}
    wanted = inspect.signature(make).parameters
    needed = [n for n, p in wanted.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if strange := [n for n in needed if n not in known]:
        raise UsageError(f"{name} wants {', '.join(strange)}, but is given shape and classes, or what it names of them")
    with _failures_named(name), _importing(Path(path).absolute().parent):
        model = make(**{n: value for n, value in known.items() if n in wanted})
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")
    if extra := [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise UsageError(f"{name}: {extra[0]} is no tensor, which is all that a run stores; use lth.find_tickets")
    with _failures_named(f"{name} on inputs of {shape}"), torch.no_grad():
        outputs = model.eval()(torch.zeros(2, *shape))
    if not isinstance(outputs, Tensor) or outputs.shape != (2, classes):
        given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"{name} takes a batch of 2 inputs of {shape} to {given}, expected (2, {classes})")
    return model.train()


def _function(path: Path, function: str, sha256: str | None) -> Callable[..., Any]:
    found = vars(_loaded(path, sha256 or hashlib.sha256(_read(path)).hexdigest()))
    if not callable(found.get(function)):
        names = [name for name, value in found.items() if callable(value)]
        raise UsageError(f"model.name: {path.name} has no function {function!r}{nearest(function, names)}")
    return found[function]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"model.name: {path.name} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _loaded(path: Path, sha256: str) -> Any:
    """The file with this checksum as a module, run once; what lies beside it can be imported from it.

    Once it is run, a process keeps it, whatever becomes of the file.
    """
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(
            f"model.name: {path.name} is no longer the file that this experiment was made with; bring that one back"
        )
    name = f"lth_own_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec  # the name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses and pickle expect
    with _failures_named(path.name), _importing(path.parent):
        exec(compile(content, path, "exec"), vars(module))  # these very bytes, where an import might read others
    return module


_beside: dict[str, Path] = {}  # the modules that were imported from a folder such as _importing's, and that folder


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """What lies in `folder` can be imported, and another such folder's file of the same name is not."""
    for name in [name for name, other in _beside.items() if other != folder]:
        del _beside[name]
        sys.modules.pop(name, None)
    before = {*sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in {*sys.modules} - before:
            top = name.partition(".")[0]
            file = getattr(sys.modules.get(top), "__file__", None)
            if file and Path(file).parent in (folder, folder / top):
                _beside[name] = folder


@contextmanager
def _failures_named(what: str) -> Iterator[None]:
    """Whatever a user's own code raises is the user's to mend: say where."""
    try:
        yield
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise UsageError(f"{what} failed: {type(error).__name__}: {error} ({place})") from error
