"""The table [recipe]: how a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lth.config.fields import ADDED, Fraction, Positive, Real, Switch, Value, Whole, named
from lth.config.registry import OPTIMIZERS, SCHEDULES, RecipePart


def _options(part: str, choices: Mapping[str, RecipePart], info: ValidationInfo) -> tuple[str, ...]:
    """The keys that the chosen optimizer or schedule accepts; none if the choice itself is invalid."""
    return choices[info.data[part]].options if part in info.data else ()


def _taken_by(key: str, part: str, choices: Mapping[str, RecipePart], info: ValidationInfo) -> None:
    """Raise ValueError if the chosen optimizer or schedule does not accept `key`."""
    if part in info.data and key not in _options(part, choices, info):
        names = " or ".join(f'"{name}"' for name, choice in choices.items() if key in choice.options)
        raise ValueError(f'it is for recipe.{part} = {names}, but the {part} is "{info.data[part]}"')


class Recipe(Value):
    optimizer: Annotated[str, named("optimizers")] = Field(
        default="adam", description=f"one of {', '.join(OPTIMIZERS)}"
    )
    lr: Real = Field(gt=0, description="learning rate")
    momentum: Fraction | None = Field(
        default=None, description="momentum of the optimizers momentum and nesterov; by default 0.9"
    )
    weight_decay: Real = Field(
        default=0.0, ge=0, description="L2 penalty on weights and biases; for adamw, decoupled weight decay"
    )
    clip: Real | None = Field(
        default=None,
        gt=0,
        description="maximum norm of the whole gradient, which is scaled down to it; off by default",
    )
    iterations: Positive = Field(description="updates in one training")
    batch: Positive = Field(
        default=60, description="number of examples per update; the last batch of an epoch may be smaller"
    )
    warmup: Whole = Field(
        default=0, ge=0, le=10**12, description="iterations over which the learning rate rises linearly from 0"
    )
    schedule: Annotated[str, named("schedules")] = Field(
        default="steps",
        description=f"learning rate schedule after warmup: one of {', '.join(SCHEDULES)}",
        json_schema_extra=ADDED,
    )
    drops: tuple[Positive, ...] = Field(
        default=(), description="iterations after which the learning rate is divided by 10"
    )
    eval_every: Positive = Field(
        default=100, description="iterations between evaluations; iteration 1 and the last are also evaluated"
    )
    test_every: Positive | None = Field(
        default=None,
        description="iterations between evaluations of the test set: a multiple of eval_every, by default equal to it",
    )
    report_at: tuple[Positive, ...] = Field(
        default=(), description="iterations whose accuracies become columns of summary.csv"
    )
    train_accuracy: Switch = Field(
        default=True,
        description="evaluate the training set at early stop and at the end; otherwise these columns are blank",
    )
    augment: Switch = Field(
        default=False, description="augment training images by random flips and random crops after padding by 4 pixels"
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="dtype to compute in; auto: bfloat16 for convolutions if the hardware supports it, else float32",
    )
    compile: Switch = Field(
        default=False, description="compile the network once with torch.compile, for all trainings; useful on a GPU"
    )

    @field_validator("momentum")
    @classmethod
    def _with_its_optimizer(cls, given: float | None, info: ValidationInfo) -> float | None:
        if given is not None:
            _taken_by("momentum", "optimizer", OPTIMIZERS, info)
        elif "momentum" in _options("optimizer", OPTIMIZERS, info):
            return 0.9
        return given

    @field_validator("drops")
    @classmethod
    def _with_its_schedule(cls, given: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if given:
            _taken_by("drops", "schedule", SCHEDULES, info)
        return given

    @field_validator("test_every")
    @classmethod
    def _multiple(cls, given: int | None, info: ValidationInfo) -> int | None:
        eval_every = info.data.get("eval_every")
        if given and eval_every and given % eval_every:
            raise ValueError(f"{given} is not a multiple of recipe.eval_every = {eval_every}: give both")
        return given or eval_every

    @property
    def too_late(self) -> dict[str, str]:
        """The values of `drops` and `report_at` that are beyond the last of `iterations`."""
        late = {
            "drops": [n for n in self.drops if n >= self.iterations],
            "report_at": [n for n in self.report_at if n > self.iterations],
        }
        return {key: ", ".join(f"{n:,}" for n in several) for key, several in late.items() if several}
