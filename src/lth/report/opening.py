"""The top of the page: what was run, the result and its certainty, one chart, and the next steps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lth.report import words
from lth.report.pieces import heads_row, marked, region
from lth.results import comparison, sentences, verdict
from lth.results.captions import run_names
from lth.results.records import Records


def opening(runs: Sequence[Records], chart: str) -> str:
    """The findings of the runs next to or above `chart`, as an HTML card."""
    several, names = len(runs) > 1, run_names(runs)
    title = f"lth report of {len(runs)} runs" if several else f"lth report: {escape(names[0])}"
    live = '<p id="live" role="status"></p>'
    parts = "\n".join(_finding(run, name if several else "") for run, name in zip(runs, names, strict=True))
    if several:
        each = f'<details id="each-run"><summary>Each run</summary>{parts}</details>'
        return f'{live}\n<h1>{title}</h1>\n<div id="opening" class="several">{_comparison(runs)}{chart}{each}</div>'
    return (
        f'{live}\n<h1>{title}</h1>\n<div id="opening" class="split"><div>{parts}</div>{chart}</div>\n{_notes(runs[0])}'
    )


def _comparison(runs: Sequence[Records]) -> str:
    """The headline of several runs, and their table."""
    rows = comparison.ranked(runs)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in comparison.cells(rows)
    )
    table = f"<table>{heads_row(comparison.heads(rows))}<tbody>{body}</tbody></table>" if rows else ""
    notes = escape(" ".join(comparison.remarks(rows)))
    return (
        f'<p class="headline">{marked(comparison.headline(rows))}</p>'
        f'<div id="comparison" class="card">{region(table, "Comparison")}<p class="quiet small">{notes}</p></div>'
    )


def _finding(run: Records, name: str) -> str:
    """What one run is and its result; with a title and without next steps if there are several runs."""
    judged = verdict.of(run)
    head = f"<h2>{escape(name)}</h2>" if name else ""
    rows = "".join(f"<dt>{marked(what)}</dt><dd>{marked(text)}</dd>" for what, text in sentences.facts(judged))
    return (
        f'<div class="finding">{head}<p class="quiet">{marked(words.subject(run))}</p>'
        f'<p class="headline">{marked(words.headline(run))}</p><dl>{rows}</dl>'
        f"{'' if name else _next(run)}</div>"
    )


def _next(run: Records) -> str:
    """The next steps with their commands."""
    steps = words.next_steps(run)
    code = lambda command: command and f"<pre><code>{escape(command)}</code></pre>"
    items = "".join(f"<li>{marked(what)}{code(command)}</li>" for what, command in steps)
    return f'<h2 class="small">Next</h2><ul class="next">{items}</ul>' if items else ""


def _notes(run: Records) -> str:
    """What is missing or left out, and how the verdict is made."""
    texts = words.notes(run)
    return f'<p class="quiet small">{marked(" ".join(texts))}</p>' if texts else ""
