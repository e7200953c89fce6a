"""The widths of figures for papers. This module does not import matplotlib, which takes a second."""

from __future__ import annotations

from lth.config import nearest
from lth.errors import UsageError

WIDTHS = {  # inches between the margins of a conference style
    "neurips": 5.5,
    "iclr": 5.5,
    "icml": 6.75,
    "icml-column": 3.25,
    "cvpr": 6.875,
    "cvpr-column": 3.25,
    "acl": 6.3,
    "acl-column": 3.03,
}


def width_of(text: str | None) -> float | None:
    """The width in inches: of a conference's column or text by name, or a number from 1 to 20; None for None.

    Raises UsageError for anything else.
    """
    if text is None or text in WIDTHS:
        return WIDTHS[text] if text else None
    try:
        inches = float(text)
    except ValueError:
        inches = 0.0
    if not 1 <= inches <= 20:
        names = ", ".join(f"{name} ({inches:g})" for name, inches in WIDTHS.items())
        raise UsageError(f"a width is a number of inches from 1 to 20, or {names}; not {text!r}{nearest(text, WIDTHS)}")
    return inches
