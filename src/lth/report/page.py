"""A run, or several over each other, as one HTML page that asks nothing of any network.

Everything that comes from configurations, tables or paths goes through `escape`, or through `as_json`; besides, the
page forbids itself all scripts but its own two, and all requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel

from lth import config
from lth.report import charts, explorer, words
from lth.report.beside import VERDICTS, Beside, Claim, beside
from lth.report.charts import Chart, Line
from lth.results.captions import format_trials
from lth.results.plots import format_percent, run_names
from lth.results.records import Records
from lth.storage import atomic

FILE = "report.html"
FORMATS: dict[str, Callable[[float], str]] = {
    "accuracy": lambda v: f"{100 * v:.2f}%",
    "iteration": lambda v: f"{v:,.0f}",
    "seconds": lambda v: f"{v:,.1f}",
    "loss": lambda v: f"{v:.4g}",
}


def write(runs: Sequence[Records], path: str | Path) -> Path:
    """Write the report of `runs` to `path`, whole."""
    atomic.write_file(Path(path), render(runs).encode())
    return Path(path)


def render(runs: Sequence[Records], live: bool = False, version: str = "") -> str:
    """The whole page. A live one asks the server that it came from for news of `version`, and nobody else."""
    from plotly.offline import get_plotlyjs

    plotly, script = (as_parsed(text) for text in (get_plotlyjs(), _part("page.js")))
    return Template(_part("page.html")).substitute(
        title=escape(f"{', '.join(run_names(runs))}: lth report"),
        policy=escape(policy([plotly, script], live)),
        version=escape(metadata.version("lth")),
        style=_part("page.css"),
        live=' data-live=""' if live else "",
        main=main(runs, version),
        plotly=plotly,
        script=script,
    )


def main(runs: Sequence[Records], version: str = "", paper: Beside | None = None) -> str:
    """The part of the page that a live one renews: all text, the tables, and the values of the charts."""
    paper = beside(runs) if paper is None else paper
    drawn = charts.by_density(runs)
    data = {
        "looks": charts.looks(runs),
        "density": charts.data_by_density(runs, paper.lines),
        "iterations": charts.data_by_iteration(runs),
        "explorer": explorer.data(runs),
    }
    names = run_names(runs)
    parts = [
        findings(runs),
        score_cards(names, paper),
        density_part(drawn, len(runs)),
        iteration_part(names, data["iterations"]),
        explorer_part(names, data["explorer"]),
        settings_part(runs),
        origin_part(runs),
        f'<script type="application/json" id="data">{as_json(data)}</script>',
    ]
    inner = "\n".join(part for part in parts if part)
    return f'<main data-version="{escape(version)}">\n{inner}\n</main>'


# ------------------------------------------------------------------------------------------------------------ safety


def as_json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element, or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(scripts: Iterable[str], live: bool) -> str:
    """The page's content security policy: these scripts by their hashes, styles and images within, no requests."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    asked = "connect-src 'self'; " if live else ""
    inside = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {asked}{inside}"


def as_parsed(script: str) -> str:
    """A script as a browser reads it inside a page: line ends are made one there, which would change its hash."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("\0", "\\0")


def _part(name: str) -> str:
    return resources.files("lth.report").joinpath(name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ sections


def findings(runs: Sequence[Records]) -> str:
    """The headline of each run, and what has to be known beside it."""
    several = len(runs) > 1
    found = "\n".join(_finding(run, name, several) for run, name in zip(runs, run_names(runs), strict=True))
    title = f"lth report of {len(runs)} runs" if several else f"lth report: {escape(run_names(runs)[0])}"
    return f'<p id="live" role="status"></p>\n<div{" class=several" * several}><h1>{title}</h1>\n{found}</div>'


def _finding(run: Records, name: str, several: bool) -> str:
    """The headline is a heading too; where several runs are shown it stands below the run's name."""
    head = f"<h2>{escape(name)}</h2>" if several else ""
    remarks = [run.experiment.about.rstrip(".") + "." if run.experiment.about else "", *words.remarks(run)]
    said = " ".join(escape(text) for text in remarks if text)
    headline = escape(words.headline(run))
    return f'<div class="finding">{head}<p class="headline">{headline}</p><p class="quiet">{said}</p></div>'


CLAIM = "the paper's text", "the paper's figure", "this run", "verdict"


def score_cards(names: Sequence[str], paper: Beside) -> str:
    """The paper's claims against each run that has a score card; nothing where none has."""
    cards = []
    for i, claims in paper.cards.items():
        verdicts = Counter(claim.verdict for claim in claims)
        counted = ", ".join(f"{verdict}: {verdicts[verdict]}" for verdict in VERDICTS)
        judged = [claim for claim in claims if claim.verdict != VERDICTS[-1]]
        open_ = [claim for claim in claims if claim.verdict == VERDICTS[-1]]
        parts = [f"<p>{escape(names[i])}; {counted}</p>", claims_table(judged)]
        parts.append(_folded("Claims that need more data", claims_table(open_)))
        if i in paper.notes:
            parts.append(_folded("How this is judged", f'<p class="quiet small">{escape(paper.notes[i])}</p>'))
        cards.append(f'<div class="card">{"".join(parts)}</div>')
    return f'<section id="score"><h2>Beside the paper</h2>{"".join(cards)}</section>' if cards else ""


