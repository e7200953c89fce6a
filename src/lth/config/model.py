"""The table [model]: the network."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from lth.config import registry
from lth.config.fields import ADDED, MOST_SIGMA, MOST_WEIGHTS, Positive, Real, Switch, Text, Value
from lth.config.names import shown
from lth.config.userfile import check_form, is_custom


class Model(Value):
    name: Text = Field(
        default="lenet", description="a model of `lth list models`, or FILE.py:FUNCTION for a custom model"
    )
    sha256: str | None = Field(default=None, description="SHA-256 of the file of a custom model; recorded")
    layers: tuple[Positive, ...] | None = Field(
        default=None, description="number of units in each hidden layer of lenet; by default [300, 100]"
    )
    dropout: Real = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout probability of the units in each hidden fully connected layer",
    )
    init_sigma: Real | None = Field(
        default=None,
        gt=0,
        le=MOST_SIGMA,
        description="standard deviation of the (untruncated) Gaussian of the initial weights; by default Glorot's",
    )

    pretrained: Switch = Field(
        default=False,
        description="true if a custom model brings its own weights, as from a checkpoint; all trials begin with them",
        json_schema_extra=ADDED,
    )
    count: tuple[Text, ...] = Field(
        default=(),
        description="names or patterns of further parameters of a custom model that count as weights",
        json_schema_extra=ADDED,
    )
    leave_out: tuple[Text, ...] = Field(
        default=(),
        description="names or patterns of parameters of a custom model that are not counted and never pruned",
        json_schema_extra=ADDED,
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if is_custom(name):
            return check_form("model", name, "my.py:build")
        if name.endswith(".py"):
            raise ValueError(
                f"{shown(name)} names no function: a custom model is FILE.py:FUNCTION, such as {name}:build"
            )
        if name not in registry.MODELS:
            raise ValueError(registry.unknown("models", name))
        return name

    @field_validator("count", "leave_out")
    @classmethod
    def _of_a_custom_model(cls, given: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if given and "name" in info.data and not is_custom(info.data["name"]):
            raise ValueError("what is counted of a built-in model is fixed; leave it out")
        return given

    @field_validator("init_sigma")
    @classmethod
    def _drawn_here(cls, given: float | None, info: ValidationInfo) -> float | None:
        if given is not None and is_custom(info.data.get("name", "")):
            raise ValueError("it would do nothing: a custom model draws its own first weights; leave it out")
        return given

    @field_validator("pretrained")
    @classmethod
    def _given_by_a_custom_model(cls, given: bool, info: ValidationInfo) -> bool:
        if given and not is_custom(info.data.get("name", ":")):
            raise ValueError("only a custom model has weights of its own (model.name=my.py:build); leave it out")
        return given

    @field_validator("layers")
    @classmethod
    def _of_lenet(cls, layers: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if layers is None:
            return (300, 100) if info.data.get("name") == "lenet" else None
        weights = sum(a * b for a, b in itertools.pairwise((1, *layers)))
        if weights > MOST_WEIGHTS or len(layers) > 1000:
            raise ValueError(f"at most {MOST_WEIGHTS:,} weights and 1,000 layers; not {shown(list(layers))}")
        return _not_idle("layers", layers, info)

    @field_validator("dropout")
    @classmethod
    def _where_it_can(cls, dropout: float, info: ValidationInfo) -> float:
        return _not_idle("dropout", dropout, info) if dropout else dropout


def _not_idle(option: str, value: Any, info: ValidationInfo) -> Any:
    name = info.data.get("name")
    if name and option not in registry.MODELS.get(name, registry.Network("a custom model")).options:
        raise ValueError(f"it would do nothing: {name} has no such setting; leave it out")
    return value
