"""Read and write presets and experiments as TOML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from lth.config.experiment import Experiment
from lth.config.fields import Value
from lth.config.files import read_bounded
from lth.config.names import nearest, printable, shown
from lth.errors import UsageError

MOST_BYTES = 2 * 2**20  # maximum file size: several times the longest possible experiment
MOST_VALUES = (
    100_000  # maximum number of keys and tables in a file: parsing takes some hundred times the memory of the text
)
MOST_PARTS, MOST_LONG_KEYS = 8, 1000  # parts of a dotted key, and keys of three or more parts: each part is a table
_TEXTS = re.compile(  # strings and comments, to the end of the file or line if they are not closed
    r""""{3}(?:[^\\]|\\.)*?(?:"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|"(?:[^"\\\n]|\\[^\n])*"?|'[^'\n]*'?|#[^\n]*""", re.DOTALL
)
_LONG_KEY = re.compile(r"(?<![\w-])[\w-]++(?:[ \t]*+\.[ \t]*+[\w-]++){2,}+")  # a number has at most one dot


def presets() -> dict[str, str]:
    """The shipped experiments: name -> TOML text."""
    folder = resources.files("lth.config") / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files}


def read(source: str | Path) -> dict[str, Any]:
    """The tables of a preset or a TOML file, not yet validated."""
    name = str(source)
    if name.endswith(".toml") or isinstance(source, Path):
        try:
            text = read_bounded(Path(source), MOST_BYTES).decode("utf-8-sig")
        except FileNotFoundError:
            raise UsageError(f"there is no file {name}; `lth show lenet > {name}` writes one to begin with") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        try:
            return loads(text)
        except ValueError as error:
            raise UsageError(f"{name} is not valid TOML: {error}") from None
    shipped = presets()
    if name not in shipped:
        inside = f"{name.rstrip('/')}/experiment.toml"
        meant = f"; did you mean {inside!r}?" if Path(inside).is_file() else nearest(name, shipped)
        raise UsageError(f"unknown preset {shown(name)}{meant} (see `lth list presets`; a file's name ends in .toml)")
    return tomllib.loads(shipped[name])


def loads(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError if it is not valid TOML, or has too many or too deep tables."""
    bare = _TEXTS.sub(lambda match: "" if match[0].startswith("#") else "q", text)
    long = [key.count(".") + 1 for key in _LONG_KEY.findall(bare)]
    if (parts := max(long, default=0)) > MOST_PARTS:
        raise ValueError(f"a key of {parts:,} parts is more than {MOST_PARTS}")
    if len(long) > MOST_LONG_KEYS:
        raise ValueError(f"{len(long):,} keys of three parts or more are more than {MOST_LONG_KEYS:,}")
    if (values := sum(map(bare.count, "=[{,"))) > MOST_VALUES:
        raise ValueError(f"{values:,} values and tables are more than {MOST_VALUES:,}")
    try:
        return deep_copy(tomllib.loads(text))
    except RecursionError:
        raise ValueError("tables and lists are nested too deeply") from None


def to_toml(experiment: Experiment, comments: bool = False) -> str:
    """The experiment as TOML that `read` accepts, optionally with the description of each key.

    With descriptions, unset keys are included as comments.
    """
    lines: list[str] = []
    tables: list[tuple[str, Value]] = [("", experiment)]
    for header, value in tables:
        lines += ["", header] if header else []
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if isinstance(inner, Value):
                tables.append((f"[{name}]", inner))
            elif inner and isinstance(inner, tuple) and isinstance(inner[0], Value):
                tables += [(f"[[{name}]]", item) for item in inner]
            elif inner not in (None, {}) and name != "branch":
                help_text = f"  # {field.description}" if comments and field.description else ""
                lines.append(f"{name} = {literal(inner)}{help_text}")
            elif comments and inner is None and not (field.description or "").endswith("; recorded"):
                lines.append(f"# {name} =  # {field.description}")
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    """A TOML value. JSON strings, numbers and arrays are valid TOML; control characters are escaped."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {literal(v)}" for k, v in value.items()) + "}"
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else literal(name)


def deep_copy(tables: Any) -> Any:
    if isinstance(tables, Mapping):
        return {k: deep_copy(v) for k, v in tables.items()}
    return [deep_copy(v) for v in tables] if isinstance(tables, list | tuple) else tables
