"""Where trainings run. An executor is a context that yields Workers: three callables, and nothing else to know."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from lth.plan import Training


@dataclass(frozen=True)
class Workers:
    """What the scheduler sees of an executor."""

    count: int
    submit: Callable[[Training], Future[dict[str, Any]]]  # its result is the training's summary
    news: Callable[[], list[tuple[str, int]]]  # (training id, iteration) since the last call
    stop: Callable[[], None]  # ask all trainings to write a checkpoint and end
