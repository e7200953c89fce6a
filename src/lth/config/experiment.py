"""The whole experiment: its tables, and the comparison of experiments."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lth.config.branch import Branch
from lth.config.data import Data
from lth.config.fields import (
    MOST_EVALUATIONS,
    MOST_LEVELS,
    MOST_SCALE,
    MOST_TRAININGS,
    Positive,
    Real,
    Text,
    Value,
    Whole,
    named,
    plain,
)
from lth.config.model import Model
from lth.config.names import shown
from lth.config.prune import Prune
from lth.config.recipe import Recipe
from lth.config.registry import CONTINUED
from lth.config.userfile import file_of

# settings that can be added to a run or changed in it
ADDABLE = {"trials", "levels", "branch", "name", "about", "store"}


class Store(Value):
    keep: Literal["all", "last", "tickets"] = Field(
        default="all",
        description="trained weights kept on disk: all, last (those that a further level needs), or tickets (none)",
    )


class Experiment(Value):
    name: str = Field(description="name of the experiment and of its run folder")
    about: Text = Field(default="", description="description in one line")
    seed: Whole = Field(default=1, ge=0, lt=2**63, description="seed of all random numbers")
    trials: Positive = Field(default=5, description="number of repetitions, each with its own start and batch order")
    levels: Whole = Field(
        default=24, ge=0, le=MOST_LEVELS, description="number of prunings; level 0 is the unpruned network"
    )
    strategy: Annotated[str, named("strategies")] = Field(
        default="resetting", description="how masks are found: one of `lth list strategies`"
    )
    scale: Real = Field(
        default=1.0, gt=0, le=MOST_SCALE, description="factor by which --scale multiplied the iterations; recorded"
    )
    ticket: Text | None = Field(
        default=None, description="ticket file; level 0 is this ticket instead of the unpruned network"
    )
    ticket_sha256: str | None = Field(default=None, description="SHA-256 of the ticket file; recorded")
    files: dict[Text, Text] = Field(
        default_factory=dict, description="SHA-256 of the files of custom scores and rules, by path; recorded"
    )
    data: Data = Field(default_factory=lambda: Data())
    model: Model = Field(default_factory=lambda: Model())
    recipe: Recipe
    prune: Prune = Field(default_factory=lambda: Prune())
    store: Store = Field(default_factory=lambda: Store())
    branch: tuple[Branch, ...] = ()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"{shown(name)} cannot name a folder here: expected letters, digits, '.', '_' and '-', 100 at most, "
                "the first of them a letter or digit"
            )
        return name

    @field_validator("prune")
    @classmethod
    def _as_long_as_levels(cls, prune: Prune, info: ValidationInfo) -> Prune:
        levels = info.data.get("levels", 0)
        for key, ladder in (("densities", prune.densities), ("rates", prune.rates)):
            if ladder and levels > len(ladder):
                most = len(ladder)
                raise ValueError(f"levels = {levels}, but {key} names {most}: give --levels {most} or more of them")
        rising = all(b > a for a, b in itertools.pairwise(prune.rates))
        if info.data.get("strategy") == "oneshot" and not rising:
            raise ValueError(
                f"for oneshot, prune.rates refer to the whole network and must increase: {shown(list(prune.rates))}"
            )
        return prune

    @field_validator("branch")
    @classmethod
    def _once_each(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        names = [branch.name for branch in branches]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"branches are named once each; twice: {', '.join(twice)}")
        return branches

    @model_validator(mode="after")
    def _can_be_done(self) -> Experiment:
        each_trial = (1 + self.levels) + (self.levels if self.strategy == CONTINUED else 0)
        each_trial += sum(
            b.count * sum(n <= self.levels for n in b.levels or range(1, self.levels + 1)) for b in self.branch
        )
        trainings = self.trials * each_trial
        if trainings > MOST_TRAININGS:
            raise ValueError(f"trials, levels and branches make {trainings:,} trainings; at most {MOST_TRAININGS:,}")
        for iterations in [self.recipe.iterations, *(b.iterations or 0 for b in self.branch)]:
            if iterations // self.recipe.eval_every > MOST_EVALUATIONS:
                raise ValueError(
                    f"{iterations:,} iterations with recipe.eval_every = {self.recipe.eval_every:,} make more than "
                    f"{MOST_EVALUATIONS:,} evaluations per training: give a larger eval_every"
                )
        return self

    @property
    def folder_name(self) -> str:
        return self.name if self.scale == 1 else f"{self.name}-scale{self.scale:g}"

    @property
    def leading_files(self) -> dict[str, str]:
        """The recorded file of a custom score. Those of branches do not affect the trunk."""
        path = file_of(self.prune.score)
        return {path: self.files[path]} if path in self.files else {}

    def leading_to(self, level: int) -> dict[str, Any]:
        """All settings that affect `level`, without trials, levels and branches, which may be added to a run later."""
        leading = identity(self)
        for ladder in ("rates", "densities"):
            leading["prune"][ladder] = leading["prune"][ladder][:level]
        return leading | ({"files": self.leading_files} if self.leading_files else {})

    def digest(self, level: int) -> str:
        """The digest of all settings that affect `level`.

        Values equal to their defaults are left out, so that a setting added in a later version does not change digests.
        """
        leading = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude=ADDABLE | {"files"})
        for ladder in ("rates", "densities"):
            if given := leading.get("prune", {}).pop(ladder, [])[:level]:
                leading["prune"][ladder] = given
        if "classes" in leading.get("data", {}) and self.data.classes == tuple(sorted(self.data.classes)):
            del leading["data"]["classes"]  # the order of version 0.1, which did not record it
        leading |= {"files": self.leading_files} if self.leading_files else {}
        return hashlib.sha256(json.dumps(leading, sort_keys=True).encode()).hexdigest()

    def branches_at(self, level: int) -> list[Branch]:
        return [b for b in self.branch if level > 0 and (b.levels is None or level in b.levels)]

    def recipe_of(self, branch: Branch) -> Recipe:
        return (
            self.recipe
            if branch.iterations is None
            else self.recipe.model_copy(update={"iterations": branch.iterations})
        )


def identity(experiment: Experiment) -> dict[str, Any]:
    """The settings in which two experiments of a run must agree: all but additions, the name, and recorded files."""
    return {key: value for key, value in plain(experiment).items() if key not in ADDABLE | {"files"}}
