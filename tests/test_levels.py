"""What tickets of one search share, and the trained weights of its levels."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lth
from lth import models
from lth.errors import LthError, UsageError
from lth.pruning import masks
from lth.tickets import levels
from lth.tickets.ticket import to_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.middle, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))


def search(count: int = 3, model: nn.Module | None = None, **options: Any) -> tuple[lth.Tickets, list[Any], Any]:
    """Tickets of a training that adds noise, the state at the end of each level, and the first state."""
    torch.manual_seed(0)
    model = model or Tied()
    first, ends = models.tensors(model), list[dict[str, Tensor]]()

    def train(model: nn.Module) -> float:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ends.append(models.tensors(model))
        return 1.0

    return lth.imp(model, train, levels=count, **options), ends, first


def test_mask_and_start_are_made_when_they_are_read_and_nobody_can_change_them() -> None:
    tickets, _, first = search()
    ties = {"head.weight": "words.weight"}
    for ticket in tickets:
        assert list(ticket.mask) == ["words.weight", "middle.weight"] and set(ticket.start) == {*first}
        for name, tensor in ticket.start.items():
            layer = ticket.mask.get(ties.get(name, name))
            assert torch.equal(tensor, tensor if layer is None else first[name] * layer)
            assert tensor.dtype == first[name].dtype
            if layer is not None:
                layer.zero_()
            tensor.zero_()
        assert ticket.start["middle.weight"].any() and ticket.mask["middle.weight"].any()
    for outer, inner in zip(tickets, list(tickets)[1:], strict=False):
        assert all((outer.mask[name] | ~inner.mask[name]).all() for name in outer.mask)
        assert int(inner.mask["words.weight"].sum()) < int(outer.mask["words.weight"].sum())


def test_views_are_mappings_that_copy_and_pickle_as_plain_ones() -> None:
    ticket = search()[0][2]
    plain = dict(ticket.start)
    file = io.BytesIO()
    torch.save(ticket.start, file)
    file.seek(0)
    for other in (copy.deepcopy(ticket).start, pickle.loads(pickle.dumps(ticket)).start, torch.load(file)):
        assert type(other).__name__ == "OrderedDict" and list(other) == list(plain)
        assert all(torch.equal(tensor, plain[name]) for name, tensor in other.items())
    assert [*(ticket.mask | {"new": torch.ones(1)})] == [*ticket.mask, "new"] == [*({**ticket.mask} | {"new": 1})]
    assert [*({"new": torch.ones(1)} | ticket.mask)] == ["new", *ticket.mask]
    assert "new" not in ticket.mask and ticket.mask.get("new") is None and "tensor(" not in repr(ticket.mask)
    with pytest.raises(KeyError):
        ticket.mask["new"]


def test_files_are_what_they_were() -> None:
    for level, ticket in enumerate(search(model=nn.Linear(40, 30))[0]):
        mask = dict(ticket.mask)
        plain = lth.Ticket(mask, masks.apply(mask, dict(ticket.start)), ticket.origin)
        assert to_bytes(ticket) == to_bytes(plain) and plain.origin["level"] == level


def test_more_levels_than_a_byte_holds() -> None:
    tickets = search(300, nn.Linear(100, 100), rate=0.005)[0]
    counts = [int(ticket.mask["weight"].sum()) for ticket in tickets]
    assert len(counts) == 301 and counts[0] == 10_000 and counts == sorted({*counts}, reverse=True)


def stored_bytes() -> int:
    """The bytes of all dense tensors that are alive, each storage once."""
    gc.collect()
    every = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
    tensors = [one for one in every if one.layout == torch.strided and one.device.type == "cpu"]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def test_a_level_costs_no_whole_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "IN_MEMORY", 0)
    model = nn.Linear(300, 300)
    before = stored_bytes()
    tickets = lth.imp(model, lambda model: 1.0, levels=20)
    weights = 300 * 300
    assert len(tickets) == 21 and stored_bytes() - before < 4 * weights + weights + 10_000  # one start, one byte each


@pytest.mark.parametrize("where", ["memory", "disk", "partly", "no space"])
def test_trained_weights_are_those_at_the_end_of_each_level(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = sum(t.numel() * t.element_size() for t in models.tensors(Tied()).values())
    limits = {"disk": 0, "no space": 0, "partly": 2 * size, "memory": 10**9}
    monkeypatch.setattr(levels, "IN_MEMORY", limits[where])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    if where == "no space":
        monkeypatch.setattr(Path, "write_bytes", full_disk)
    tickets, ends, first = search()
    files = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
    expected = {"disk": [0, 1, 2, 3], "partly": [2, 3]}.get(where, [])
    assert files == [f"level-{level:02d}.safetensors" for level in expected]
    copied = pickle.loads(pickle.dumps(tickets))
    for level, ticket in enumerate(tickets):
        state = tickets.trained(level)
        assert list(state) == list(first)
        assert all(torch.equal(state[name], tensor) for name, tensor in masked(ends[level], ticket).items())
        Tied().load_state_dict(state)
        state["middle.weight"].zero_()
        assert tickets.trained(level)["middle.weight"].any() and copied.trained(level)["middle.weight"].any()
    assert torch.equal(tickets.trained(-1)["middle.bias"], ends[3]["middle.bias"])
    del tickets
    gc.collect()
    assert not list(tmp_path.iterdir())
    assert copied.trained(3)["middle.weight"].any()


def masked(state: dict[str, Tensor], ticket: lth.Ticket) -> dict[str, Tensor]:
    return masks.apply({**ticket.mask, "head.weight": ticket.mask["words.weight"]}, state)


def full_disk(path: Path, content: bytes) -> int:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "IN_MEMORY", 0)
    tickets = search()[0]
    for level in (4, -5):
        with pytest.raises(UsageError, match=f"no trained weights of level {level}: the levels are 0 to 3"):
            tickets.trained(level)
    folder = tickets.trained_levels.folder
    assert folder is not None
    (folder / "level-02.safetensors").unlink()
    with pytest.raises(LthError, match=r"level-02.safetensors: the trained weights of level 2 cannot be read"):
        tickets.trained(2)
    assert tickets.trained(1).keys() == tickets.trained(3).keys()


def test_the_trained_weights_of_find_tickets() -> None:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))
    recipe = {"optimizer": "adam", "lr": 0.01, "iterations": 12, "batch": 20, "eval_every": 4}
    tickets = lth.find_tickets(model, (x, x[:, :3].argmax(1)), recipe, levels=2)
    ended = models.tensors(model)
    assert all(torch.equal(tensor, ended[name]) for name, tensor in tickets.trained(2).items())
    assert not torch.equal(tickets.trained(1)["0.weight"], ended["0.weight"])
    assert tickets[2].density == masks.density(tickets[2].mask) < tickets[1].density
