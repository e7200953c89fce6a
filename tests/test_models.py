"""The paper's networks: their counts, their first weights, what is pruned in them and what never is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import lth
import stored_runs
from lth import config, models
from lth.errors import LthError, UsageError
from lth.models import init, vit
from lth.models.dropout import CounterDropout, set_counter
from lth.pruning import allocation, masks
from lth.tickets.ticket import Ticket

COUNTED = {
    "lenet": {"fc": 265_200, "output": 1_000},
    "conv2": {"conv": 38_592, "fc": 4_194_304 + 65_536, "output": 2_560},
    "conv4": {"conv": 259_776, "fc": 2_097_152 + 65_536, "output": 2_560},
    "conv6": {"conv": 812_736, "fc": 786_432 + 65_536, "output": 2_560},
    "conv6-256": {"conv": 1_144_512, "fc": 1_048_576 + 65_536, "output": 2_560},
    "resnet18": {"conv": 267_696, "shortcut": 2_560, "output": 640},
    "vgg19": {"conv": 20_018_880, "output": 5_120},
    "vit": {"fc": 3_072 + 6 * 32_768, "output": 640},
}
TOTAL = {
    "lenet": 266_200, "conv2": 4_300_992, "conv4": 2_425_024, "conv6": 1_667_264, "conv6-256": 2_261_184,
    "resnet18": 270_896, "vgg19": 20_024_000, "vit": 200_320,
}  # fmt: skip


def built(name: str, shape: tuple[int, ...] = (3, 32, 32), **options: Any) -> nn.Module:
    return models.build(config.Model(name=name, **options), shape, 10)


def shape_of(name: str) -> tuple[int, ...]:
    return (1, 28, 28) if name == "lenet" else (3, 32, 32)


def sizes(model: nn.Module) -> dict[str, int]:
    parameters = dict(model.named_parameters())
    return {name: parameters[name].numel() for name in models.groups(model)}


@pytest.mark.parametrize("name", config.MODELS)
def test_counted_weights_are_the_papers(name: str) -> None:
    model = built(name, shape_of(name))
    found: Counter[str] = Counter()
    for layer, group in models.groups(model).items():
        found[group] += sizes(model)[layer]
    assert dict(found) == COUNTED[name] and found.total() == TOTAL[name]
    assert list(models.groups(model).values())[-1] == "output"


def test_everything_in_resnet18_comes_to_the_papers_274k() -> None:
    """Weights, a bias for each class, and four numbers for each channel of batch norm (facts 1.2)."""
    state = built("resnet18").state_dict()
    assert sum(t.numel() for name, t in state.items() if not name.endswith("num_batches_tracked")) == 273_658


def test_vgg19_has_the_layers_that_the_paper_tells_of() -> None:
    """Section 4: 1,728 and 36,864 parameters in the first two layers, 2.35 million in the last."""
    counts = list(sizes(built("vgg19")).values())
    assert (counts[:2], counts[-2], len(counts)) == ([1_728, 36_864], 2_359_296, 17)


def test_conv_networks_are_as_deep_as_their_names() -> None:
    for name, convolutions in (("conv2", 2), ("conv4", 4), ("conv6", 6), ("conv6-256", 6)):
        model = built(name)
        kernels = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert len(kernels) == convolutions and {m.kernel_size for m in kernels} == {(3, 3)}
        assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [256, 256, 10]


@pytest.mark.parametrize("name", [name for name in config.MODELS if name != "lenet"])
def test_networks_take_images_and_nothing_too_small(name: str) -> None:
    least = models.architecture(name).smallest
    assert built(name, (1, least, least)).eval()(torch.rand(2, 1, least, least)).shape == (2, 10)
    for shape, found in (((1, least - 1, 40), f"1 x {least - 1} x 40"), ((784,), "vectors of 784 features")):
        with pytest.raises(UsageError, match=f"images of at least {least} x {least} pixels; the data are {found}"):
            built(name, shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "conv2", "layers": [10]}, "layers"),
        ({"name": "vgg19", "layers": [10]}, "layers"),
        ({"name": "resnet18", "dropout": 0.5}, "dropout"),
        ({"name": "vgg19", "dropout": 0.5}, "dropout"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.Model(**options)


# First weights


STARTS = {  # sha256 of the start for a fixed generator, as version 0.1 drew it
    "lenet": "66290714a18cd05c",
    "conv2": "8d2ea21fded84545",
    "conv4": "4201346716c8ba34",
    "conv6": "cd1c89a0898e1762",
    "conv6-256": "1e4c63b7b30f5c6d",
    "resnet18": "9b4701e88a5d9bf1",
    "vgg19": "7d4dcfcd5937ecf2",
}
ERFINV = "e2b529f76e0643d6"  # of what truncated draws are computed by; processors may round it in another way


def digest(tensors: Iterable[torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


@pytest.mark.parametrize("name", STARTS)
def test_starts_are_those_of_version_0_1(name: str) -> None:
    if digest([torch.linspace(-0.95, 0.95, 10_001).erfinv()]) != ERFINV:
        pytest.skip("torch rounds erfinv in another way on this processor")
    start = models.first_weights(config.Model(name=name), shape_of(name), 10, torch.Generator().manual_seed(7))
    assert digest(start.values()) == STARTS[name]


@pytest.mark.parametrize("name", config.MODELS)
def test_all_of_a_start_comes_from_the_generator(name: str) -> None:
    """Nothing comes from the global generator, and no parameter that is drawn is equal in two trials."""
    draw = lambda seed: models.first_weights(
        config.Model(name=name), shape_of(name), 10, torch.Generator().manual_seed(seed)
    )
    torch.manual_seed(1)
    first = draw(1)
    torch.manual_seed(2)
    again, other = draw(1), draw(2)
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    constant = {key for key, tensor in first.items() if torch.equal(tensor, other[key])}
    assert all(first[key].eq(0).all() or first[key].eq(1).all() for key in constant)  # biases, norms and statistics
    assert not constant & {*models.groups(built(name, shape_of(name)))}


def test_a_parameter_that_no_initialiser_draws_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = nn.Linear(3, 3), nn.Parameter(torch.rand(3))

    with pytest.raises(LthError, match=r"no initialiser draws 1\.scale of Scaled"):
        init.draw(nn.Sequential(nn.Linear(3, 3), Scaled()), torch.Generator())


def test_tokens_and_positions_of_the_vision_transformer_are_truncated_normal() -> None:
    start = models.first_weights(config.Model(name="vit"), (3, 32, 32), 10, torch.Generator().manual_seed(1))
    for name, shape in {"tokens.class_token": (1, 1, 64), "tokens.positions": (1, 65, 64)}.items():
        assert start[name].shape == shape and start[name].abs().max() <= 0.04
        assert start[name].std().item() == pytest.approx(0.8796 * 0.02, rel=0.2 if shape[1] == 1 else 0.05)
    assert start["norm.weight"].eq(1).all() and start["blocks.3.norm1.bias"].eq(0).all()


@pytest.mark.parametrize("name", ["conv2", "resnet18"])
def test_kernels_are_gaussian_glorot_cut_off_at_two_sigma(name: str) -> None:
    model = built(name)
    drawn = init.draw(model, torch.Generator().manual_seed(1))
    for layer in models.groups(model):
        weight = drawn[layer]
        field = weight[0, 0].numel() if weight.ndim == 4 else 1
        sigma = (2 / (field * (weight.shape[0] + weight.shape[1]))) ** 0.5
        assert weight.abs().max() <= 2 * sigma
        if weight.numel() > 4000:  # sigma is not corrected for what is cut off, which leaves 0.88 of it
            assert weight.std().item() == pytest.approx(0.8796 * sigma, rel=0.05)
            assert abs(weight.mean().item()) < 0.05 * sigma
    assert not any(drawn[name].any() for name in drawn if name.endswith(".bias"))


def test_a_draw_knows_nothing_of_what_the_model_has_learned() -> None:
    fresh, used = built("resnet18"), built("resnet18")
    used.train()
    for _ in range(2):
        used(torch.rand(4, 3, 32, 32))
    with torch.no_grad():
        for module in used.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(3.0)
                module.bias.fill_(2.0)
    drawn = [init.draw(model, torch.Generator().manual_seed(1)) for model in (fresh, used)]
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert drawn[1]["bn.running_mean"].eq(0).all() and drawn[1]["bn.running_var"].eq(1).all()
    assert drawn[1]["bn.weight"].eq(1).all() and drawn[1]["bn.num_batches_tracked"] == 0


# Groups of any network


def test_groups_of_a_custom_model() -> None:
    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Conv2d(4, 2, 1)
            self.downsample = nn.Sequential(nn.Conv2d(4, 8, 1, 2), nn.BatchNorm2d(8))

    model = nn.Sequential(nn.Conv1d(1, 4, 3), Bottleneck(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    assert models.groups(model) == {
        "0.weight": "conv", "1.narrow.weight": "conv", "1.downsample.0.weight": "shortcut",
        "2.weight": "fc", "4.weight": "output",
    }  # fmt: skip
    assert models.groups(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 10, 1))) == {
        "0.weight": "conv", "1.weight": "output",
    }  # fmt: skip


# Dropout


def test_dropout_stands_after_both_hidden_layers_and_draws_for_each_by_itself() -> None:
    model = built("conv2", dropout=0.5)
    names = [name for name, _ in model.named_children()]
    assert names[-7:] == ["fc1", "fc_relu1", "dropout1", "fc2", "fc_relu2", "dropout2", "output"]
    drops = [m for m in model.modules() if isinstance(m, CounterDropout)]
    assert [drop.p for drop in drops] == [0.5, 0.5] and len({drop.layer for drop in drops}) == 2
    assert list(model.state_dict()) == list(built("conv2").state_dict())
    x = torch.rand(5, 3, 32, 32)
    outputs = []
    for update in (1, 1, 2):
        set_counter(model, 9, update)
        outputs.append(model.train()(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    plain = built("conv2")
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), plain(x))


def test_the_vision_transformer_computes_what_torchs_own_layers_do() -> None:
    model = built("vit")
    model.load_state_dict(models.architecture("vit").draw(model, torch.Generator().manual_seed(3), None))
    block, x = model.blocks[0].eval(), torch.randn(2, 65, 64)
    layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight", "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.projection": "self_attn.out_proj", "fc1": "linear1", "fc2": "linear2",
    }  # fmt: skip
    state = {}
    for key, tensor in block.state_dict().items():
        known = next((own for own in names if key.startswith(own)), None)
        state[key.replace(known, names[known]) if known else key] = tensor
    layer.load_state_dict(state)
    assert torch.allclose(block(x), layer.train()(x), atol=1e-5)
    images = torch.arange(2 * 3 * 8 * 12).reshape(2, 3, 8, 12)
    assert torch.equal(vit.Patches()(images)[1, 4], images[1, :, 4:8, 4:8].flatten())


def test_the_vision_transformer_refuses_images_that_its_patches_do_not_cover() -> None:
    with pytest.raises(UsageError, match=r"sides are multiples of 4 pixels; the data are 32 x 30"):
        built("vit", (3, 32, 30))


def test_dropout_of_the_vision_transformer() -> None:
    model = built("vit", dropout=0.1)
    drops = [m for m in model.modules() if isinstance(m, CounterDropout)]
    assert sorted(drop.layer for drop in drops) == [*range(13)] and {drop.p for drop in drops} == {0.1}
    assert list(model.state_dict()) == list(built("vit").state_dict())
    assert not any(isinstance(m, CounterDropout) for m in built("vit").modules())


# What is pruned, and by how much


def experiment(name: str, levels: int = 3, **prune: Any) -> config.Experiment:
    recipe = {"optimizer": "adam", "lr": 0.1, "iterations": 1}
    return config.resolve({"name": "e", "levels": levels, "recipe": recipe, "model": {"name": name}, "prune": prune})


def loses(name: str, **prune: Any) -> dict[tuple[str, ...], int]:
    model = built(name)
    counts = sizes(model)
    return dict(allocation.budget(counts, sum(counts.values()), models.groups(model), experiment(name, **prune), 1))


def test_each_group_has_its_rate() -> None:
    by_layer = loses("conv2", rate=0.2, conv_rate=0.1)
    share = {pool[0]: lost / sizes(built("conv2"))[pool[0]] for pool, lost in by_layer.items()}
    assert share == pytest.approx({
        "conv1.weight": 0.1, "conv2.weight": 0.1, "fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1,
    }, abs=1e-3)  # fmt: skip
    assert loses("conv2") == loses("conv2", conv_rate=0.2)


def test_only_the_named_groups_are_pruned() -> None:
    """Figure 37: convolutions alone, and fully connected layers alone."""
    assert {pool[0] for pool in loses("conv2", groups=["conv"])} == {"conv1.weight", "conv2.weight"}
    fc = {pool[0]: n for pool, n in loses("conv2", groups=["fc", "output"], output_factor=0.5).items()}
    assert fc == {"fc1.weight": 838_861, "fc2.weight": 13_107, "output.weight": 256}
    whole = allocation.ladder(sizes(built("conv6")), models.groups(built("conv6")), experiment(
        "conv6", 30, groups=["fc", "output"], output_factor=0.5))  # fmt: skip
    assert whole[30] / 1000 == pytest.approx(813.9, abs=0.1)  # as the figure has it
    conv = allocation.ladder(sizes(built("conv6")), models.groups(built("conv6")), experiment(
        "conv6", 33, groups=["conv"], conv_rate=0.15))  # fmt: skip
    assert conv[33] / 1000 == pytest.approx(858.4, abs=0.1)


def test_shortcuts_are_pruned_only_where_they_are_named() -> None:
    shortcuts = {name for name, group in models.groups(built("resnet18")).items() if group == "shortcut"}
    assert len(shortcuts) == 2
    assert not shortcuts & {name for pool in loses("resnet18") for name in pool}
    assert shortcuts < {name for pool in loses("resnet18", groups=["conv", "shortcut"]) for name in pool}


@pytest.mark.parametrize("name", ["resnet18", "vgg19"])
def test_global_and_layerwise_take_from_the_convolutions_alone(name: str) -> None:
    one = loses(name, groups=["conv"], scope="global")
    convolutions = [layer for layer, group in models.groups(built(name)).items() if group == "conv"]
    assert one == {tuple(convolutions): round(0.2 * COUNTED[name]["conv"])}
    each = loses(name, groups=["conv"], scope="layerwise")
    assert each == {(layer,): int(0.2 * sizes(built(name))[layer] + 0.5) for layer in convolutions}


@pytest.mark.parametrize(
    ("name", "prune", "message"),
    [
        ("lenet", {"conv_rate": 0.1}, r"prune\.conv_rate = 0\.1, but the network has no convolution"),
        ("lenet", {"groups": ["conv"]}, r"prune\.groups names conv, but the network's are fc, output"),
        ("vgg19", {"groups": ["conv", "shortcut"]}, "names shortcut, but the network's are conv, output"),
        ("conv2", {"scope": "global", "conv_rate": 0.1}, "all layers share one rate"),
        ("conv2", {"scope": "global", "output_factor": 0.5}, "all layers share one rate"),
    ],
)
def test_rates_that_would_do_nothing_are_refused(name: str, prune: dict[str, Any], message: str) -> None:
    model = built(name)
    with pytest.raises(UsageError, match=message):
        allocation.ladder(sizes(model), models.groups(model), experiment(name, **prune))


# Runs


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Any]:
    """An experiment on 8 x 8 images in colour, as tables: one trial, two prunings, four updates."""
    draw = np.random.default_rng(0)
    labels = np.arange(100) % 4
    images = (draw.integers(0, 150, (100, 8, 8, 3)) + 30 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "small.npz", x_train=images[:80], y_train=labels[:80], x_test=images[80:], y_test=labels[80:])
    return {
        "name": "photographs",
        "trials": 1,
        "levels": 2,
        "data": {"name": str(tmp_path / "small.npz"), "validation": 20},
        "model": {"name": "resnet18"},
        "recipe": {
            "optimizer": "momentum", "lr": 0.1, "weight_decay": 0.01, "iterations": 4, "batch": 16, "eval_every": 4,
        },
        "prune": {"groups": ["conv"], "scope": "global", "rate": 0.4},
    }  # fmt: skip


def test_a_reset_takes_batch_norm_back_and_pruning_leaves_it_alone(photographs: dict[str, Any], tmp_path: Path) -> None:
    lth.run(photographs, out=tmp_path / "run", workers=1, levels=1, branches="reinit")
    first = safetensors.torch.load_file(tmp_path / "run/trial-1/start.safetensors")
    for level in (0, 1):
        trained = stored_runs.trained(tmp_path / "run", level)
        ticket = Ticket.load(tmp_path / f"run/trial-1/level-{level:02d}/ticket.safetensors")
        assert set(ticket.mask) == set(models.groups(built("resnet18")))  # no scale, no shift, no bias
        for name, tensor in ticket.start.items():
            assert torch.equal(tensor, masks.apply(ticket.mask, first)[name])
        assert trained["bn.num_batches_tracked"] == 4 and trained["bn.running_mean"].any()
        assert not ticket.start["bn.running_mean"].any() and ticket.start["bn.num_batches_tracked"] == 0
        for name, layer in ticket.mask.items():
            assert not trained[name][~layer].any()
        if level:
            again = Ticket.load(tmp_path / f"run/trial-1/level-{level:02d}/reinit-1/ticket.safetensors")
            assert again.start["bn.running_var"].eq(1).all() and not torch.equal(
                again.start["conv.weight"], ticket.start["conv.weight"]
            )


def test_global_pruning_ranks_all_convolutions_together(photographs: dict[str, Any], tmp_path: Path) -> None:
    lth.run(photographs, out=tmp_path / "run", workers=1, levels=1)
    mask = Ticket.load(tmp_path / "run/trial-1/level-01/ticket.safetensors").mask
    trained = stored_runs.trained(tmp_path / "run", 0)
    groups = models.groups(built("resnet18"))
    assert all(mask[name].all() for name, group in groups.items() if group != "conv")
    convolutions = [name for name, group in groups.items() if group == "conv"]
    size = torch.cat([trained[name].abs().flatten() for name in convolutions])
    kept = torch.cat([mask[name].flatten() for name in convolutions])
    assert int(kept.sum()) == 267_696 - round(0.4 * 267_696)
    assert size[kept].min() >= size[~kept].max()
    shares = {masks.density({name: mask[name]}) for name in convolutions}
    assert max(shares) - min(shares) > 0.05  # layers go at rates of their own


def test_a_convolution_without_weights_is_named_and_the_run_goes_on(
    photographs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs |= {"levels": 3, "model": {"name": "conv2"}, "prune": {"densities": [0.01, 0.0005, 0.0003]}}
    photographs["recipe"] |= {"optimizer": "adam", "lr": 0.001}
    run = lth.run(photographs, out=tmp_path / "run", workers=1)
    assert list(run.summary["status"]) == ["done", "done", "collapsed", "collapsed"]
    stored = json.loads((tmp_path / "run/trial-1/level-02/summary.json").read_text())
    assert "conv1.weight" in stored["collapsed_layers"]
    assert "no weight left in conv1.weight" in " ".join(capsys.readouterr().err.split())
    assert run.summary["final_test_accuracy"].notna().all()
