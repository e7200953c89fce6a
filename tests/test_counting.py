"""What counts as a weight: by what a parameter is and how it is used, before its name; and what the user says of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import lth
from lth import models
from lth.config import resolve
from lth.errors import UsageError
from lth.execution.sweep import sweep
from lth.tickets.ticket import Ticket, describe

pytestmark = pytest.mark.usefixtures("one_thread")


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


foreign: Callable[..., Tensor] = torch.relu


class Uses(nn.Module):
    """Parameters of one shape, each used in another way: those named by `factor` are factors of products."""

    def __init__(self) -> None:
        super().__init__()
        for name in (
            "factor_at", "factor_linear", "factor_einsum", "factor_named", "factor_masked", "factor_indexed",
            "factor_method", "factor_cast", "place", "gain", "weight", "joined", "gate_bias", "shift", "kept",
        ):  # fmt: skip
            self.register_parameter(name, parameter(8, 8))
        self.register_buffer("pattern", torch.ones(8, 8))
        self.rows = nn.ParameterList([parameter(8, 8), parameter(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.factor_at.t() + self.gate_bias
        x = F.linear(x, self.factor_linear.to(x.dtype), self.shift[0])
        x = torch.einsum("bi,oi->bo", x, self.factor_einsum)
        named = self.factor_named.transpose(0, 1)
        named = named.contiguous()
        x = x.matmul(named)
        x = F.linear(x, self.factor_masked * self.pattern)
        for i in range(2):
            x = x @ self.factor_indexed[:, i : i + 8]
        x = torch.mm(x, self.factor_method.view(x.shape[1], -1))
        x = F.linear(weight=torch.tanh(self.factor_cast).float(), input=x)
        x = x + self.place[: len(x)]
        x *= self.gain[0]
        x = self.weight.sum(0) * x
        x = torch.cat([self.joined, x])
        for row in self.rows:
            x = x @ row
        return x + foreign(self.kept)


def test_a_parameter_counts_by_its_use_before_its_name() -> None:
    model = Uses()
    factors = {name for name, _ in model.named_parameters() if name.startswith(("factor", "rows"))}
    assert {*models.counted(model)} == factors | {"kept"}
    reasons = models.not_counted(model)
    assert {*reasons} == {"place", "gain", "weight", "joined", "gate_bias", "shift"}
    assert all("does not use it in a matrix product" in reasons[name] for name in ("place", "gain", "weight", "joined"))


def test_a_method_of_a_base_class_that_is_replaced_is_not_read() -> None:
    class Base(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table

    class Adds(Base):
        def __init__(self) -> None:
            super().__init__()
            self.table = parameter(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    assert not models.counted(Adds())


def test_code_without_a_source_is_counted_by_shape_and_name() -> None:
    space: dict[str, Any] = {"nn": nn, "parameter": parameter}
    names = ("kernel", "w1", "gate_up_proj", "gate_up_proj_bias", "pos_embed", "A_log", "query_tokens", "layer_scale2")
    body = "\n".join(f"  self.{name} = parameter(3, 4)" for name in names)
    exec(f"class Hidden(nn.Module):\n def __init__(self):\n  super().__init__()\n{body}", space)
    assert list(models.counted(space["Hidden"]())) == ["kernel", "w1", "gate_up_proj"]


@pytest.mark.parametrize("shape", [(1, 1, 1, 6), (1, 6, 1, 1), (1, 6), (6, 1), (6,), (1, 1)])
def test_a_scale_of_a_norm_is_no_matrix_whatever_its_name(shape: tuple[int, ...]) -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = parameter(*shape)

        def apply_to(self, x: Tensor) -> Tensor:
            return foreign(x, self.weight)

    assert not models.counted(Norm())


def test_layers_with_one_output_or_one_channel_are_weights() -> None:
    layers = [
        nn.Linear(5, 1), nn.Linear(1, 5), nn.Conv2d(1, 1, 1), nn.Conv2d(4, 4, 1, groups=4), nn.Embedding(1, 3),
        nn.LSTM(1, 1), nn.Bilinear(1, 1, 1), nn.GRUCell(1, 1),
    ]  # fmt: skip
    assert all(models.counted(layer) for layer in layers)


def test_a_subclass_of_a_layer_with_more_parameters() -> None:
    class Lora(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 6)
            self.down, self.up, self.offset = parameter(2, 6), parameter(6, 2), parameter(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight + self.up @ self.down, self.bias) + self.offset

    assert list(models.counted(Lora())) == ["weight", "down", "up"]


# ----------------------------------------------------------------------------------------------- models of transformers


def of_transformers(name: str, **further: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    sizes = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{name}Config")(**sizes, **further)
        return getattr(transformers, f"{name}ForCausalLM")(config)


EXPERTS = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
}


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_in_one_parameter_are_counted_and_their_biases_are_not(name: str) -> None:
    model = of_transformers(name, **EXPERTS[name])
    ticket = lth.imp(model, lambda model: 1.0, rate=0.5, levels=1)[1]
    matrices = {n: p for n, p in model.named_parameters() if p.dim() > 1 and not n.endswith("bias")}
    assert {*ticket.mask} == {*matrices} and any(n.endswith("gate_up_proj") for n in ticket.mask)
    ticket.apply(model)
    alive = sum(int(p.count_nonzero()) for p in matrices.values()) / sum(p.numel() for p in matrices.values())
    assert alive == ticket.density == 0.5
    lines = ticket.origin.get("left_out", [])
    assert len(lines) == (2 if name == "GptOss" else 0) and all("_bias (4x" in line for line in lines)


# --------------------------------------------------------------------------------------------- what the user says of it


def test_the_user_overrules_both_ways(tmp_path: Path) -> None:
    told: list[str] = []
    tickets = lth.imp(
        Uses(), lambda model: 1.0, rate=0.5, levels=1, count=["place", "gat*"], leave_out=["factor_*"], say=told.append
    )
    assert list(tickets[1].mask) == ["place", "gate_bias", "kept", "rows.0", "rows.1"] and tickets[1].density == 0.5
    lines = [line for line in told if line.startswith("not counted")]
    assert (
        "not counted: gain (8x8): its module adds it or scales by it, and does not use it in a matrix product" in lines
    )
    assert "not counted: factor_at (8x8): it is left out" in lines
    tickets[1].save(tmp_path / "t")
    assert {f"  {line}" for line in lines} <= {*describe(Ticket.load(tmp_path / "t"))}


def test_find_tickets_takes_them_too() -> None:
    x = torch.randn(40, 8)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    recipe = {"lr": 0.01, "iterations": 2, "batch": 10}
    tickets = lth.find_tickets(model, (x, x[:, :3].argmax(1)), recipe, levels=1, leave_out=["2.*"])
    assert list(tickets[1].mask) == ["0.weight"]


def test_layers_that_are_alike_are_told_in_one_line() -> None:
    model = nn.Sequential(*(Uses() for _ in range(3)))
    shapes = {name: p.shape for name, p in model.named_parameters()}
    lines = models.format_not_counted(models.not_counted(model), shapes)
    assert len(lines) == 6 and lines[0].startswith("not counted: *.place (3 times 8x8): ")


WRONG = {
    "count: 'plce' matches no parameter; did you mean 'place'?": {"count": ["plce"]},
    "leave_out: 'no.*' matches no parameter": {"leave_out": ["no.*"]},
    "count: 'norm.weight' cannot be counted: biases, parameters of norms, and integers": {"count": ["norm.weight"]},
    "count: 'norm.bias' cannot be counted": {"count": ["norm.bias"]},
    "count and leave_out both name place": {"count": ["place"], "leave_out": ["pl*"]},
    r"count = 'place': expected a list of names or patterns": {"count": "place"},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_with_a_choice_is_said_before_any_training(said: str) -> None:
    model = Uses()
    model.norm = nn.LayerNorm((4, 8))
    calls: list[int] = []
    with pytest.raises(UsageError) as refused:
        lth.imp(model, lambda model: calls.append(1), levels=1, **WRONG[said])
    assert said in str(refused.value) and not calls and len(str(refused.value)) <= 400


CUSTOM = """
import torch
from torch import nn
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.place = nn.Parameter(torch.randn(36, 9) / 6), nn.Parameter(torch.randn(1, 36))
        self.gain, self.head = nn.Parameter(torch.rand(4, 9)), nn.Linear(9, 4)
    def forward(self, x):
        x = torch.relu((x.flatten(1) + self.place) @ self.kernel)
        return self.head((x[:, None] * self.gain).mean(1))
