"""The table [data]: which examples, and how they are scaled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from lth.config import registry
from lth.config.fields import Positive, Real, Text, Value


def is_path(name: str) -> bool:
    """Whether a dataset's name is meant as a place on disk: it has a slash or ends in .npz."""
    return "/" in name or name.lower().endswith(".npz")


class Data(Value):
    name: Text = Field(
        default="mnist", description="a dataset of `lth list datasets`, a folder of images, or an .npz file"
    )
    validation: Positive = Field(
        default=5000, description="training examples split off at random, by seed, for validation"
    )
    mean: tuple[Annotated[Real, Field(ge=-1e6, le=1e6)], ...] = Field(
        default=(), description="one number per channel, subtracted from the pixels, which are 0 to 1"
    )
    std: tuple[Annotated[Real, Field(ge=1e-6, le=1e6)], ...] = Field(
        default=(), description="one number per channel, by which the pixels are then divided"
    )

    @field_validator("name", mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        if not isinstance(given, Path):
            return given
        return str(given) if is_path(str(given)) else f"./{given}"  # a Path forgets the dot of ./photos

    @field_validator("std")
    @classmethod
    def _with_mean(cls, std: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        mean = info.data.get("mean")
        if mean is not None and len(mean) != len(std):
            raise ValueError(
                f"it has {len(std)} numbers, and data.mean {len(mean)}: give both, one number for each channel"
            )
        return std

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if not is_path(name) and name not in registry.DATASETS:
            raise ValueError(registry.unknown("datasets", name, f"one of your own has a slash: ./{name or 'FOLDER'}"))
        return name
