"""The sections of the page as HTML."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from lth import config
from lth.report import charts, words
from lth.report.beside import VERDICTS, Beside, Claim
from lth.report.charts import Chart, Line
from lth.report.pieces import SAVE, details, heads_row, marked, region, select
from lth.results.captions import format_percent, format_trials, run_names
from lth.results.records import Records
from lth.storage import layout

FORMATS: dict[str, Callable[[float], str]] = {
    "accuracy": lambda v: f"{100 * v:.2f}%",
    "iteration": lambda v: f"{v:,.0f}",
    "seconds": lambda v: f"{v:,.1f}",
    "loss": lambda v: f"{v:.4g}",
}


CLAIM = "the paper's text", "the paper's figure", "this run", "verdict"


def score_cards(names: Sequence[str], paper: Beside) -> str:
    """The papers' claims for each run that has a score card; empty if no run has one."""
    cards = "".join(_score_card(names[i], claims, paper.notes.get(i, "")) for i, claims in paper.cards.items())
    return f'<section id="score"><h2>Compared with the paper</h2>{cards}</section>' if cards else ""


def _score_card(name: str, claims: Sequence[Claim], note: str) -> str:
    """The judged claims with their counts; claims that need more data are in a collapsed part."""
    judged = [claim for claim in claims if claim.verdict != VERDICTS[-1]]
    unjudged = [claim for claim in claims if claim.verdict == VERDICTS[-1]]
    more = f"{len(unjudged)} claim{'s' * (len(unjudged) > 1)} that need{'s' * (len(unjudged) == 1)} more data"
    parts = [f"<p>{escape(_counted(name, judged))}</p>" if judged else "", claims_table(judged)]
    parts.append(_folded(more, claims_table(unjudged)))
    parts.append(_folded("How this is judged", note and f'<p class="quiet small">{marked(note)}</p>'))
    return f'<div class="card">{"".join(parts)}</div>'


def _counted(name: str, judged: Sequence[Claim]) -> str:
    """For example `lenet: 13 claims agree, 1 differs.`"""
    verdicts = Counter(claim.verdict for claim in judged)
    agree, differ = (verdicts[verdict] for verdict in VERDICTS[:2])
    agreeing = f"{agree} claim agrees" if agree == 1 else f"{agree} claims agree"
    return f"{name}: {agreeing}, {differ} {'differs' if differ == 1 else 'differ'}."


def claims_table(claims: Sequence[Claim]) -> str:
    """The table of a score card; empty without claims."""
    if not claims:
        return ""
    rows = "".join(
        f'<tr><th scope="row" class="left">{marked(claim.text)}</th>'
        f'<td class="left" data-head="{CLAIM[1]}">{marked(claim.figure)}</td>'
        f'<td class="left" data-head="{CLAIM[2]}">{marked(claim.run)}</td>'
        f'<td class="left verdict {escape(claim.verdict.split()[0])}">{escape(claim.verdict)}</td></tr>'
        for claim in claims
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="score card">'
        f'<table class="claims">{heads_row(CLAIM, "left")}<tbody>{rows}</tbody></table></div>'
    )


def _folded(summary: str, content: str) -> str:
    return content and f"<details><summary>{summary}</summary>{content}</details>"


def density_part(drawn: Sequence[tuple[Chart, Mapping[str, Sequence[Line]]]], runs: int) -> str:
    """The charts against density except the first, which is at the top; empty if there are no others."""
    if not drawn:
        return ""
    cards = "\n".join(density_card(chart, lines) for chart, lines in drawn[1:])
    return f"""<section id="density" data-part aria-labelledby="density-title">
<h2 id="density-title">As the network gets sparser</h2>
<p class="quiet">Each point is the mean of the trainings at one level, its bar their minimum and maximum. A ring marks
the winning level, a cross an early stop that was not reached. Click a name above to hide its curve in all charts.</p>
<div class="controls"><label><input type="checkbox" data-log checked> logarithmic density</label></div>
<div class="grid">{cards}</div></section>"""


def first_card(drawn: Sequence[tuple[Chart, Mapping[str, Sequence[Line]]]]) -> str:
    """The chart at the top, with the buttons that hide curves in all charts; empty if nothing is drawn."""
    names = '<div class="controls" id="series" role="group" aria-label="Series"></div>'
    return density_card(*drawn[0], above=names) if drawn else ""


def density_card(chart: Chart, lines: Mapping[str, Sequence[Line]], above: str = "") -> str:
    """A chart with the tables of its quantities; `above` is HTML between title and chart."""
    options = [(quantity, charts.label(quantity)) for quantity in lines]
    tables = "".join(density_table(quantity, drawn, hidden=i > 0) for i, (quantity, drawn) in enumerate(lines.items()))
    return f"""<figure class="card" id="chart-{chart.id}" data-part aria-labelledby="title-{chart.id}">
<header><h3 id="title-{chart.id}">{chart.title}</h3><div class="controls">{select("quantity", "", options)}
<label><input type="checkbox" data-log> log</label>{SAVE}</div></header>
<p class="quiet small">{chart.about}</p>{above}
<div class="plot"></div><p class="note quiet small"></p>
{details(f"table-{chart.id}", tables)}</figure>"""


