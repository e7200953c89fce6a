"""HTML fragments for notebooks."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape


def html_table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of strings."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_image(png: bytes, alt: str) -> str:
    """An embedded PNG image."""
    content = base64.b64encode(png).decode()
    return f'<img style="max-width:100%" alt="{escape(alt)}" src="data:image/png;base64,{content}">'
