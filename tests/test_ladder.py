"""Any module, with anybody's training: what is counted, what is pruned, and that a reset means everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import lth
from lth import models
from lth.errors import UsageError
from lth.pruning import masks

pytestmark = pytest.mark.usefixtures("one_thread")


class Everything(nn.Module):
    """All kinds of layers at once: each takes part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 8)
        self.place = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm((6, 8))  # its scale has two dimensions
        self.line, self.plane, self.space = nn.Conv1d(8, 4, 3), nn.Conv2d(1, 3, 3), nn.Conv3d(1, 2, (1, 2, 2))
        self.batch_norm = nn.BatchNorm2d(3)
        self.recurrent = nn.GRU(4, 5, batch_first=True)
        self.back = nn.Linear(5, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.words(x) + self.place
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = self.line(x.transpose(1, 2))  # n, 4, 4
        x = self.batch_norm(self.plane(nn.functional.pad(x[:, None], (1, 1, 1, 1))))
        x = self.space(nn.functional.pad(x[:, None], (0, 1, 0, 1))).mean((1, 2))  # n, 4, 4
        return self.head(self.back(self.recurrent(x)[0][:, -1]))


def built(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def chain() -> nn.Module:
    return built(
        lambda: nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 4))
    )


def trainer(steps: int = 3, seen: list[dict[str, Tensor]] | None = None) -> Callable[[nn.Module], None]:
    """A user's own function: it makes its optimizer and schedule, and knows nothing of masks."""

    def train(model: nn.Module) -> None:
        if seen is not None:
            seen.append(everything_of(model))
        optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        drawn = torch.Generator().manual_seed(0)
        x = torch.randn(30, 6, generator=drawn)
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(model(x), x.argmax(1) % 4).backward()
            optimizer.step()
            schedule.step()

    return train


def everything_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}


def test_what_is_counted_in_a_module_of_all_kinds() -> None:
    names = [
        "words.weight", "attention.in_proj_weight", "attention.out_proj.weight", "line.weight", "plane.weight",
        "space.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "back.weight",
    ]  # fmt: skip
    model = built(Everything)
    assert list(models.counted(model)) == names  # no norm, no bias; the tied head is the embedding
    assert models.tied(model) == {"head.weight": "words.weight"}


def test_all_kinds_of_layers_are_pruned_and_reset() -> None:
    model = built(Everything)
    first, keys = everything_of(model), list(model.state_dict())
    seen: list[dict[str, Tensor]] = []

    def train(model: nn.Module) -> float:
        seen.append(everything_of(model))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        x = torch.arange(60).reshape(10, 6) % 12
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(x), x[:, 0]).backward()
            optimizer.step()
        return 0.5

    tickets = lth.imp(model, train, rate=0.2, levels=3)
    assert len(tickets) == len(seen) == 4 and list(model.state_dict()) == keys
    sizes = {name: p.numel() for name, p in models.counted(model).items()}
    assert tickets[1].density == sum(n - math.floor(0.2 * n + 0.5) for n in sizes.values()) / sum(sizes.values())
    for level, found in enumerate(tickets):
        assert list(found.mask) == list(sizes) and found.origin["level"] == level
        for name, layer in found.mask.items():
            expected = sizes[name]
            for _ in range(level):
                expected -= math.floor(0.2 * expected + 0.5)
            assert int(layer.sum()) == expected
            assert torch.equal(found.start[name], first[name] * layer)
        assert torch.equal(found.start["head.weight"], found.start["words.weight"])  # tied, and pruned once
        # what each training began with: the start under the mask, all else as it was at first
        pruned = masks.apply(found.mask, first)
        assert all(torch.equal(seen[level][name], tensor) for name, tensor in pruned.items())
    for outer, inner in zip(tickets, list(tickets)[1:], strict=False):
        assert all((outer.mask[name] | ~inner.mask[name]).all() for name in outer.mask)  # nested
    assert all(model.get_parameter(name)[~layer].count_nonzero() == 0 for name, layer in tickets[3].mask.items())


