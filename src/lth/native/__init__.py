"""The compiled engine: chains of masked Linear and ReLU, at a cost proportional to the surviving weights.

Importing this module is fast and never fails; `available()` says whether the engine was built, `why_not()` why it was
not.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Dataset", "Network", "available", "instruction_set", "instruction_sets", "why_not"]

_REASON = Path(__file__).with_name("build-failure.txt")


def _load() -> ModuleType | None:
    try:
        return import_module("lth.native._core")
    except ImportError:
        return None


def available() -> bool:
    """Return whether the compiled engine can be used."""
    return _load() is not None


def why_not() -> str | None:
    """Why the engine is not available and what to do about it; None if it is available."""
    if available():
        return None
    reason = " ".join(_REASON.read_text().split()) if _REASON.exists() else "it was never built"
    remedy = "install a C++17 compiler, then lth again (pip install --no-deps --force-reinstall .)"
    return f"the native engine is not available: {reason}; {remedy}"


def instruction_sets() -> list[str]:
    """The supported instruction sets, best first: of avx512, avx2, plain; empty without the engine."""
    core = _load()
    return core.instruction_sets() if core else []


def instruction_set() -> str:
    """The instruction set that networks use by default; "none" without the engine."""
    return next(iter(instruction_sets()), "none")


def __getattr__(name: str) -> Any:
    if name not in ("Dataset", "Network"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    core = _load()
    if core is None:
        raise ImportError(why_not())
    return getattr(core, name)