def claims_table(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    rows = "".join(
        f'<tr><th scope="row" class="left">{escape(claim.text)}</th>'
        f'<td class="left" data-head="{CLAIM[1]}">{escape(claim.figure)}</td>'
        f'<td class="left" data-head="{CLAIM[2]}">{escape(claim.run)}</td>'
        f'<td class="left verdict {escape(claim.verdict.split()[0])}">{escape(claim.verdict)}</td></tr>'
        for claim in claims
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="score card">'
        f'<table class="claims">{_heads(CLAIM, "left")}<tbody>{rows}</tbody></table></div>'
    )


def _folded(summary: str, content: str) -> str:
    return content and f"<details><summary>{summary}</summary>{content}</details>"


def density_part(drawn: Sequence[tuple[Chart, Mapping[str, Sequence[Line]]]], runs: int) -> str:
    if not drawn:
        return ""
    cards = "\n".join(density_card(chart, lines) for chart, lines in drawn)
    return f"""<section id="density" data-part aria-labelledby="density-title">
<h2 id="density-title">As the network gets sparser</h2>
<p class="quiet">Each point is the mean of the trainings at one level, its bar their minimum and maximum. Press a name
to take its curve away.</p>
<div class="controls"><div class="controls" id="series" role="group" aria-label="Series"></div>
<label><input type="checkbox" data-log checked> logarithmic density</label></div>
<div class="grid">{cards}</div></section>"""


def density_card(chart: Chart, lines: Mapping[str, Sequence[Line]]) -> str:
    options = [(quantity, charts.label(quantity)) for quantity in lines]
    tables = "".join(density_table(quantity, found, hidden=i > 0) for i, (quantity, found) in enumerate(lines.items()))
    return f"""<figure class="card" id="chart-{chart.id}" data-part aria-labelledby="title-{chart.id}">
<header><h3 id="title-{chart.id}">{chart.title}</h3><div class="controls">{select("quantity", "", options)}
<label><input type="checkbox" data-log> log</label></div></header>
<p class="quiet small">{chart.about}</p>
<div class="plot"></div><p class="note quiet small"></p>
{details(f"table-{chart.id}", tables)}</figure>"""


def density_table(quantity: str, lines: Sequence[Line], hidden: bool) -> str:
    said = FORMATS[charts.kind(quantity)]
    rows = "".join(
        f'<tr><th scope="row">{escape(line.label)}</th>'
        f"<td>{level}</td><td>{format_percent(percent)}</td><td>{weights:,}</td>"
        f"<td>{said(mean)}</td><td>{said(low)}</td><td>{said(high)}</td><td>{n}</td></tr>"
        for line in lines
        for level, percent, weights, mean, low, high, n in zip(
            line.level, line.percent, line.weights, line.mean, line.low, line.high, line.n, strict=True
        )
    )
    heads = _heads(("series", "level", "% of weights", "weights", "mean", "min", "max", "n"))
    attributes = f'data-quantity="{escape(quantity)}"{" hidden" * hidden}'
    return (
        f"<table {attributes}><caption>{escape(charts.label(quantity))}</caption>{heads}<tbody>{rows}</tbody></table>"
    )


def iteration_part(names: Sequence[str], curves: Sequence[Mapping[str, Any]]) -> str:
    if not curves:
        return ""
    entries = [
        (str(c["key"]), str(c["family"]) if len(names) == 1 else f"{names[c['run']]}: {c['family']}") for c in curves
    ]
    return f"""<section aria-labelledby="iterations-title"><h2 id="iterations-title">While they train</h2>
<figure class="card" id="chart-iterations" data-part aria-labelledby="iterations-title">
<div class="controls">{select("curves", "curves of", entries)}{select("quantity", "", [("", "")])}
<label><input type="checkbox" data-log> log</label></div>
<p class="quiet small">Means over trials, on a band from minimum to maximum; a curve a level, by percent of weights.</p>
<div class="controls" id="levels" role="group" aria-label="Levels"></div>
<div class="plot tall"></div><p class="note quiet small"></p>
{details("table-iterations")}</figure></section>"""


def explorer_part(names: Sequence[str], found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    entries = [(str(run["run"]), str(names[run["run"]])) for run in found]
    heads = _heads(("layer", "shape", "weights", "density", "dead units", "unread inputs"))
    return f"""<section id="tickets" data-part aria-labelledby="tickets-title">
<h2 id="tickets-title">Inside the ticket</h2>
<div class="card"><div class="controls">{select("run", "run", entries)}{select("trial", "trial", [("0", "")])}
<label class="slider" for="level"><output id="level-said" for="level"></output>
<input type="range" id="level" min="0" max="0" value="0" step="1" aria-label="Level"></label></div>
<table id="layers"><caption>A unit is dead when no surviving weight enters it, an input unread when none leaves it.
</caption>{heads}<tbody></tbody></table></div>
<div class="grid" style="margin-top:1rem">
<figure class="card" id="chart-pixels" aria-labelledby="pixels-title"><h3 id="pixels-title">Surviving connections</h3>
<p class="quiet small">Weights of the first layer, all units and channels together.</p>
<div class="plot"></div>{details("table-pixels")}</figure>
<figure class="card" id="chart-starts" aria-labelledby="starts-title">
<header><h3 id="starts-title">Where survivors began</h3>
<div class="controls">{select("layer", "layer", [("0", "")])}</div></header>
<p class="quiet small">Initial values of the surviving weights (line) against those of all (grey), each as shares.</p>
<div class="plot"></div>{details("table-starts")}</figure></div></section>"""


def settings_part(runs: Sequence[Records]) -> str:
    """Every setting of every run; what differs between runs is marked."""
    told = [settings(run.experiment) for run in runs]
    known = config.keys() | config.keys(config.Branch, "branch.")  # a key of branch NAME is branch.NAME.count
    rows = []
    for key in dict.fromkeys(key for setting in told for key in setting):
        values = [setting.get(key, "") for setting in told]
        differs = ' class="differs"' if len({*values}) > 1 else ""
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        meaning = known.get(key) or known.get(f"branch.{key.rpartition('.')[2]}", "")
        name = f'<th scope="row"><code>{escape(key)}</code></th>'
        rows.append(f"<tr{differs}>{name}{cells}<td>{escape(meaning)}</td></tr>")
    heads = _heads(("setting", *run_names(runs), "meaning") if len(runs) > 1 else ("setting", "value", "meaning"))
    note = "<p class=quiet>Marked: where the runs differ.</p>" if len(runs) > 1 else ""
    table = f'<table class="settings"><caption>All settings</caption>{heads}<tbody>{"".join(rows)}</tbody></table>'
    return f'<section><h2>Settings</h2>{note}<div class="card">{region(table, "Settings")}</div></section>'


def settings(experiment: BaseModel, prefix: str = "") -> dict[str, str]:
    """Each key and its value as TOML would have it; a branch's keys carry its name."""
    found: dict[str, str] = {}
    for name in type(experiment).model_fields:
        value = getattr(experiment, name)
        if isinstance(value, BaseModel):
            found |= settings(value, f"{prefix}{name}.")
        elif name == "branch":
            for branch in value:
                found |= {
                    k: v for k, v in settings(branch, f"branch.{branch.name}.").items() if not k.endswith(".name")
                }
        elif value is not None:
            found[prefix + name] = config.to_setting("x", value).removeprefix("x=")
    return found


def origin_part(runs: Sequence[Records]) -> str:
    """Where the numbers come from: trainings, machine, versions, and what to type for the same again."""
    cards = "".join(_origin(run, name) for run, name in zip(runs, run_names(runs), strict=True))
    return f'<section><h2>Where this comes from</h2><div class="grid">{cards}</div></section>'


def _origin(run: Records, name: str) -> str:
    known = run.environment or {}
    stored, expected = words.progress(run)
    counts = run.summary.loc[run.summary["branch"] == "ticket"].groupby("level").size()
    trained = {"trainings": f"{stored} of {expected}", "tickets": format_trials([int(n) for n in counts])}
    groups = [trained | _facts(known.get("means")), _facts(known.get("machine")), _facts(known.get("versions"))]
    listed = "".join(
        f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in facts.items())}</dl>"
        for facts in groups
        if facts
    )
    command = f"<p>Begun by:</p><pre><code>{escape(str(known['command']))}</code></pre>" if known.get("command") else ""
    toml = escape(config.to_toml(run.experiment))
    return f"""<div class="card"><h3>{escape(name)}</h3>{command}
<details><summary>experiment.toml: <code>lth run</code> on this file repeats it</summary>
{region(f"<pre>{toml}</pre>", "experiment.toml")}</details>
<div class="facts">{listed}</div></div>"""


def _facts(group: object) -> dict[str, str]:
    pairs = group.items() if isinstance(group, Mapping) else []
    return {str(key).replace("memory_gib", "memory (GiB)"): str(value) for key, value in pairs}


# ------------------------------------------------------------------------------------------------------------- pieces


def select(name: str, said: str, options: Sequence[tuple[str, str]]) -> str:
    """A choice, labelled by `said`, or for the ear alone; hidden while there is nothing to choose."""
    inner = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    hidden = " hidden" if len(options) < 2 else ""
    label = f'<span class="quiet small">{said}</span>' if said else ""
    ear = "" if said else f' aria-label="{name}"'
    return f'<label{hidden}>{label}<select data-pick="{name}"{ear}>{inner}</select></label>'


def details(name: str, inner: str = "") -> str:
    """The table behind a chart; the script fills it where `inner` is empty."""
    return f'<details id="{name}"><summary>Table</summary>{region(inner, "Table")}</details>'


def region(inner: str, said: str) -> str:
    """What can be wider or longer than its place: scrolled also by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{said}">{inner}</div>'


def _heads(names: Iterable[str], kind: str = "") -> str:
    cells = "".join(f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"
