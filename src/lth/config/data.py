"""The table [data]: the dataset and its preprocessing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from lth.config import registry
from lth.config.fields import ADDED, Positive, Real, Text, Value, Whole, named
from lth.config.names import shown

MOST_SIDE, MOST_CLASSES = 4096, 100_000


def is_path(name: str) -> bool:
    """Return whether a dataset's name is a path: it contains a slash or ends in .npz."""
    return "/" in name or name.lower().endswith(".npz")


def _sides(given: Any) -> Any:
    """Accept 64 for [64, 64]."""
    return (given, given) if isinstance(given, int) and not isinstance(given, bool) else given


def _two(sides: tuple[int, ...]) -> tuple[int, ...]:
    if len(sides) not in (0, 2):
        raise ValueError(f"expected a height and a width, such as 64 or [48, 64]; not {shown(list(sides))}")
    return sides


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{shown(twice[0])} stands in it twice: each class has a name of its own")
    return names


Sides = Annotated[
    tuple[Annotated[Whole, Field(ge=1, le=MOST_SIDE)], ...], BeforeValidator(_sides), AfterValidator(_two)
]
Names = Annotated[tuple[Text, ...], Field(max_length=MOST_CLASSES), AfterValidator(_once)]


class Data(Value):
    name: Text = Field(
        default="mnist", description="a dataset of `lth list datasets`, a folder of images, or an .npz file"
    )
    task: Annotated[str, named("tasks")] = Field(
        default="classification",
        description="what the targets are: one of `lth list tasks`",
        json_schema_extra=ADDED,
    )
    validation: Positive = Field(
        default=5000, description="number of training examples set aside for validation, chosen by seed"
    )
    mean: tuple[Annotated[Real, Field(ge=-1e6, le=1e6)], ...] = Field(
        default=(), description="one number per channel, subtracted from the pixels in [0, 1]"
    )
    std: tuple[Annotated[Real, Field(ge=1e-6, le=1e6)], ...] = Field(
        default=(), description="one number per channel; the pixels are divided by it after subtracting the mean"
    )
    size: Sides = Field(
        default=(),
        description="height and width to which images of a folder are scaled and cropped; unchanged by default",
        json_schema_extra=ADDED,
    )
    classes: Names = Field(
        default=(),
        description="class names in the order of the network's outputs; recorded if the data have names",
        json_schema_extra=ADDED,
    )

    @field_validator("name", mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        if not isinstance(given, Path):
            return given
        return str(given) if is_path(str(given)) else f"./{given}"  # a Path drops the dot of ./photos

    @field_validator("std")
    @classmethod
    def _with_mean(cls, std: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        mean = info.data.get("mean")
        if mean is not None and len(mean) != len(std):
            raise ValueError(
                f"it has {len(std)} numbers, and data.mean {len(mean)}: give both, one number for each channel"
            )
        return std

    @field_validator("task")
    @classmethod
    def _of_the_data(cls, task: str, info: ValidationInfo) -> str:
        if task != "classification" and info.data.get("name") in registry.DATASETS:
            raise ValueError(
                f"the targets of {info.data['name']} are classes: leave it out, or give data.name=FILE.npz"
            )
        return task

    @field_validator("classes")
    @classmethod
    def _of_classification(cls, classes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if classes and info.data.get("task") != "classification":
            raise ValueError(f"it is for data.task=classification, not {info.data.get('task')}; leave it out")
        return classes

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if not is_path(name) and name not in registry.DATASETS:
            raise ValueError(
                registry.unknown("datasets", name, f"a path of your own needs a slash: ./{name or 'FOLDER'}")
            )
        return name