def test_the_smallest_go_by_magnitude_whatever_their_sign() -> None:
    layer = nn.Linear(4, 1, bias=False)
    trained = torch.tensor([[-3.0, 0.1, -0.2, 2.0]])

    def train(model: nn.Module) -> None:
        with torch.no_grad():
            layer.weight.copy_(trained)

    assert lth.imp(layer, train, rate=0.5, levels=1)[1].mask["weight"].tolist() == [[True, False, False, True]]


def test_a_reset_brings_back_modes_frozen_parameters_and_gradients() -> None:
    model = chain()
    model[0].bias.requires_grad_(False)
    seen: list[tuple[Any, ...]] = []

    def train(model: nn.Module) -> None:
        seen.append((model.training, model[3].training, model[0].bias.requires_grad, model[4].weight.grad))
        trainer()(model)
        model.eval()
        model.requires_grad_(False)

    lth.imp(model, train, levels=2)
    assert seen == [(True, True, False, None)] * 3


@pytest.mark.parametrize("wrap", ["plain", "compiled"])
def test_a_wrapped_module_is_the_module_inside(wrap: str) -> None:
    model = chain()
    given: Any = torch.compile(model, backend="eager") if wrap == "compiled" else model
    seen: list[dict[str, Tensor]] = []
    tickets = lth.imp(given, trainer(seen=seen), levels=1)
    assert list(tickets[1].mask) == ["0.weight", "4.weight"] and set(tickets[1].start) == set(model.state_dict())
    tickets[1].apply(given)
    assert torch.equal(model[0].weight, tickets[1].start["0.weight"])


def test_patterns_choose_what_is_pruned_at_which_rate() -> None:
    tickets = lth.imp(built(Everything), lambda model: None, rates={"att*": 0.5, "head.*": 0, "*_l0": 0, "place": 0.25})
    alive = masks.alive(tickets[1].mask)
    assert alive["attention.in_proj_weight"] == 96 and alive["attention.out_proj.weight"] == 32
    assert alive["words.weight"] == 96  # named by its tied name
    assert alive["recurrent.weight_ih_l0"] == 60 and alive["recurrent.weight_hh_l0"] == 75
    assert alive["place"] == 36  # counted, because it is named
    assert alive["back.weight"] == 32  # the others at 0.2
    assert tickets[1].density == sum(alive.values()) / (96 + 192 + 64 + 96 + 27 + 8 + 60 + 75 + 40 + 48)


def test_globally_the_layers_of_one_rate_compete() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        for n, layer in enumerate(model):
            layer.weight.fill_(n + 1)
    tickets = lth.imp(model, lambda model: None, rate=0.5, levels=1, rates={"2.*": 0.25}, scope="global")
    assert masks.alive(tickets[1].mask) == {"0.weight": 0, "1.weight": 16, "2.weight": 12}
    assert list(tickets.summary["status"]) == ["done", "collapsed"]


def test_an_optimizer_or_learning_rate_carried_over_is_refused() -> None:
    model = chain()
    adam = torch.optim.Adam(model.parameters(), 0.01)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(sgd, 1, 0.1)

    def one_step(
        optimizer: torch.optim.Optimizer, after: Callable[[], None] = lambda: None
    ) -> Callable[[nn.Module], None]:
        def train(model: nn.Module) -> None:
            optimizer.zero_grad()
            model(torch.randn(5, 6)).sum().backward()
            optimizer.step()
            after()

        return train

    with pytest.raises(UsageError, match="carries its state from level 0 to level 1: make the optimizer and"):
        lth.imp(model, one_step(adam), levels=2)
    with pytest.raises(UsageError, match=r"level 1 begins with learning rate 0.01, but level 0 with 0.1"):
        lth.imp(model, one_step(sgd, schedule.step), levels=2)
    fresh = one_step(torch.optim.SGD(model.parameters(), 0.1))
    assert len(lth.imp(model, fresh, levels=2)) == 3  # it remembers nothing, and its rate is as it was


