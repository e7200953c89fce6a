"""The reference pages, made from the code while the site is built: what the code has, the reference has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import lth
from lth import config as lth_config
from lth.cli import app
from lth.config import registry
from lth.config.keys import fields
from lth.config.toml import literal

PAGES = ("commands", "settings", "python")


def on_files(files: Files, config: Any) -> Files:
    """Called by MkDocs: add the pages."""
    for name, text in (("commands", commands()), ("settings", settings()), ("python", python())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def commands() -> str:
    """Every command with its arguments and options, as `--help` says them."""
    parts = ["# Commands", "Exit codes: 0 done, 1 failed while working, 2 wrong use, 130 interrupted."]
    group: Any = typer.main.get_command(app)
    for words, command in _leaves(group, ["lth"]):
        arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
        parts += [f"## {' '.join(words)}", f"    {' '.join([*words, *arguments, '[options]'])}", command.help or ""]
        rows = [_option(p) for p in command.params if p.name != "help"]
        if rows:
            parts.append("\n".join(["| argument or option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _leaves(group: Any, words: list[str]) -> list[tuple[list[str], Any]]:
    leaves = []
    for name, command in group.commands.items():
        deeper = hasattr(command, "commands")
        leaves += _leaves(command, [*words, name]) if deeper else [([*words, name], command)]
    return leaves


def _option(parameter: Any) -> str:
    name = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.metavar or parameter.name
    return f"| `{name}` | {_cell(parameter.help or '')} |"  # between backticks a pipe is no border


def settings() -> str:
    """Every key of an experiment with its type, default and meaning; then what can be chosen, by kind."""
    parts = [
        "# Settings",
        "Every key that `key=value` sets on the command line, and that stands in an experiment's TOML file. "
        "`key=none` unsets a key: its default counts again. Where an override contradicts a value that you did not "
        "type, that value follows it, and `lth run` says so.",
        _table(lth_config.Experiment),
        "## Branches in a file",
        "Each `[[branch]]` is a table of these keys.",
        _table(lth_config.Branch),
    ]
    for kind in registry.KINDS:
        if entries := registry.choices(kind):
            title = kind.replace("-", " ").capitalize()
            parts += [f"## {title}", "\n".join(f"- `{name}`: {entry.about}" for name, entry in entries.items())]
    return "\n\n".join(parts) + "\n"


def _table(model: type[BaseModel]) -> str:
    rows = [_setting(key, field) for key, field in fields(model).items()]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _setting(key: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "required" if field.is_required() else "" if default in (None, {}, ()) else f"`{literal(default)}`"
    type_ = _type(field.annotation, field.metadata)
    return f"| `{key}` | {_cell(type_)} | {_cell(shown)} | {_cell(field.description or '')} |"


WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
FAR = 1e6
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type with its bounds, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], [*annotation.__metadata__, *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_type(choice, metadata) for choice in inner if choice is not type(None))
    if origin is Literal:
        return " or ".join(f"`{name}`" for name in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    return " ".join([WORDS.get(annotation, "table"), *_bounds(metadata)])


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """What a number may be, without the limits that are far beyond any use."""
    for item in (own for holder in metadata for own in getattr(holder, "metadata", [holder])):
        for name, sign in BOUNDS.items():
            if abs(limit := getattr(item, name, FAR)) < FAR:
                yield f"{sign} {limit:g}"


def python() -> str:
    """Every public name. mkdocstrings replaces the lines that begin with `:::` by signature, docstring and members."""
    parts = ["# Python", "Everything here is `lth.NAME`; it is loaded when it is first used."]
    for name in lth.__all__:
        thing = getattr(lth, name)
        if thing is lth_config.Recipe:
            parts += [
                "## Recipe",
                "How a network is trained. Its fields are the keys `recipe.*` of the [settings](settings.md).",
            ]
        else:
            parts.append(f"::: {thing.__module__}.{name}")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
