"""Both engines carry the same recipe out: same batches, same dropout, same evaluations, same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lth
from lth import config, data, models, native
from lth.errors import UsageError
from lth.execution import resources
from lth.models import init
from lth.models.dropout import CounterDropout, keep_mask
from lth.plan import evaluations
from lth.pruning import masks
from lth.training import native_engine, torch_engine

needs_native = pytest.mark.skipif(not native.available(), reason=str(native.why_not()))


def both(tiny: dict[str, Any], density: float, **recipe: Any) -> list[Any]:
    """A torch and a native engine at the same start."""
    tiny["recipe"] |= recipe
    experiment = config.resolve(tiny)
    splits = data.split(data.load(tiny["data"]["name"]), 90, 1)
    build = lambda: models.build(experiment.model, (1, 6, 6), 4)
    start = init.draw(build(), torch.Generator().manual_seed(3))
    drawn = torch.Generator().manual_seed(4)
    mask = {name: torch.rand(start[name].shape, generator=drawn) < density for name in models.groups(build())}
    begin = masks.apply(mask, start)
    return [
        engine(build(), begin, mask, experiment.recipe, module.prepare(splits, "cpu"), ("key",), "cpu")
        for module, engine in ((torch_engine, torch_engine.TorchEngine), (native_engine, native_engine.NativeEngine))
    ]


@needs_native
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"optimizer": "sgd", "lr": 0.1, "warmup": 20, "drops": [30]},
        {"optimizer": "momentum", "lr": 0.05, "weight_decay": 0.01, "batch": 70},
        {"optimizer": "nesterov", "lr": 0.05, "weight_decay": 0.01, "schedule": "cosine"},
        {"optimizer": "adamw", "weight_decay": 0.5, "clip": 0.1, "schedule": "linear", "warmup": 5},
    ],
    ids=["adam", "sgd-scheduled", "momentum-decay", "nesterov-cosine", "adamw-clipped-linear"],
)
def test_engines_agree_from_the_same_start(tiny: dict[str, Any], density: float, recipe: dict[str, Any]) -> None:
    reference, fast = both(tiny, density, **recipe)
    a, b = torch.stack(reference.advance(50)), torch.from_numpy(fast.advance(50))
    assert torch.allclose(a, b, rtol=1e-5, atol=0)
    for split in ("train", "validation", "test"):
        (loss, accuracy), (other_loss, other_accuracy) = reference.evaluate(split), fast.evaluate(split)
        assert loss == pytest.approx(other_loss, rel=1e-4) and accuracy == pytest.approx(other_accuracy, abs=0.011)
    mine, theirs = reference.weights(), fast.weights()
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[name], theirs[name], rtol=1e-3, atol=1e-4) for name in mine)


@needs_native
def test_dropout_is_the_same_in_both_engines(tiny: dict[str, Any]) -> None:
    tiny["model"]["dropout"] = 0.3
    reference, fast = both(tiny, 0.5)
    assert torch.allclose(torch.stack(reference.advance(50)), torch.from_numpy(fast.advance(50)), rtol=1e-5, atol=0)


def test_dropout_keeps_its_share_and_scales_by_it() -> None:
    keep = torch.stack([keep_mask(12345, update, 0, (60, 300), 0.3, torch.device("cpu")) for update in range(20)])
    assert keep.double().mean().item() == pytest.approx(0.7, abs=0.003)
    assert keep.double().mean((0, 1)).std().item() < 0.03  # no unit is favoured
    assert not torch.equal(keep[0], keep[1])
    layer = CounterDropout(0.3, layer=0)
    layer.key = 12345
    out = layer(torch.ones(60, 300))
    assert torch.equal(out != 0, keep[0]) and out.max().item() == pytest.approx(1 / 0.7)
    assert torch.equal(layer.eval()(torch.ones(2, 3)), torch.ones(2, 3))


def test_chains_are_recognised_and_nothing_else_is() -> None:
    linear = lambda: nn.Linear(4, 4)
    assert native_engine.chain(nn.Sequential(nn.Flatten(), linear(), nn.ReLU(), linear())) == (["1", "3"], 0.0)
    assert native_engine.chain(nn.Sequential(linear())) == (["0"], 0.0)
    dropped = nn.Sequential(
        linear(), nn.ReLU(), CounterDropout(0.2, 0), linear(), nn.ReLU(), CounterDropout(0.2, 1), linear()
    )
    assert native_engine.chain(dropped) == (["0", "3", "6"], 0.2)
    for other in (
        nn.Linear(4, 4),
        nn.Sequential(linear(), nn.Tanh(), linear()),
        nn.Sequential(linear(), linear()),
        nn.Sequential(linear(), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), linear()),
        nn.Sequential(linear(), nn.ReLU(), nn.Dropout(0.2), linear()),
        nn.Sequential(linear(), nn.ReLU(), CounterDropout(0.2, 0), linear(), nn.ReLU(), linear()),
        nn.Sequential(linear(), nn.BatchNorm1d(4), nn.ReLU(), linear()),
    ):
        assert native_engine.chain(other) is None


def _tied() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def _hooked() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def _frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[0].bias.requires_grad_(False)
    return model


def _twice() -> nn.Sequential:
    block = [nn.Linear(4, 4), nn.ReLU()]
    return nn.Sequential(*block, *block, nn.Linear(4, 4))


def _gradients_hooked() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[0].weight.register_hook(lambda gradient: 0 * gradient)
    return model


def _replaced() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[1].forward = torch.tanh  # type: ignore[method-assign]
    return model


class _Shifted(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x - 1)


@pytest.mark.parametrize(
    "model",
    [
        _tied(),
        _hooked(),
        _frozen(),
        _twice(),
        _Shifted(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).double(),
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)),
        _gradients_hooked(),
        _replaced(),
    ],
    ids=["tied", "hooked", "frozen", "twice", "subclass", "double", "flatten", "later", "gradients", "replaced"],
)
def test_a_chain_that_does_more_than_its_layers_is_none(model: nn.Sequential) -> None:
    """The native engine would train another network, silently."""
    assert native_engine.chain(model) is None


def test_the_engine_is_chosen_by_fixed_rules(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = config.resolve(tiny)
    choose = lambda engine, device="auto": resources.choose(experiment, (1, 6, 6), 4, engine, device)
    assert choose("torch")[0].engine == "torch"
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler found")
    means, reason = choose("auto")
    assert means.engine == "torch" and reason.startswith("no C++ compiler found")
    with pytest.raises(UsageError, match="--engine native: no C\\+\\+ compiler found; give --engine torch"):
        choose("native")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device was found"):
            choose("auto", "cuda")
    with pytest.raises(UsageError, match="runs on the CPU"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        choose("native", "cuda")


@needs_native
def test_a_run_whose_engine_is_gone_says_what_it_was_begun_with(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lth.run(tiny | {"levels": 0}, out=tmp_path / "run", workers=1)
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler found")
    with pytest.raises(
        UsageError, match=r"run was begun with the native engine on cpu.*no C\+\+ compiler.*another --out"
    ):
        lth.run(tiny | {"levels": 1}, out=tmp_path / "run", workers=1)


@needs_native
def test_a_native_run_is_the_torch_runs_equal_within_rounding(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"]["iterations"] = 20
    tables = [lth.run(tiny, out=tmp_path / name, engine=name, workers=1).summary for name in ("torch", "native")]
    assert list(tables[1]["engine"]) == ["native"] * 3
    assert list(tables[0]["weights"]) == list(tables[1]["weights"])
    assert tables[0]["val_loss_at_early_stop"].to_list() == pytest.approx(
        tables[1]["val_loss_at_early_stop"].to_list(), rel=1e-3
    )


@pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=needs_native)])
def test_a_run_on_standardised_data_is_one_on_data_that_were_so_before(
    tiny: dict[str, Any], tmp_path: Path, engine: str
) -> None:
    arrays = dict(np.load(tiny["data"]["name"]))
    mean, std = 0.25, 0.5  # exact in float32, as their quotients are
    arrays |= {key: (arrays[key].astype(np.float32) / 255 - mean) / std for key in ("x_train", "x_test")}
    np.savez(tmp_path / "standardised.npz", **arrays)
    told = lth.run(tiny, {"data.mean": [mean], "data.std": [std]}, out=tmp_path / "told", engine=engine)
    tiny["data"]["name"] = str(tmp_path / "standardised.npz")
    before = lth.run(tiny, out=tmp_path / "before", engine=engine)
    plain = lth.run(tiny, {"data.name": str(tmp_path / "tiny.npz")}, out=tmp_path / "plain", engine=engine)
    losses = [run.summary["val_loss_at_early_stop"].to_list() for run in (told, before, plain)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"iterations": 250}, [(1, True), (101, True), (201, True), (250, True)]),
        ({"iterations": 201, "test_every": 200}, [(1, True), (101, False), (201, True)]),
        (
            {"iterations": 150, "test_every": 1000, "report_at": [120, 900]},
            [(1, True), (101, False), (120, True), (150, True)],
        ),
        ({"iterations": 1}, [(1, True)]),
    ],
)
def test_evaluations_are_where_the_design_says(recipe: dict[str, Any], expected: list[tuple[int, bool]]) -> None:
    assert evaluations(config.Recipe.model_validate({"optimizer": "sgd", "lr": 1} | recipe)) == expected


@pytest.mark.parametrize(
    ("begin", "recipe", "expected"),
    [
        (100, {"iterations": 250}, [(101, True), (201, True), (250, True)]),
        (150, {"iterations": 401, "test_every": 200}, [(151, True), (201, True), (301, False), (401, True)]),
        (120, {"iterations": 150, "report_at": [120, 130]}, [(121, True), (130, True), (150, True)]),
        (149, {"iterations": 150}, [(150, True)]),
    ],
)
def test_evaluations_after_beginning_late_are_on_the_same_grid(
    begin: int, recipe: dict[str, Any], expected: list[tuple[int, bool]]
) -> None:
    assert evaluations(config.Recipe.model_validate({"optimizer": "sgd", "lr": 1} | recipe), begin) == expected
