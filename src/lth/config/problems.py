"""Validate an experiment's tables and convert each of pydantic's errors to one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lth.config.branch import Branch
from lth.config.experiment import Experiment
from lth.config.keys import keys
from lth.config.names import nearest, nearest_key, shown
from lth.errors import UsageError


def validated(tables: Mapping[str, Any]) -> Experiment:
    """The validated experiment. Raises UsageError naming all problems."""
    try:
        return Experiment.model_validate(tables)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
    raise UsageError("\n".join([*map(_problem, problems[:20]), *more]))


def refused_keys(tables: Mapping[str, Any]) -> set[str]:
    """The keys whose values the schema refuses, such as "recipe.momentum"."""
    try:
        Experiment.model_validate(tables)
    except ValidationError as error:
        places = [problem["loc"] for problem in error.errors(include_url=False, include_input=False)]
        return {".".join(part for part in place if isinstance(part, str)) for place in places}
    return set()


_EXPECTED = {  # types of pydantic errors whose messages are meant for programmers
    "int_from_float": "expected a whole number",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a string in quotes",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list, such as [1, 2]",
}


def _problem(problem: Any) -> str:
    """One line for a pydantic error: what was given, what was expected, the nearest valid name."""
    kind, place = problem["type"], problem["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    message = problem["msg"].removeprefix("Value error, ")
    known = keys() | keys(Branch, "branch.") | dict.fromkeys(("data", "model", "recipe", "prune"), "")
    plain = ".".join(part for part in place if isinstance(part, str))
    if kind == "extra_forbidden":
        if plain in known and plain == place[-1]:
            table, _, name = plain.rpartition(".")
            return f"{plain} as one word is not a key: give {name} in the table {table}"
        return f"unknown key {shown(where)}{nearest_key(plain, known)} (see `lth show lenet`)"
    if kind == "missing":
        return f"{where} is missing{': ' * bool(known.get(plain))}{known.get(plain, '')}"
    if kind == "value_error":
        return f"{where}: {message}" if where and not message.startswith("unknown ") else message
    if place == ("branch",):
        kind, message = "", 'expected tables, each below a line [[branch]] and with a name, such as "reinit"'
    elif kind in ("model_type", "model_attributes_type"):
        message = "expected a table"
    elif kind in ("literal_error", "one_of"):
        message = _names_expected(problem)
    return f"{where} = {shown(problem['input'])}: {_EXPECTED.get(kind, message.replace('Input should be', 'expected'))}"


def _names_expected(problem: Any) -> str:
    context = problem["ctx"]
    names = context.get("names") or re.findall("'([^']*)'", context["expected"])
    custom = " or FILE.py:FUNCTION" if context.get("custom") else ""
    return f"expected {', '.join(names)}{custom}{nearest(str(problem['input']), names)}"
