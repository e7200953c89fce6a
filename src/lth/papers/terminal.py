"""The score card as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lth.config import printable
from lth.papers.agreement import Agreement
from lth.papers.card import Card
from lth.papers.claims import ES, TEST
from lth.papers.judging import AGREES, DIFFERS, LACKING
from lth.papers.scores import Score
from lth.papers.statements import Count, Statement
from lth.papers.wording import format_measured

STYLES: Mapping[str, str] = {AGREES: "green", DIFFERS: "bold red", LACKING: "yellow"}


def render(card: Card) -> Group:
    """The card as a rich renderable."""
    parts: list[RenderableType] = [Text(printable(f"{card.name}: {card.about}").removesuffix(": "), style="bold")]
    parts += [Text(note) for note in card.notes]
    if card.scores:
        parts += [Text(), _claims_table(card.scores), Text(_tally(card.scores))]
    if card.curves:
        parts += [Text(), _curves_table(card.curves)]
    parts += [Text(), Text("By the run itself", style="bold"), Text(card.winning)]
    if card.statements:
        parts += [Text(), _statements_table(card.statements)]
    if card.counts:
        parts += [Text(), _counts_table(card.counts)]
    return Group(*parts, Text(), Text(card.method, style="dim"))


def _table(*heads: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=False)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold", vertical="top")
    return table


def _claims_table(scores: tuple[Score, ...]) -> Table:
    table = _table("claim", "the paper's text", "its figure", "this run", "verdict")
    for column, ratio in zip(table.columns, (None, 3, 3, 4, None), strict=True):
        column.ratio, column.no_wrap = ratio, column.header == "claim"
    for score in scores:
        run = Text(score.run)
        if score.missing:
            run.append(f"\nmissing: {score.missing}", style="dim")
        verdict = Text(score.verdict, style=STYLES[score.verdict])
        table.add_row(score.claim.id, Text(score.text), Text(score.figure), run, verdict, end_section=True)
    return table


def _tally(scores: tuple[Score, ...]) -> str:
    verdicts = Counter(score.verdict for score in scores)
    return f"{len(scores)} claims: {verdicts[AGREES]} agree, {verdicts[DIFFERS]} differ, {verdicts[LACKING]} lack data."


def _curves_table(entries: tuple[Agreement, ...]) -> Table:
    table = _table("the paper's curve", "figure", "within", "levels", "largest departure", right=("within", "levels"))
    for entry in entries:
        table.add_row(entry.of, entry.curve.figure, f"{entry.share:.0%}", str(len(entry.levels)), entry.furthest)
    return table


def _statements_table(statements: tuple[Statement, ...]) -> Table:
    first = statements[0]
    columns = {TEST: "test accuracy at early stop", ES: "early-stop iteration"}
    table = _table(f"at level {first.level}, {first.percent:.3g}%", *columns.values())
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for s in statements:
        value = f"{s.bound} {format_measured(s.kind, s.run)}".lstrip()
        cells.setdefault((s.a, s.b), {})[s.column] = f"{value}\n{s.verdict}"
    for (a, b), row in cells.items():
        table.add_row(f"{a} over {b}", *(row.get(column, "-") for column in columns))
    return table


def _counts_table(counts: tuple[Count, ...]) -> Table:
    heads = ("difference resolved, at each level by itself", "more accurate at", "less accurate at", "of levels")
    table = _table(*heads, right=heads[1:])
    for count in counts:
        table.add_row(f"{count.a} over {count.b}", str(count.more), str(count.less), str(count.levels))
    return table
