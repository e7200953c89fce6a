"""The types of an experiment's fields, and the base class of its tables."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from lth.config import registry, userfile
from lth.config.names import nearest, shown

# far above realistic values, but low enough that a typing error is refused instead of exhausting memory
MOST_LEVELS, MOST_TRAININGS, MOST_EVALUATIONS, MOST_WEIGHTS, MOST_SCALE = 10_000, 100_000, 1_000_000, 10**9, 1000
MOST_SIGMA = 1000


def _number(value: Any) -> Any:
    """Refuse true and "0.1", which pydantic would accept as numbers; accept NumPy numbers."""
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"expected a number, not {shown(value)}")
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _unicode(text: str) -> str:
    """Refuse bytes of the command line that are not valid text, because no TOML file could contain them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected text in UTF-8, not {shown(text)}") from None
    return text


def _level_list(value: Any) -> Any:
    """Accept "1-18" or "1-3,7" as a list of levels."""
    if not isinstance(value, str):
        return value
    levels: list[int] = []
    for part in value.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() and len(end) <= len(str(MOST_LEVELS)) for end in ends):
            raise ValueError(f'levels are numbers and ranges, such as "1-18" or [1, 2, 3]; not {shown(value)}')
        first, last = int(ends[0]), int(ends[-1])
        if first > last:
            raise ValueError(f"{first}-{last} runs backwards; write {last}-{first}")
        levels += range(first, last + 1)
    return levels


def _level_set(levels: tuple[int, ...]) -> tuple[int, ...]:
    if not levels:
        raise ValueError('no level is named; give some, such as "1-18" or [1, 2, 3], or leave levels out for all')
    return tuple(sorted(set(levels)))


Text = Annotated[str, AfterValidator(_unicode)]
Switch = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Real, Field(gt=0, lt=1)]
Positive = Annotated[Whole, Field(ge=1, le=10**12)]
Level = Annotated[Whole, Field(ge=1, le=MOST_LEVELS)]
Levels = Annotated[tuple[Level, ...], BeforeValidator(_level_list), AfterValidator(_level_set)]


def one_of(names: Iterable[str], custom: str = "") -> BeforeValidator:
    """A validator of a text field that accepts these names and, if `custom` names a kind, FILE.py:FUNCTION."""
    return _one_of(lambda: names, custom)


def _one_of(names: Callable[[], Iterable[str]], custom: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        valid = tuple(names())
        if custom and isinstance(value, str) and userfile.is_custom(value):
            return userfile.check_form(custom, value, f"my.py:{custom.split()[-1]}")
        if value not in valid:
            words: dict[str, Any] = {"expected": ", ".join(valid), "near": nearest(str(value), valid)}
            words |= {"names": valid, "custom": bool(custom)}
            raise PydanticCustomError("one_of", "expected {expected}{near}", words)
        return value

    return BeforeValidator(check)


def named(kind: str) -> BeforeValidator:
    """A validator of a text field that accepts names of registry entries and FILE.py:FUNCTION if the kind allows it."""
    return _one_of(lambda: registry.choices(kind), registry.word(kind) if kind in registry.GIVEN else "")


class Value(BaseModel):
    """A table: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


ADDED: dict[str, Any] = {"added": True}  # json_schema_extra of a key that version 0.1 did not have


def plain(value: BaseModel) -> dict[str, Any]:
    """The value as tables of plain numbers and strings, without unset keys.

    Keys that version 0.1 did not have are left out at their defaults, so that older experiments are written as before.
    """
    tables = value.model_dump(mode="json", exclude_none=True)
    for name, field in type(value).model_fields.items():
        inner = getattr(value, name)
        if isinstance(inner, Value):
            tables[name] = plain(inner)
        elif field.json_schema_extra == ADDED and inner == field.default:
            tables.pop(name, None)
    return tables