def scored(*told: Any) -> lth.Tickets:
    answers = iter(told)
    return lth.imp(nn.Linear(10, 10), lambda model: next(answers), rate=0.5, levels=len(told) - 1)


def test_the_winning_ticket_is_the_smallest_that_is_no_later_and_no_worse() -> None:
    assert scored(0.5, 0.6, 0.5, 0.4).winning.density == 0.25
    assert scored(0.5, torch.tensor(0.4), 0.3).winning is None
    rows = [{"score": s, "early_stop_iteration": i} for s, i in ((0.5, 100), (0.5, 90), (0.9, 110), (0.6, 100))]
    assert scored(*rows).winning.density == 0.12
    assert scored(*rows[:3]).winning.density == 0.5
    assert list(scored(*rows).summary["early_stop_iteration"]) == [100, 90, 110, 100]
    with pytest.raises(UsageError, match=r"returned no score\. Let it return a number, higher is better"):
        _ = scored(None, None).winning
    with pytest.raises(UsageError, match="returned 'good': expected nothing, a score"):
        scored("good")
    assert scored({"score": 0.5, "early_stop_iteration": None}, 0.6).winning.density == 0.5
    for key, value in (("score", "good"), ("score", torch.ones(2)), ("early_stop_iteration", [5])):
        with pytest.raises(UsageError, match=f"returned {key} = .*: expected a number, or None"):
            scored({key: value})


def test_a_level_that_diverged_does_not_win() -> None:
    assert scored(0.5, 0.6, {"status": "diverged"}).winning.density == 0.5
    assert scored({"status": "diverged"}).winning is None


def test_each_level_is_told_in_a_line() -> None:
    answers = iter([0.5, {"score": 0.25, "early_stop_iteration": 1200}, None])
    said: list[str] = []
    lth.imp(nn.Linear(10, 10), lambda model: next(answers), rate=0.5, levels=2, say=said.append)
    assert said == [
        "level 0 of 2: 100.00% of weights, score 0.5",
        "level 1 of 2: 50.00% of weights, early stop at 1,200, score 0.25",
        "level 2 of 2: 25.00% of weights",
    ]


def test_a_ladder_ends_where_a_training_diverges() -> None:
    layer = nn.Linear(10, 10)
    levels: list[int] = []

    def train(model: nn.Module) -> float:
        levels.append(len(levels))
        if levels[-1] == 1:
            with torch.no_grad():
                model.weight.fill_(float("nan"))
        return 1.0

    tickets = lth.imp(layer, train, levels=5)
    assert len(tickets) == 2 and list(tickets.summary["status"]) == ["done", "diverged"] and tickets.winning is None


def test_what_cannot_be_done_is_said_before_any_training() -> None:
    def never(model: nn.Module) -> None:
        raise AssertionError("trained")

    cases: list[tuple[str, nn.Module, dict[str, Any]]] = [
        (r"'4.wght' matches no weight; did you mean '4.weight'\?; the weights are", chain(), {"rates": {"4.wght": 0}}),
        ("0.bias is never pruned: biases and the parameters of norms", chain(), {"rates": {"0.bias": 0.1}}),
        ("1.weight is never pruned", chain(), {"rates": {"1.weight": 0.1}}),
        ("rate = 1: expected a number from 0 to below 1", chain(), {"rate": 1}),
        ("rate = -0.1: expected", chain(), {"rates": {"4*": -0.1}}),
        ("level 1 would remove nothing: 200 weights remain in 2 layers; give levels=0", chain(), {"rate": 0.001}),
        ("level 1 would remove nothing: 0 weights", chain(), {"rate": 0}),
        ("level 11 would remove nothing: 2 weights remain", nn.Linear(5, 5), {"levels": 30}),
        ("levels = -1: expected a whole number from 0", chain(), {"levels": -1}),
        ("scope takes layerwise, global; not 'locally'", chain(), {"scope": "locally"}),
        ("ReLU has no weights to prune", nn.ReLU(), {}),
        ("weight has no shape yet: call the model on a batch first", built(lambda: nn.LazyConv2d(3, 3)), {}),
    ]  # fmt: skip
    for message, model, options in cases:
        with pytest.raises(UsageError, match=message):
            lth.imp(model, never, **options)


