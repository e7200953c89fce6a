"""The keys that `key=value` can set, and their descriptions in the schema."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lth.config.experiment import Experiment


@cache
def fields(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, FieldInfo]:
    """Every key of the tables of `model` that can be set, with its field."""
    result: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            result |= fields(inner, f"{prefix}{name}.")
        else:
            result[prefix + name] = field
    return result


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, str]:
    """Every key of the tables of `model` that can be set, with its description."""
    return {key: field.description or "" for key, field in fields(model, prefix).items()}


def takes_list(key: str) -> bool:
    """Return whether a key takes a list as its value, such as model.layers."""
    return "tuple[" in str(fields()[key].annotation)
