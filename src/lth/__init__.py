"""lth: find, train, check and explain winning lottery tickets.

The public names are loaded when they are first used, so that `import lth` is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth.callbacks import hf_callback as hf_callback
    from lth.callbacks import lightning_callback as lightning_callback
    from lth.compacting import compact as compact
    from lth.config import Recipe as Recipe
    from lth.errors import LthError as LthError
    from lth.errors import UsageError as UsageError
    from lth.exporting import export as export
    from lth.finding import find_tickets as find_tickets
    from lth.holding import hold as hold
    from lth.ladder import Tickets as Tickets
    from lth.ladder import imp as imp
    from lth.running import Run as Run
    from lth.running import run as run
    from lth.ticket import Ticket as Ticket

_PUBLIC = {
    "run": "lth.running",
    "Run": "lth.running",
    "Ticket": "lth.ticket",
    "Tickets": "lth.ladder",
    "Recipe": "lth.config",
    "find_tickets": "lth.finding",
    "hf_callback": "lth.callbacks",
    "lightning_callback": "lth.callbacks",
    "compact": "lth.compacting",
    "export": "lth.exporting",
    "hold": "lth.holding",
    "imp": "lth.ladder",
    "LthError": "lth.errors",
    "UsageError": "lth.errors",
}
__all__ = sorted(_PUBLIC)
__version__ = version("lth")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lth' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
