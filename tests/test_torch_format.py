"""Tickets in the format of torch.nn.utils.prune, and back: the same network, which trains, is copied and loaded."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import prune

import lth
from lth import models
from lth.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


class Attention(nn.Module):
    """torch reads the weight of `out_proj` without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].repeat(1, 3, 1)
        return self.out(self.inner(x, x, x)[0].mean(1))


class Borrowed(nn.Module):
    """A weight that is read by another module, and parameters that are not called weight."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"lent": nn.Linear(6, 6, bias=False)})
        self.table = nn.Parameter(torch.randn(6, 6))
        self.listed = nn.ParameterList([torch.randn(6, 6)])
        self.free_orig = nn.Parameter(torch.randn(6))
        self.register_buffer("my_mask", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x @ self.table @ self.listed[0], self.block["lent"].weight) * self.free_orig * self.my_mask


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x[:, None].repeat(1, 3, 1))[0][:, -1]


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer)


def part_compiled() -> nn.Module:
    compiled: Any = torch.compile(nn.Linear(6, 6), backend="eager")
    return nn.Sequential(compiled, nn.Tanh(), nn.Linear(6, 6))


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.TransformerEncoder(layer, 2), nn.Flatten())


MODULES: dict[str, tuple[Callable[[], nn.Module], dict[str, float]]] = {
    "convolutions": (lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)), {}),
    "attention": (Attention, {}),
    "borrowed": (Borrowed, {"table": 0.5, "listed.0": 0.5}),
    "tied": (Tied, {}),
    "recurrent": (Recurrent, {}),
    "shared": (shared, {}),
    "part compiled": (part_compiled, {}),
    "parametrized": (weight_normed, {"0.parametrizations.weight.original1": 0.5}),
    "transformer": (transformer, {}),
}
cases = pytest.mark.parametrize("kind", MODULES)
quiet = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # torch's own, of its transformer
X = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))


def build(kind: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODULES[kind][0]()


def a_ticket(kind: str) -> lth.Ticket:
    return lth.imp(build(kind), lambda model: 1.0, rate=0.5, levels=1, rates=MODULES[kind][1])[1]


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


def same(a: lth.Ticket, b: lth.Ticket, exact: bool = True) -> None:
    assert a.mask.keys() == b.mask.keys() and a.start.keys() == b.start.keys()
    assert all(torch.equal(a.mask[name], layer) for name, layer in b.mask.items())
    for name, tensor in b.start.items():
        torch.testing.assert_close(a.start[name], tensor, **({"rtol": 0, "atol": 0} if exact else {}))


@quiet
@cases
def test_to_prune_and_from_prune_are_inverse(kind: str) -> None:
    ticket, model = a_ticket(kind), build(kind, 1)
    ticket.to_prune(model)
    assert prune.is_pruned(model)
    same(lth.Ticket.from_prune(model), ticket)
    plain = ticket.apply(build(kind, 2))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(X), plain.eval()(X))


@quiet
@cases
def test_it_trains_as_the_held_network_does(kind: str) -> None:
    ticket = a_ticket(kind)
    model, plain = ticket.to_prune(build(kind, 1)), ticket.apply(build(kind, 1))
    train(model)
    with lth.hold(plain, ticket.mask):
        train(plain)
    trained = lth.Ticket.from_prune(model)
    same(trained, lth.Ticket(ticket.mask, models.tensors(plain)), exact=False)
    assert not all(torch.equal(trained.start[name], ticket.start[name]) for name in ticket.mask)


@quiet
@cases
def test_it_is_loaded_and_copied_after_training(kind: str) -> None:
    ticket = a_ticket(kind)
    model = ticket.to_prune(build(kind, 1))
    train(model, 2)
    model(X)  # with gradients, and none of them taken
    copied, loaded = copy.deepcopy(model), ticket.to_prune(build(kind, 1))
    loaded.load_state_dict(model.state_dict())
    train(model, 2)
    for other in (copied, loaded):
        train(other, 2)
        same(lth.Ticket.from_prune(other), lth.Ticket.from_prune(model), exact=False)
    with torch.no_grad():
        torch.testing.assert_close(copied.eval()(X), model.eval()(X))
        torch.testing.assert_close(loaded.eval()(X), model.eval()(X))
    for module in model.modules():
        copy.deepcopy(module)


def test_a_part_is_called_by_itself_and_the_whole_is_pickled() -> None:
    ticket = a_ticket("attention")
    model = ticket.to_prune(build("attention"))
    state = {name: value if name.endswith("_mask") else value * 2 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    x = X[:, None]
    plain = ticket.apply(build("attention"))
    plain.load_state_dict({name: tensor * 2 for name, tensor in plain.state_dict().items()})
    for one in (model, pickle.loads(pickle.dumps(model))):
        assert torch.equal(one.inner(x, x, x)[0], plain.inner(x, x, x)[0])


def test_what_torch_removes_is_gone() -> None:
    model = a_ticket("attention").to_prune(build("attention"))
    for module, name in ((model.inner, "in_proj_weight"), (model.inner.out_proj, "weight"), (model.out, "weight")):
        prune.remove(module, name)  # type: ignore[arg-type]
    assert model.state_dict().keys() == build("attention").state_dict().keys()
    train(model)
    assert all(parameter.all() for name, parameter in model.named_parameters() if "weight" in name)


def test_torchs_own_pruning_of_biases_and_twice_the_same_weight() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm((2, 6)))
    prune.random_unstructured(model[0], "bias", amount=3)
    for _ in range(2):
        prune.l1_unstructured(model[0], "weight", amount=9)
    prune.random_unstructured(model[1], "weight", amount=6)
    ticket = lth.Ticket.from_prune(model)
    assert list(ticket.mask) == ["0.weight"] and int(ticket.mask["0.weight"].sum()) == 18  # biases and norms never
    assert ticket.start["0.bias"].count_nonzero() == 3 and ticket.start["1.weight"].count_nonzero() == 6
    assert set(ticket.start) == {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_older_weight_norm_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6))
    ticket = lth.imp(model, lambda model: 1.0, levels=1, rates={"0.weight_v": 0.5})[1]
    before = models.tensors(model)
    with pytest.raises(
        UsageError, match=r"^0.weight is computed by torch.nn.utils.weight_norm, .*: use torch.nn.utils"
    ):
        ticket.to_prune(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in models.tensors(model).items())
