"""The table [[branch]]: trainings that hang off the levels of the trunk as controls."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from lth.config import registry
from lth.config.fields import MOST_SIGMA, Levels, Positive, Real, Value, named
from lth.config.names import shown
from lth.config.registry import CONTINUED


def sigma_in(name: str) -> float | None:
    """The sigma in a branch's name, such as 0.5 in `noise-0.5`; None without one."""
    match = re.fullmatch(r"noise-([0-9]{1,9}(?:\.[0-9]{1,9})?)", name)
    return float(match[1]) if match else None


class Branch(Value):
    name: str = Field(description="a branch of `lth list branches`, or any name with mask and start")
    count: Positive = Field(default=1, description="number of trainings at each level")
    levels: Levels | None = Field(
        default=None, description='levels that have this branch, such as "1-18"; by default all from level 1'
    )
    iterations: Positive | None = Field(
        default=None, description="updates in one training; by default those of the recipe"
    )
    mask: Annotated[str, named("mask-rules")] | None = Field(
        default=None,
        description="a rule of `lth list mask-rules`, or FILE.py:FUNCTION; by default that of the name",
    )
    start: Annotated[str, named("start-rules")] | None = Field(
        default=None,
        description="a rule of `lth list start-rules`, or FILE.py:FUNCTION; by default that of the name",
    )
    sigma: Real | None = Field(
        default=None,
        gt=0,
        le=MOST_SIGMA,
        description="sigma of start rule noise, in units of the initialisation's standard deviation; noise-0.5: 0.5",
    )

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if name in ("ticket", CONTINUED):
            raise ValueError(f"a branch cannot be called {name!r}: the trunk's trainings are")
        if name not in registry.BRANCHES and not re.fullmatch(r"[a-z][a-z0-9.-]{0,49}", name):
            hint = "names are of small letters, digits, . and -"
            raise ValueError(registry.unknown("branches", name, hint))
        return name

    @field_validator("mask", "start")
    @classmethod
    def _rule(cls, given: Any, info: ValidationInfo) -> Any:
        """The given rule or, by default, that of the branch's name; a branch with another name needs both rules."""
        name = info.data.get("name")
        kind = "noise" if name and sigma_in(name) is not None else name
        if given is None and kind in registry.BRANCHES:
            control = registry.BRANCHES[kind]
            return control.mask if info.field_name == "mask" else control.start
        incomplete = info.field_name == "start" and None in (given, info.data.get("mask", "wrong"))
        if incomplete and name and name not in registry.BRANCHES:
            raise ValueError(registry.unknown("branches", name, "any other has both mask and start"))
        return given

    @field_validator("sigma", mode="before")
    @classmethod
    def _of_noise(cls, given: Any, info: ValidationInfo) -> Any:
        """The given sigma or that of the name, which must not contradict each other; then the bounds hold for it."""
        name, start = info.data.get("name"), info.data.get("start")
        if not name or not start:  # refused by their own validators
            return given
        by_name = sigma_in(name)
        if start != "noise":
            if given is not None:
                raise ValueError(f"it would do nothing: {name} starts by rule {start}, not noise; leave it out")
            if by_name is not None:
                raise ValueError(f"{name} says that it is noise, but starts by rule {start}; give it another name")
            return None
        if given is None and by_name is None:
            raise ValueError(f"start rule noise needs it: give sigma = 0.5 to {name}, or name the branch noise-0.5")
        if by_name is not None and given not in (None, by_name):
            raise ValueError(f"{name} says {by_name:g}, but sigma is {shown(given)}; leave it out")
        return by_name if given is None else given

    @property
    def labels(self) -> list[str]:
        """The names of the branch's trainings at one level: `reinit-1`, `reinit-2`, ..."""
        return [f"{self.name}-{n}" for n in range(1, self.count + 1)]
