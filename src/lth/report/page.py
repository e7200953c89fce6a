"""One run, or several overlaid, as one HTML page that makes no requests.

All text from configurations, tables and paths goes through `escape` or `as_json`. The page's content security policy
allows only its own two scripts and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from lth.measures import anatomy
from lth.report import charts, explorer
from lth.report.beside import Beside, beside
from lth.report.opening import opening
from lth.report.sections import (
    density_part,
    explorer_part,
    first_card,
    iteration_part,
    measures_part,
    origin_part,
    score_cards,
    settings_part,
)
from lth.results.captions import run_names
from lth.results.records import Records
from lth.storage import atomic

# the parts of the page's script, which share one scope
SCRIPTS = ("basics", "plots", "density", "iterations", "explorer", "controls", "start")


Tickets = Sequence[explorer.Tickets]  # the anatomy of each run's tickets


def write(runs: Sequence[Records], path: str | Path, pictures: Mapping[str, bytes] | None = None) -> Path:
    """Write the report of `runs` to `path` atomically. `pictures` are SVG files of measures by name."""
    atomic.write_file(Path(path), render(runs, pictures=pictures).encode())
    return Path(path)


def render(
    runs: Sequence[Records],
    live: bool = False,
    version: str = "",
    tickets: Tickets | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """The whole page. A live page asks its own server, and no other, for updates of `version`."""
    from plotly.offline import get_plotlyjs

    plotly, behaviour = (as_parsed(text) for text in (get_plotlyjs(), script()))
    return Template(_part("page.html")).substitute(
        title=escape(f"{', '.join(run_names(runs))}: lth report"),
        policy=escape(policy([plotly, behaviour], live)),
        version=escape(metadata.version("lth")),
        style=_part("page.css"),
        live=' data-live=""' if live else "",
        main=main(runs, version, tickets=tickets, pictures=pictures),
        plotly=plotly,
        script=behaviour,
    )


def main(
    runs: Sequence[Records],
    version: str = "",
    paper: Beside | None = None,
    tickets: Tickets | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """The part of the page that is updated during a run: all text, the tables, and the values of the charts.

    By default, `paper` and `tickets` are read from the papers and the runs' folders.
    """
    paper = beside(runs) if paper is None else paper
    tickets = [anatomy.read(run.folder) for run in runs] if tickets is None else tickets
    drawn = charts.by_density(runs)
    data = {
        "looks": charts.looks(runs),
        "density": charts.data_by_density(runs, paper.lines),
        "iterations": charts.data_by_iteration(runs),
        "explorer": explorer.data(runs, tickets),
    }
    names = run_names(runs)
    parts = [
        opening(runs, first_card(drawn)),
        score_cards(names, paper),
        density_part(drawn, len(runs)),
        iteration_part(names, data["iterations"]),
        explorer_part(names, data["explorer"]),
        measures_part(pictures or {}),
        origin_part(runs),
        settings_part(runs),
        f'<script type="application/json" id="data">{as_json(data)}</script>',
    ]
    inner = "\n".join(part for part in parts if part)
    return f'<main data-version="{escape(version)}">\n{inner}\n</main>'


# ------------------------------------------------------------------------------------------------------------ safety


def as_json(value: Any) -> str:
    """JSON for a script element, without characters that could end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(scripts: Iterable[str], live: bool) -> str:
    """The content security policy: these scripts by their hashes, inline styles and images, no requests."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    asked = "connect-src 'self'; " if live else ""
    inside = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {asked}{inside}"


def as_parsed(script: str) -> str:
    """A script as the browser hashes it: line ends are normalised to one character."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("\0", "\\0")


def script() -> str:
    """The script of the page: its parts in one scope."""
    parts = "\n".join(_part(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _part(name: str) -> str:
    return resources.files("lth.report").joinpath("assets", name).read_text(encoding="utf-8")
