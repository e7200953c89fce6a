"""HTML fragments for the sections of the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

CODE = re.compile(r"`([^`]+)`")
SAVE = '<button type="button" class="save" data-save>Save image</button>'  # the save button of a chart


def marked(text: str) -> str:
    """Text as HTML; text between backticks becomes code."""
    return CODE.sub(r"<code>\1</code>", escape(text))


def select(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    """A select element with a label (or an invisible one for screen readers); hidden if there is nothing to choose."""
    inner = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    hidden = " hidden" if len(options) < 2 else ""
    text = f'<span class="quiet small">{label}</span>' if label else ""
    hint = "" if label else f' aria-label="{name}"'
    return f'<label{hidden}>{text}<select data-pick="{name}"{hint}>{inner}</select></label>'


def details(name: str, inner: str = "") -> str:
    """The table behind a chart; the script fills an empty one."""
    return f'<details id="{name}"><summary>Table</summary>{region(inner, "Table")}</details>'


def region(inner: str, label: str) -> str:
    """A container that scrolls, also by keyboard, if its content is too wide or too long."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{inner}</div>'


def heads_row(names: Iterable[str], kind: str = "") -> str:
    """The head row of a table."""
    cells = "".join(f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"