def density_table(quantity: str, lines: Sequence[Line], hidden: bool) -> str:
    """The values of one quantity of a chart."""
    write = FORMATS[charts.kind(quantity)]
    rows = "".join(
        f'<tr><th scope="row">{escape(line.label)}</th>'
        f"<td>{level}{' *' * (level == line.winning)}</td><td>{format_percent(percent)}</td><td>{weights:,}</td>"
        f"<td>{write(mean)}{' +' * (level in line.late)}</td>"
        f"<td>{write(low)}</td><td>{write(high)}</td><td>{n}</td></tr>"
        for line in lines
        for level, percent, weights, mean, low, high, n in zip(
            line.level, line.percent, line.weights, line.mean, line.low, line.high, line.n, strict=True
        )
    )
    heads = heads_row(("series", "level", "% of weights", "weights", "mean", "min", "max", "n"))
    attributes = f'data-quantity="{escape(quantity)}"{" hidden" * hidden}'
    caption = escape(charts.label(quantity)) + _marks(lines)
    return f"<table {attributes}><caption>{caption}</caption>{heads}<tbody>{rows}</tbody></table>"


def _marks(lines: Sequence[Line]) -> str:
    """The meaning of the marks in a table, for its caption."""
    star = ["* winning level"] if any(line.winning in line.level for line in lines) else []
    late = ["+ early stop not reached"] if any(line.late for line in lines) else []
    return "".join(f"; {mark}" for mark in star + late)


def iteration_part(names: Sequence[str], curves: Sequence[Mapping[str, Any]]) -> str:
    """The curves by iteration; empty if there are none."""
    if not curves:
        return ""
    entries = [
        (str(c["key"]), str(c["family"]) if len(names) == 1 else f"{names[c['run']]}: {c['family']}") for c in curves
    ]
    return f"""<section aria-labelledby="iterations-title"><h2 id="iterations-title">While they train</h2>
<figure class="card" id="chart-iterations" data-part aria-labelledby="iterations-title">
<div class="controls">{select("curves", "curves of", entries)}{select("quantity", "", [("", "")])}
<label><input type="checkbox" data-log> log</label>{SAVE}</div>
<p class="quiet small">Means over trials, on a band from minimum to maximum. One curve per level, by percent;
the winning one has a star.</p>
<div class="controls" id="levels" role="group" aria-label="Levels"></div>
<div class="plot tall"></div><p class="note quiet small"></p>
{details("table-iterations")}</figure></section>"""


def explorer_part(names: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> str:
    """The ticket explorer; empty if no run has an anatomy."""
    if not runs:
        return ""
    entries = [(str(run["run"]), str(names[run["run"]])) for run in runs]
    heads = heads_row(("layer", "shape", "weights", "density", "dead units", "unread inputs"))
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


def measures_part(pictures: Mapping[str, bytes]) -> str:
    """The figures of measures, given as SVG files by name."""
    cards = "".join(
        f'<figure class="card"><img style="width:100%;background:white" alt="{escape(name)}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"></figure>'
        for name, svg in pictures.items()
    )
    return f'<section id="measures"><h2>Measures</h2><div class="grid">{cards}</div></section>' if cards else ""


def settings_part(runs: Sequence[Records]) -> str:
    """Every setting of every run; settings that differ between runs are marked."""
    tables = [config.as_settings(run.experiment) for run in runs]
    known = config.keys() | config.keys(config.Branch, "branch.")  # a key of branch NAME is branch.NAME.count
    rows = []
    for key in dict.fromkeys(key for table in tables for key in table):
        values = [table.get(key, "") for table in tables]
        differs = ' class="differs"' if len({*values}) > 1 else ""
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        meaning = known.get(key) or known.get(f"branch.{key.rpartition('.')[2]}", "")
        name = f'<th scope="row"><code>{escape(key)}</code></th>'
        rows.append(f"<tr{differs}>{name}{cells}<td>{marked(meaning)}</td></tr>")
    heads = heads_row(("setting", *run_names(runs), "meaning") if len(runs) > 1 else ("setting", "value", "meaning"))
    note = "<p class=quiet>Marked: where the runs differ.</p>" if len(runs) > 1 else ""
    whole = f'<table class="settings"><caption>All settings</caption>{heads}<tbody>{"".join(rows)}</tbody></table>'
    return f'<section><h2>Settings</h2>{note}<div class="card">{region(whole, "Settings")}</div></section>'


def origin_part(runs: Sequence[Records]) -> str:
    """The origin of the numbers: trainings, machine, versions, and the command that repeats them."""
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
{region(f"<pre>{toml}</pre>", layout.EXPERIMENT)}</details>
<div class="facts">{listed}</div></div>"""


def _facts(group: object) -> dict[str, str]:
    pairs = group.items() if isinstance(group, Mapping) else []
    return {str(key).replace("memory_gib", "memory (GiB)"): str(value) for key, value in pairs}