def build():
    return Mine()
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, Any]) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CUSTOM)
    return tiny | {"levels": 1, "model": {"name": "mine.py:build"}}


def test_a_run_says_what_it_does_not_count_and_is_overruled(custom: dict[str, Any]) -> None:
    plain = lth.run(custom, out="plain", engine="torch", workers=1)
    console = Console(file=io.StringIO(), width=300)
    sweep(resolve(custom).model_dump(exclude_none=True), out="dry", engine="torch", dry_run=True, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not counted: place (1x36)" in said and "not counted: gain (4x9)" in said
    assert list(Ticket.load("plain/trial-1/level-01/ticket.safetensors").mask) == ["head.weight", "kernel"]
    keys = {"model.count": ["gain"], "model.leave_out": ["head.*"]}
    other = lth.run(custom, keys, out="other", engine="torch", workers=1)
    ticket = Ticket.load("other/trial-1/level-01/ticket.safetensors")
    assert list(ticket.mask) == ["gain", "kernel"]
    assert other.summary["weights"].tolist() == [360, int(sum(layer.sum() for layer in ticket.mask.values()))]
    assert plain.summary["weights"].tolist()[0] == 360
    assert ticket.origin["model"]["count"] == ["gain"]
    again = lth.run("other/experiment.toml", out="again", engine="torch", workers=1)
    assert again.summary.equals(other.summary.assign(seconds=again.summary["seconds"]))


def test_what_is_counted_of_a_built_in_model_is_fixed(tiny: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model\.count: what is counted of a built-in model is fixed"):
        lth.run(tiny, {"model.count": ["fc1.bias"]}, out="run")


def test_a_wrong_choice_in_a_run_names_its_key(custom: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model.count: 'gian' matches no parameter; did you mean 'gain'"):
        lth.run(custom, {"model.count": ["gian"]}, out="run")
    assert not Path("run").exists()


def test_a_run_that_was_begun_with_other_weights_counted_is_refused(
    custom: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lth.run(custom, levels=0, out="run", engine="torch", workers=1)
    monkeypatch.setattr("lth.models.counting.usage", lambda kind, attribute: "elementwise")
    with pytest.raises(UsageError, match=r"begun when other weights of mine\.py:build were counted: kernel"):
        lth.run(custom, levels=1, out="run", engine="torch", workers=1)
