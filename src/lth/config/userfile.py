"""Functions in the user's Python files, named FILE.py:FUNCTION: a model, a score, a mask rule, a start rule.

Only `function` and `call` run the user's code, and only of a file that the user has approved (`lth.config.approval`).
`signature` parses the file without running it, so that an experiment can be planned and listed without torch.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from lth.config import approval
from lth.config.files import read_bounded
from lth.config.names import nearest, printable, shown
from lth.errors import UsageError

MOST_BYTES = 2**20  # maximum size of a user's file
_LTH = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

_contents: dict[tuple[Path, str], bytes] = {}  # approved files by path and checksum
_modules: dict[tuple[Path, str], ModuleType] = {}  # functions by file and checksum
_beside: dict[str, Path] = {}  # modules imported from the folder of a user's file, and that folder


@dataclass(frozen=True)
class Signature:
    """The definition of a function: the first line of its docstring, and its parameters."""

    about: str
    parameters: tuple[str, ...]
    required: tuple[str, ...]


def is_custom(name: str) -> bool:
    """Return whether a name has the form FILE.py:FUNCTION."""
    return ":" in name


def file_of(name: str) -> str:
    """The file in FILE.py:FUNCTION, as it was typed."""
    return name.rpartition(":")[0]


def check_form(what: str, name: str, example: str) -> str:
    """Return the name. Raises ValueError if it is not FILE.py:FUNCTION. `what` is "model", "score" or the like."""
    path, _, function = name.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier() or printable(path) != path:
        raise ValueError(f"{shown(name)}: a custom {what} is FILE.py:FUNCTION, such as {example}")
    return name


def checksum(key: str, path: str | Path) -> str:
    """The SHA-256 of a file that the setting `key` names. Raises UsageError if it cannot be read."""
    return hashlib.sha256(_read(key, Path(path), str(path))).hexdigest()


def function(name: str, sha256: str | None = None, key: str = "") -> Callable[..., Any]:
    """The function of FILE.py:FUNCTION. Each process runs the file once.

    `sha256` is the checksum recorded in the experiment. Raises UsageError if the file has another checksum, is not
    approved, cannot be read, fails, or has no such function.
    """
    path = approval.place(file_of(name))
    module = vars(_loaded(key or name, path, sha256))
    wanted = name.rpartition(":")[2]
    if not callable(module.get(wanted)):
        raise _no_function(key or name, path, wanted, [n for n, value in module.items() if callable(value)])
    return module[wanted]


def approved_content(key: str, path: str | Path, sha256: str | None = None) -> bytes:
    """The bytes of an approved file. A process keeps them after the first read, even if the file changes.

    Raises UsageError if the file has another checksum than `sha256`, is not approved, or cannot be read.
    """
    file = approval.place(path)
    if sha256 and (file, sha256) in _contents:
        return _contents[file, sha256]
    content = _read(key, file, file.name)
    actual = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, actual):
        raise UsageError(f"{key}: {file.name} has changed since this experiment was made; restore it")
    if not approval.is_approved(file, actual):
        raise approval.refusal(key, file)
    _contents[file, actual] = content
    return content


def accept(code: Mapping[str, bytes]) -> None:
    """Take approved files by path from the process that this one works for, which may have neither files nor list."""
    for path, content in code.items():
        _contents[approval.place(path), hashlib.sha256(content).hexdigest()] = content


def call(name: str, function: Callable[..., Any], known: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a function with the values that its parameters name. `known` makes each value only if it is needed.

    If `name` is FILE.py:FUNCTION, any exception becomes a UsageError that says where it was raised.
    Raises UsageError if the function requires other values.
    """
    wanted = inspect.signature(function).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    check_parameters(name, [n for n, p in wanted.items() if p.default is p.empty and p.kind not in variadic], known)
    values = {n: make() for n, make in known.items() if n in wanted}
    if not is_custom(name):
        return function(**values)
    with failures_named(name), importing(approval.place(file_of(name)).parent):
        return function(**values)


def check_parameters(name: str, required: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError if a function requires a parameter that is not available."""
    *others, last = known
    if strange := [n for n in required if n not in (*others, last)]:
        given = f"{', '.join(others)} and {last}"
        raise UsageError(f"{name} wants {', '.join(strange)}, but is given {given}, or what it names of them")


def signature(name: str, sha256: str | None = None, key: str = "") -> Signature:
    """The signature of FILE.py:FUNCTION, from a `def` at the top level of the file, which is parsed but not run.

    A copy with the recorded checksum `sha256` is preferred if this process has one. Raises UsageError if the file
    cannot be read, is not valid Python, or has no such definition.
    """
    path, wanted = approval.place(file_of(name)), name.rpartition(":")[2]
    content = _contents.get((path, sha256 or "")) or _read(key or name, path, path.name)
    with failures_named(path.name):
        tree = ast.parse(content, path.name)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if wanted not in functions:
        raise _no_function(key or name, path, wanted, functions)
    return _signature(functions[wanted])


def _signature(node: ast.FunctionDef) -> Signature:
    positional = [argument.arg for argument in node.args.args]
    by_name = {a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)}
    required = positional[: len(positional) - len(node.args.defaults)] + [n for n, d in by_name.items() if d is None]
    about = (ast.get_docstring(node) or "").partition("\n")[0]
    return Signature(about, (*positional, *by_name), tuple(required))


@contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Allow imports from `folder`; modules of the same names from another such folder are unloaded first."""
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
def failures_named(what: str) -> Iterator[None]:
    """Convert any exception of user code into a UsageError that says where it was raised."""
    try:
        yield
    except SyntaxError as error:  # its message already contains the place
        raise UsageError(f"{what} failed: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise UsageError(f"{what} failed: {type(error).__name__}: {first_line(error)}{_place(error)}") from error


def _place(error: Exception) -> str:
    """The place of an exception in parentheses: the last line of the user's code, or else of a library."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_inside(frame.filename, _LTH)]
    last = [frame for frame in frames if not _is_inside(frame.filename, *_LIBRARIES)] or frames
    return f" ({Path(last[-1].filename).name}, line {last[-1].lineno})" if last else ""


def _is_inside(filename: str, *folders: str) -> bool:
    return filename.startswith(("<", *(f"{folder}{os.sep}" for folder in folders)))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= 200 else f"{line[:199]}…"


def _loaded(key: str, path: Path, sha256: str | None) -> ModuleType:
    content = approved_content(key, path, sha256)
    known = path, sha256 or hashlib.sha256(content).hexdigest()
    if known not in _modules:
        _modules[known] = _run(path, content)
    return _modules[known]


def _run(path: Path, content: bytes) -> ModuleType:
    name = f"lth_custom_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec  # the name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module  # required by dataclasses and pickle
    with failures_named(path.name), importing(path.parent):
        exec(
            compile(content, path, "exec"), vars(module)
        )  # the bytes that match the checksum; an import would read the file again
    return module


def _read(key: str, path: Path, name: str) -> bytes:
    try:
        return read_bounded(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"{key}: {name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _no_function(key: str, path: Path, wanted: str, names: Iterable[str]) -> UsageError:
    return UsageError(f"{key}: {path.name} has no function {wanted!r}{nearest(wanted, names)}")
