"""The compiled engine: masked Linear + ReLU chains, trained at a cost that follows the surviving weights.

Importing this is cheap and never fails; `available()` says whether the engine was built, `why_not()` why it was not.
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
    """True where the compiled engine can be used."""
    return _load() is not None


def why_not() -> str | None:
    """Why the engine is not available and what to do about it, in one line; None if it is."""
    if available():
        return None
    reason = " ".join(_REASON.read_text().split()) if _REASON.exists() else "it was never built"
    remedy = "install a C++17 compiler, then lth again (pip install --no-deps --force-reinstall .)"
    return f"the native engine is not available: {reason}; {remedy}"


def instruction_sets() -> list[str]:
    """The instruction sets that run here, best first: of avx512, avx2, plain; none without the engine."""
    core = _load()
    return core.instruction_sets() if core else []


def instruction_set() -> str:
    """The instruction set that networks use unless another is given; "none" without the engine."""
    return next(iter(instruction_sets()), "none")


def __getattr__(name: str) -> Any:
    if name not in ("Dataset", "Network"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    core = _load()
    if core is None:
        raise ImportError(why_not())
    return getattr(core, name)
