"""bfloat16: where it is chosen, that it is said, that it learns as float32 does, and that nothing of it leaks out."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch._dynamo.utils import counters

import lth
from lth import config, models
from lth.config import Model, Recipe
from lth.errors import UsageError
from lth.execution.resources import choose
from lth.pruning import masks
from lth.randomness import generator
from lth.training import learners, precision
from lth.training.bfloat16 import kernels, lowering, sparse
from lth.training.torch_engine import TorchEngine

SHAPE = (3, 8, 8)
pytestmark = pytest.mark.usefixtures("one_thread")


def start_of(name: str, density: float = 1.0) -> tuple[nn.Module, dict[str, torch.Tensor], masks.Mask]:
    network = models.build(Model(name=name), SHAPE, 4)
    start, drawn = models.first_weights(Model(name=name), SHAPE, 4, generator(1)), generator(2)
    mask = {part: torch.rand(start[part].shape, generator=drawn) < density for part in models.groups(network)}
    return network, masks.apply(mask, start), mask


def data(examples: int = 250) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Four classes, a bright quarter in noise, as bytes."""
    drawn = generator(3)
    labels = torch.randint(0, 4, (examples,), generator=drawn)
    images = torch.randint(0, 180, (examples, *SHAPE), generator=drawn)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 4 * (label // 2) :, 4 * (label % 2) :][:, :4, :4] += 70
    return {"train": (images.to(torch.uint8), labels), "test": (images.to(torch.uint8), labels)}


def engine(name: str, kind: str, density: float = 1.0, key: str = "key", **recipe: Any) -> TorchEngine:
    network, start, mask = start_of(name, density)
    given = {"optimizer": "adam", "lr": 0.0005, "iterations": 100, "batch": 60, "precision": kind} | recipe
    return TorchEngine(network, start, mask, Recipe.model_validate(given), data(), (key,), "cpu")


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled kernels, where they run, and without."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "core", lambda: None)
    elif kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    monkeypatch.setattr(kernels, "LEAST_TILES", dict.fromkeys(kernels.LEAST_TILES, 1))
    return request.param


# ------------------------------------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize("unit", [None, "the processor's avx512_bf16"])
@pytest.mark.parametrize("name", ["conv2", "resnet18", "lenet"])
@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
def test_what_is_chosen(asked: str, name: str, unit: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "hardware", lambda device: unit)
    found, why = precision.resolve(asked, models.build(Model(name=name), SHAPE, 4), "cpu")
    auto = "bfloat16" if unit and name != "lenet" else "float32"
    assert found == (auto if asked == "auto" else asked) and why
    if asked == "bfloat16":
        assert ("slow" in why) == (unit is None)


@pytest.mark.parametrize("engine_name", ["auto", "torch"])
def test_lenet_is_float32_on_both_engines(engine_name: str) -> None:
    means, _ = choose(config.resolve("lenet"), (1, 28, 28), 10, engine_name, "cpu")
    assert means.precision == "float32"


def test_the_native_engine_says_that_it_has_no_bfloat16() -> None:
    experiment = config.resolve("lenet", {"recipe.precision": "bfloat16"})
    assert choose(experiment, (1, 28, 28), 10, "auto", "cpu")[0].engine == "torch"
    with pytest.raises(UsageError, match=r"--engine native: .*"):
        choose(experiment, (1, 28, 28), 10, "native", "cpu")


def test_a_run_says_its_precision_and_keeps_it(tmp_path: Path) -> None:
    images, labels = (tensor.numpy() for tensor in data(400)["train"])
    np.savez(tmp_path / "d.npz", x_train=images[:300], y_train=labels[:300], x_test=images[300:], y_test=labels[300:])
    experiment = {
        "name": "tiny", "trials": 1, "levels": 0, "data": {"name": str(tmp_path / "d.npz"), "validation": 60},
        "model": {"name": "conv2"},
        "recipe": {"lr": 0.001, "iterations": 2, "batch": 30, "eval_every": 1, "precision": "bfloat16"},
    }  # fmt: skip
    console = Console(record=True, width=200)
    run = lth.run(experiment, out=tmp_path / "out", workers=1, console=console)
    assert "bfloat16" in console.export_text()
    assert json.loads((tmp_path / "out/environment.json").read_text())["means"]["precision"] == "bfloat16"
    assert list(run.summary["precision"]) == ["bfloat16"]


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ["conv2", "conv4", "resnet18", "vit"])
def test_it_begins_as_float32_does(name: str, way: str) -> None:
    exact, found = engine(name, "float32"), engine(name, "bfloat16")
    for of in (exact, found):
        of.module.eval()
    x = torch.rand(40, *SHAPE, generator=generator(5))
    with torch.no_grad():
        wanted, got = exact.learner.outputs(x), found.learner.outputs(x)
    assert got.dtype == torch.float32
    assert (got - wanted).norm() < 0.05 * wanted.norm()
    a, b = exact.advance(1)[0], found.advance(1)[0]
    assert b.dtype == torch.float32 and b.item() == pytest.approx(a.item(), rel=0.01)