def test_a_ticket_of_any_module_is_saved_loaded_and_applied(tmp_path: Path) -> None:
    model = built(Everything)
    tickets = lth.imp(model, lambda model: None, levels=1)
    tickets[1].save(tmp_path / "t.safetensors")
    found = lth.Ticket.load(tmp_path / "t.safetensors")
    other = built(Everything, seed=5)
    found.apply(other)
    for name, layer in found.mask.items():
        assert torch.equal(found.mask[name], tickets[1].mask[name])
        assert (
            torch.equal(other.get_parameter(name), tickets[1].start[name])
            and not other.get_parameter(name)[~layer].any()
        )
    assert other.head.weight is other.words.weight
    assert found.origin["model"] == {"name": "Everything"} and found.origin["level"] == 1


def test_training_a_ticket_again_gives_what_its_level_gave() -> None:
    """Regression, own loss: the reset state is the whole state."""
    model = built(lambda: nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 1)))
    ends: list[dict[str, Tensor]] = []

    def train(model: nn.Module) -> None:
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        x = torch.randn(40, 6, generator=torch.Generator().manual_seed(3))
        for _ in range(5):
            optimizer.zero_grad()
            mse_loss(model(x)[:, 0], x.sum(1)).backward()
            optimizer.step()
        ends.append(everything_of(model))

    tickets = lth.imp(model, train, levels=2)
    with lth.hold(tickets[2].apply(model), tickets[2].mask):
        train(model)
    assert all(torch.equal(tensor, ends[3][name]) for name, tensor in ends[2].items())
    assert any(not torch.equal(tensor, ends[3][name]) for name, tensor in ends[1].items())


# --------------------------------------------------------------------------------------- modules that are not so simple


