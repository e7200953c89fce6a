"""The table [prune]: how many weights each level prunes, and which."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lth.config import registry
from lth.config.fields import ADDED, Fraction, Real, Value, named, one_of
from lth.config.names import shown
from lth.config.registry import GROUPS, PRUNED
from lth.config.userfile import check_form, is_custom


class Prune(Value):
    groups: Annotated[tuple[Annotated[str, one_of(GROUPS)], ...], Field(min_length=1)] | None = Field(
        default=None,
        description="layers that are pruned, of conv, fc, output, shortcut; by default all but shortcut",
    )
    scope: Annotated[str, named("scopes")] = Field(
        default="layerwise", description="which weights compete: those of each layer, or those of all pruned layers"
    )
    rate: Fraction = Field(default=0.2, description="fraction of a layer's surviving weights that each level removes")
    conv_rate: Fraction | None = Field(default=None, description="rate of the convolutions; by default rate")
    output_factor: Real = Field(
        default=0.5,
        ge=0,
        le=1,
        description="rate of the output layer as a multiple of rate; by default 0.5, or 1 with scope global",
    )
    rates: tuple[Fraction, ...] = Field(
        default=(), description="rates of levels 1, 2, ... instead of rate; for oneshot, relative to the whole network"
    )
    densities: tuple[Fraction, ...] = Field(default=(), description="densities of levels 1, 2, ... instead of rates")
    score: str = Field(
        default="magnitude", description="score that ranks the weights: one of `lth list scores`, or FILE.py:FUNCTION"
    )

    structure: str = Field(
        default="weights",
        description="structure of the mask: weights (any), or N:M such as 2:4 (N of every M inputs stay)",
        json_schema_extra=ADDED,
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("output_factor") is None:
            groups = given.get("groups")
            whole = isinstance(groups, list | tuple) and "output" not in groups
            given = dict(given) | {"output_factor": 0.0 if whole else 1.0 if given.get("scope") == "global" else 0.5}
        return given

    @field_validator("conv_rate", "output_factor")
    @classmethod
    def _at_one_rate(cls, given: float | None, info: ValidationInfo) -> float | None:
        pruned = info.data.get("groups") or PRUNED
        if info.data.get("scope") == "global" and "groups" in info.data:
            slower = given not in (None, info.data.get("rate", given))
            if info.field_name == "conv_rate" and slower and pruned != ("conv",):
                raise ValueError("with scope global all layers share one rate: give only rate")
            if info.field_name == "output_factor" and given not in (0, 1) and "output" in pruned:
                raise ValueError(
                    f"with scope global all layers share one rate: output_factor = {given:g} would do "
                    "nothing; give 1, or 0 to leave the output layer whole"
                )
        return given

    @field_validator("densities")
    @classmethod
    def _falling(cls, densities: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if densities and info.data.get("rates"):
            raise ValueError("rates and densities exclude each other: give one of them")
        if any(b >= a for a, b in itertools.pairwise(densities)):
            raise ValueError(f"densities must decrease from level to level: {shown(list(densities))}")
        return densities

    @field_validator("score")
    @classmethod
    def _known(cls, score: str) -> str:
        if is_custom(score):
            return check_form("score", score, "my.py:score")
        if score not in registry.SCORES:
            raise ValueError(registry.unknown("scores", score))
        return score

    @field_validator("structure")
    @classmethod
    def _known_structure(cls, given: str) -> str:
        groups = re.fullmatch(r"(\d{1,3}):(\d{1,3})", given)
        if given != "weights" and not (groups and 0 < int(groups[1]) < int(groups[2])):
            raise ValueError(f"expected weights, or N:M with N below M, such as 2:4; not {shown(given)}")
        return given

    @property
    def pruned(self) -> tuple[str, ...]:
        """The groups of layers that are pruned; other layers keep all their weights."""
        return self.groups or PRUNED

    @property
    def idle(self) -> dict[str, str]:
        """The keys that have no effect with the present settings, each with the reason.

        Presets and stored experiments may contain them, as they contain all keys. They are refused if the user types
        them.
        """
        reasons: dict[str, str] = {}
        convs = "conv" in self.pruned
        own_rate = convs and self.conv_rate is not None  # its ratio to `rate` has an effect
        at_one_rate = self.scope == "global" or len({*self.pruned}) == 1
        if self.rates and not own_rate:
            reasons["rate"] = "prune.rates are set instead"
        if self.densities and (at_one_rate or not own_rate):
            reasons["rate"] = "prune.densities are set instead"
        if self.densities and at_one_rate:
            reasons["conv_rate"] = "prune.densities determine how much is pruned, at one rate for all layers"
        if not self.rates and not self.densities and own_rate and {*self.pruned} == {"conv"}:
            reasons["rate"] = "only convolutions are pruned, with prune.conv_rate"
        if not convs:
            reasons["conv_rate"] = "prune.groups do not include the convolutions"
        if "output" not in self.pruned:
            reasons["output_factor"] = "prune.groups do not include the output layer"
        return reasons