@pytest.mark.parametrize(("density", "lr"), [(1.0, 0.0005), (0.1, 0.004)])
def test_it_learns_as_float32_does(density: float, lr: float, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "LEAST", 1)
    curves, mask = {}, start_of("conv2", density)[2]
    for kind in ("float32", "bfloat16"):
        made = engine("conv2", kind, density, lr=lr)
        curves[kind] = torch.stack(made.advance(60)).reshape(6, 10).mean(1)
        assert made.evaluate("test")[1] > 0.9
        for name, layer in made.weights().items():
            if name.endswith("weight"):
                assert torch.equal(layer != 0, mask[name])  # no pruned weight revived, and no other one stuck
    assert curves["float32"][0] > 2 * curves["float32"][-1]
    assert (curves["bfloat16"] - curves["float32"]).abs().max() < 0.1


@pytest.mark.parametrize("name", ["conv2", "resnet18", "vit"])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_what_comes_out_is_in_the_networks_own_layout(
    name: str, density: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "LEAST", 1)
    network, start, _ = start_of(name, density)
    made = engine(name, "bfloat16", density)
    found = made.weights()
    assert list(found) == list(network.state_dict())
    for part, tensor in found.items():
        assert tensor.is_contiguous() and torch.equal(tensor, start[part])
    made.advance(2)
    trained = made.weights()
    assert all(tensor.dtype == start[part].dtype and tensor.is_contiguous() for part, tensor in trained.items())
    network.load_state_dict(trained)  # the network itself, in float32, answers as the engine does
    x = torch.rand(40, *SHAPE, generator=generator(5))
    network.eval()
    made.module.eval()
    with torch.no_grad():
        wanted, got = network(x), made.learner.outputs(x)
    assert (got - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize(
    ("name", "density", "recipe"),
    [
        ("conv2", 1.0, {}),
        ("conv2", 0.1, {"optimizer": "sgd"}),
        ("conv2", 0.1, {"optimizer": "momentum", "weight_decay": 0.01}),
        ("resnet18", 0.5, {"optimizer": "momentum", "weight_decay": 0.01}),
    ],
    ids=str,
)
def test_it_resumes_to_the_same_bits(
    name: str, density: float, recipe: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "LEAST", 1)
    whole = engine(name, "bfloat16", density, **recipe)
    whole.advance(3)
    state = whole.state()
    losses = whole.advance(6)
    again = engine(name, "bfloat16", density, **recipe)
    again.restore(state, 3)
    assert torch.equal(torch.stack(losses), torch.stack(again.advance(6)))
    assert all(torch.equal(tensor, again.weights()[part]) for part, tensor in whole.weights().items())


@pytest.mark.parametrize(
    ("name", "kind", "layers", "near"),
    [("conv2", sparse.SparseLinear, 2, 0.01), ("resnet18", sparse.SparseConv, 17, 0.02)],
)
def test_few_survivors_are_computed_alone_and_equally(
    name: str, kind: type[nn.Module], layers: int, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    monkeypatch.setattr(sparse, "LEAST", 1)
    monkeypatch.setattr(sparse, "MATRIX_BELOW", sparse.KERNELS_BELOW)
    few = engine(name, "bfloat16", 0.05)
    monkeypatch.setattr(sparse, "LEAST", 2**40)
    dense = engine(name, "bfloat16", 0.05)
    count = lambda of: [type(part) for part in of.module.modules()].count(kind)
    assert (count(few), count(dense)) == (layers, 0)
    a, b = torch.stack(few.advance(10)), torch.stack(dense.advance(10))
    torch.testing.assert_close(a, b, rtol=near, atol=0)


def test_weights_that_two_layers_share_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    monkeypatch.setattr(sparse, "LEAST", 1)
    network = nn.Sequential(
        OrderedDict(
            a=nn.Conv2d(16, 16, 3, padding=1), b=nn.Conv2d(16, 16, 3, padding=1), c=nn.Conv2d(16, 16, 3, padding=1)
        )
    )
    network.append(nn.Flatten()).append(nn.Linear(64, 10))
    network.b.weight = network.a.weight
    few = {
        name: torch.zeros(layer.shape, dtype=torch.bool)
        for name, layer in network.named_parameters()
        if layer.dim() == 4
    }
    lowered = lowering.lower(network, "cpu", few)
    assert isinstance(lowered.module.c, sparse.SparseConv)
    assert lowered.module.a.weight is lowered.module.b.weight and lowered.module.a.weight.shape == (16, 16, 3, 3)
    assert lowered.parameters.keys() == dict(network.named_parameters()).keys()


def test_layers_are_joined_and_keep_their_names() -> None:
    if kernels.core() is None:
        pytest.skip("the kernels are not built, or not for this processor")
    network, _, mask = start_of("conv2")
    module = lowering.lower(network, "cpu", mask).module
    if kernels.fits(network.conv2):
        assert isinstance(module.conv2, kernels.Conv) and module.conv2.after == ("pool", "relu")
        assert isinstance(module.conv1, kernels.Conv) and module.conv1.after == ("relu",)
        assert isinstance(module.pool1, nn.Identity) and isinstance(module.relu2, nn.Identity)
    assert isinstance(module.flatten, lowering.FlattenLast) and isinstance(network.flatten, nn.Flatten)
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in network.named_parameters()]
    other = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 16, 5), nn.ReLU())
    found = list(lowering.lower(other, "cpu", {}).module.children())
    assert isinstance(found[3], nn.Conv2d) and isinstance(found[4], nn.ReLU)
    assert found[0](torch.rand(16, 3, 16, 16).bfloat16()).shape[1] == 16


