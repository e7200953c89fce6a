"""Datasets: find, read and verify them, and set a validation set aside.

Importing this package imports neither torch nor numpy, so that `lth data list` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth.data.examples import Data, digest, from_arrays
    from lth.data.loading import load
    from lth.data.splits import Splits, pixels, split

__all__ = ["Data", "Splits", "digest", "from_arrays", "load", "pixels", "split"]

_HOME = {
    "Data": "lth.data.examples",
    "digest": "lth.data.examples",
    "from_arrays": "lth.data.examples",
    "load": "lth.data.loading",
    "Splits": "lth.data.splits",
    "pixels": "lth.data.splits",
    "split": "lth.data.splits",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