def test_a_weight_of_the_older_weight_norm_is_computed_too() -> None:
    """Its direction's magnitudes are not the weight's, and a direction without weights is no number."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = built(lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)))
    assert list(models.counted(model)) == ["2.weight"]
    with pytest.raises(
        UsageError, match=r"^0.weight is computed .*remove_weight_norm\), or give a rate for 0.weight_v or"
    ):
        lth.imp(model, trainer(), rate=0.2, levels=2)
    nn.utils.remove_weight_norm(model[0])
    tickets = lth.imp(model, trainer(), rate=0.2, levels=2)
    assert [row["status"] for row in tickets.rows] == ["done"] * 3 and list(tickets[2].mask) == ["0.weight", "2.weight"]


def test_a_tied_weight_counts_under_whichever_name_says_so() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(8, 4))
            self.head = nn.Linear(4, 8, bias=False)
            self.head.weight = self.table

    assert list(models.counted(Tied())) == ["table"]


def test_complex_weights_are_held_and_kept(tmp_path: Path) -> None:
    model = nn.Linear(4, 3, dtype=torch.complex64)
    mask = {"weight": torch.rand(3, 4) < 0.5}
    with lth.hold(model, mask):
        model(torch.ones(2, 4, dtype=torch.complex64)).abs().sum().backward()
        assert model.weight.grad is not None and not model.weight.grad[~mask["weight"]].any()
        assert model.weight.grad[mask["weight"]].any()
    ticket = lth.imp(model, lambda model: 1.0, levels=1)[1]
    ticket.save(tmp_path / "ticket")
    assert torch.equal(lth.Ticket.load(tmp_path / "ticket").start["weight"], ticket.start["weight"])


def test_a_weight_that_is_computed_is_not_passed_over() -> None:
    model = built(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 4)))
    parts = "0.parametrizations.weight.original0 or 0.parametrizations.weight.original1"
    with pytest.raises(UsageError, match=f"^0.weight is computed by a parametrization, .*, or give a rate for {parts}"):
        lth.imp(model, trainer())
    tickets = lth.imp(model, trainer(), levels=1, rates={"0.parametrizations.weight.original1": 0.5})
    assert int((~tickets[1].mask["0.parametrizations.weight.original1"]).sum()) == 24


def test_what_lth_says_of_a_level_is_not_said_by_train() -> None:
    calls: list[int] = []

    def wrong(told: dict[str, Any]) -> Callable[[nn.Module], Any]:
        return lambda model: calls.append(1) or told

    for told, said in {
        "level and status": (
            {"level": 0, "status": "ok", "score": 0.5},
            "returned level, status: lth fills in these columns",
        ),
        "curve": ({"curve": [0.1, 0.2]}, "curve = .*: expected a list of dicts, one per evaluation"),
    }.values():
        with pytest.raises(UsageError, match=said):
            lth.imp(chain(), wrong(told), levels=2)
    assert len(calls) == 2  # at level 0, once each
    for score in (torch.tensor([0.5]), np.array(0.5), np.float32(0.5), 0.5, {"score": np.array([0.5])}):
        assert lth.imp(chain(), lambda model, score=score: score, levels=0).rows[0]["score"] == 0.5
    with pytest.raises(UsageError, match="expected nothing, a score"):
        lth.imp(chain(), lambda model: torch.ones(2), levels=0)


def test_an_optimizer_that_is_made_with_a_state_may_be_made_at_each_level() -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(x), x.argmax(1) % 4).backward()
            optimizer.step()

    tickets = lth.imp(chain(), lambda model: steps(model, torch.optim.Adagrad(model.parameters(), 0.01)), levels=2)
    assert [row["status"] for row in tickets.rows] == ["done"] * 3
    model = chain()
    carried = torch.optim.Adagrad(model.parameters(), 0.01)
    with pytest.raises(UsageError, match="carries its state from level 0 to level 1"):
        lth.imp(model, lambda model: steps(model, carried), levels=2)


def test_a_compiled_module_inside_is_pruned_and_reset() -> None:
    inner = lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
    plain, partly = built(inner), built(inner)
    partly[0] = torch.compile(partly[0], backend="eager")
    expected, found = (lth.imp(model, trainer(), levels=2) for model in (plain, partly))
    assert found[2].mask.keys() == expected[2].mask.keys() == {"0.weight", "2.weight"}
    assert all(torch.equal(found[2].mask[name], expected[2].mask[name]) for name in found[2].mask)
    expected[2].apply(partly)
    assert all(torch.equal(t, expected[2].start[n]) for n, t in models.tensors(partly).items())


@pytest.mark.parametrize("persistent", [False, True])
def test_a_buffer_that_begins_as_nothing_and_a_type_that_changes_are_reset(persistent: bool) -> None:
    class Following(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 4)
            self.register_buffer("mean", None, persistent=persistent)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = x.mean(0) if self.mean is None else self.mean + x.mean(0)
            return self.inner(x.to(self.inner.weight.dtype)).float()

    begun: list[tuple[Any, torch.dtype]] = []

    def train(model: nn.Module) -> None:
        begun.append((model.mean, model.inner.weight.dtype))  # type: ignore[union-attr]
        trainer()(model)
        model.bfloat16()

    lth.imp(built(Following), train, levels=2)
    assert begun == [(None, torch.float32)] * 3


def test_what_no_ladder_can_be_made_of_is_said_at_once() -> None:
    with pytest.raises(UsageError, match=r"rates = \[0.1\]: expected a dict of patterns and rates"):
        lth.imp(chain(), trainer(), rates=[0.1])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"0.weight has no values: it is on the meta device"):
        lth.imp(nn.Sequential(nn.Linear(3, 2, device="meta")), trainer())
