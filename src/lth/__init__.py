"""lth: find, train, check and explain winning lottery tickets.

The public names are loaded when they are first used, so that `import lth` is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth.config import Recipe as Recipe
    from lth.errors import LthError as LthError
    from lth.errors import UsageError as UsageError
    from lth.execution.running import run as run
    from lth.execution.stored import Run as Run
    from lth.execution.stored import compare as compare
    from lth.tickets.callbacks import hf_callback as hf_callback
    from lth.tickets.callbacks import lightning_callback as lightning_callback
    from lth.tickets.compact import compact as compact
    from lth.tickets.export import export as export
    from lth.tickets.find import find_tickets as find_tickets
    from lth.tickets.hold import hold as hold
    from lth.tickets.imp import Tickets as Tickets
    from lth.tickets.imp import imp as imp
    from lth.tickets.ticket import Ticket as Ticket

_PUBLIC = {
    "run": "lth.execution.running",
    "Run": "lth.execution.stored",
    "compare": "lth.execution.stored",
    "Ticket": "lth.tickets.ticket",
    "Tickets": "lth.tickets.imp",
    "Recipe": "lth.config",
    "find_tickets": "lth.tickets.find",
    "hf_callback": "lth.tickets.callbacks",
    "lightning_callback": "lth.tickets.callbacks",
    "compact": "lth.tickets.compact",
    "export": "lth.tickets.export",
    "hold": "lth.tickets.hold",
    "imp": "lth.tickets.imp",
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
