"""What a notebook shows of a ticket and of the tickets of a search."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
import torch
from torch import nn

import lth

pytestmark = [pytest.mark.figures, pytest.mark.usefixtures("one_thread")]


def searched(*told: Any) -> lth.Tickets:
    answers = iter(told)
    return lth.imp(nn.Linear(10, 10), lambda model: next(answers), rate=0.5, levels=len(told) - 1)


def test_a_ticket_in_a_line_and_as_a_table_of_its_layers() -> None:
    ticket = searched(None, None)[1]
    assert repr(ticket) == "Ticket(50.00% of 100 weights in 1 layer; Linear, trial 1, level 1)"
    html = ticket._repr_html_()
    assert "<td>weight</td><td>10 x 10</td><td>50</td><td>50.00%</td>" in html and "tensor" not in html
    bare = lth.Ticket({"<a>": torch.ones(2, 2).bool(), "b": torch.zeros(4, 1).bool()}, {})
    assert repr(bare) == "Ticket(50.00% of 8 weights in 2 layers)" and "<td>&lt;a&gt;</td>" in bare._repr_html_()


def test_the_levels_in_a_few_lines() -> None:
    tickets = searched({"score": 0.5, "early_stop_iteration": 1200}, 0.75, {"status": "diverged"})
    assert repr(tickets).split("\n") == [
        "Tickets(3 levels)",
        "  level 0, weights remaining 100.00%, weights 100, early stop iteration 1,200, score 0.5, status done",
        "  level 1, weights remaining 50.00%, weights 50, score 0.75, status done",
        "  level 2, weights remaining 25.00%, weights 25, status diverged",
    ]
    many = lth.imp(nn.Linear(100, 100), lambda model: None, levels=30)
    assert len(repr(many).split("\n")) == 14 and "level 30," in repr(many) and "tensor" not in repr(many)


def test_the_table_of_levels_and_the_chart_of_their_curves() -> None:
    html = searched(0.5, 0.6)._repr_html_()
    assert html.count("<tr>") == 3 and "<td>50.00%</td><td>50</td><td>0.6</td><td>done</td>" in html
    assert "<img" not in html
    curve = [{"iteration": n, "train_loss": 1.0, "val_loss": 1 / n, "val_accuracy": 0.1 * n} for n in (1, 2, 3)]
    html = lth.imp(nn.Linear(100, 100), lambda model: {"curve": curve}, levels=20)._repr_html_()
    picture = re.search(r'alt="val_accuracy by iteration" src="data:image/png;base64,([^"]+)"', html)
    assert picture and base64.b64decode(picture[1]).startswith(b"\x89PNG")
    assert len(html) < 200_000
    assert "<img" not in searched({"curve": [{"iteration": 1, "note": "text"}]})._repr_html_()
    assert "<img" not in searched({"curve": [{"val_loss": 0.5}]})._repr_html_()