# ------------------------------------------------------------------------------------------------------------ compiling


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_compile_is_done_once_for_all_trainings(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile(learners.call, dynamic=False, backend="eager")
    monkeypatch.setattr(learners, "_compiled", lambda: compiled)
    graphs = []
    for trial in range(3):
        made = engine("conv2", kind, key=f"trial-{trial}", compile=True)
        made.advance(5)  # the fifth batch is a smaller one
        made.evaluate("test")
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2]
    if kind == "float32":
        assert torch.equal(
            torch.stack(engine("conv2", kind, compile=True).advance(3)), torch.stack(engine("conv2", kind).advance(3))
        )


def test_compile_is_refused_where_it_would_never_end() -> None:
    experiment = config.resolve("conv2-dropout", {"recipe.compile": True})
    with pytest.raises(UsageError, match=r"recipe\.compile"):
        choose(experiment, (3, 32, 32), 10, "auto", "cpu")


# ------------------------------------------------------------------------------------------------------------ attention


def test_a_network_with_attention_learns_as_in_float32(way: str) -> None:
    """Its residual stream and its norms stay float32."""
    losses, mask = {}, start_of("vit", 0.3)[2]
    for kind in ("float32", "bfloat16"):
        made = engine("vit", kind, 0.3, lr=0.001)
        losses[kind] = torch.stack(made.advance(110)).reshape(11, 10).mean(1)
        assert made.evaluate("test")[1] > 0.4
        assert all(torch.equal(made.weights()[name] != 0, layer) for name, layer in mask.items())
    assert losses["float32"][0] > 1.2 * losses["float32"][-1]
    assert (losses["bfloat16"] - losses["float32"]).abs().max() < 0.1
    seen: dict[str, torch.dtype] = {}
    for name, part in made.module.named_modules():
        part.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    made.evaluate("test")
    exact = {"tokens", "norm", "output", *(f"blocks.{n}{part}" for n in range(6) for part in ("", ".norm1", ".norm2"))}
    assert {name for name, dtype in seen.items() if dtype == torch.float32} >= exact
    lowered = [f"blocks.{n}.{part}" for n in range(6) for part in ("attention.qkv", "fc1", "fc2")]
    assert {seen[name] for name in lowered} == {torch.bfloat16}


def test_attention_is_float32_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "hardware", lambda device: "the processor's amx_bf16")
    assert choose(config.resolve("vit"), (3, 32, 32), 10, "auto", "cpu")[0].precision == "float32"
    asked = config.resolve("vit", {"recipe.precision": "bfloat16"})
    assert choose(asked, (3, 32, 32), 10, "auto", "cpu")[0].precision == "bfloat16"


@pytest.mark.parametrize("name", config.MODELS)
def test_auto_is_what_the_architecture_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule for any module and the entry of a built-in model agree."""
    monkeypatch.setattr(precision, "hardware", lambda device: "the processor's amx_bf16")
    kind, _ = precision.resolve("auto", models.build(Model(name=name), (3, 32, 32), 10), "cpu")
    assert (kind == "bfloat16") == models.architecture(name).bfloat16


def test_weights_that_no_lowered_layer_reads_are_refused() -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(UsageError, match=r"in_proj_weight of MultiheadAttention cannot be trained in bfloat16"):
        lowering.lower(network, "cpu", {})


# -------------------------------------------------------------------------------------------------------------- on GPUs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", ["conv2", "resnet18", "vit"])
def test_a_gpu_learns_alike_and_is_never_waited_for(name: str) -> None:
    on_gpu = {split: (x.cuda(), y.cuda()) for split, (x, y) in data().items()}
    network, start, mask = start_of(name)
    recipe = Recipe(lr=0.0005, iterations=100, batch=60, precision="bfloat16")
    made = TorchEngine(network, start, mask, recipe, on_gpu, ("key",), "cuda")
    made.advance(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = made.advance(20)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = torch.stack(engine(name, "float32").advance(20)[2:])
    assert (torch.stack(losses).cpu() - expected).abs().max() < 0.1
