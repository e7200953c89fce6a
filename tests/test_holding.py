"""Pruned weights stay exactly 0 in anybody's loop, and nothing else about the module changes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

import lth
from lth import models
from lth.errors import LthError, UsageError
from lth.pruning import masks

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "sgd-foreach": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, foreach=True),
    "sgd-fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "muon": lambda p: torch.optim.Muon([t for t in p if t.dim() == 2], 0.1),  # mixes weights: only a later zero helps
}


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)
        )


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(20, 1, 6, 6, generator=drawn), torch.randint(0, 4, (20,), generator=drawn)


def random_mask(model: nn.Module, density: float = 0.3) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(7)
    return {name: torch.rand(p.shape, generator=drawn) < density for name, p in models.counted(model).items()}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x, y = batch(seed)
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def revived(model: nn.Module, mask: dict[str, Tensor], names: list[str] | None = None) -> int:
    own = models.parameters(model)
    return sum(int((own[name][~layer.to(own[name].device)] != 0).sum()) for name, layer in mask.items())


def remembered(optimizer: torch.optim.Optimizer, model: nn.Module, mask: dict[str, Tensor]) -> int:
    """How many numbers of its state belong to pruned weights and are not 0."""
    own = models.parameters(model)
    states = [(optimizer.state[own[name]], layer) for name, layer in mask.items() if own[name] in optimizer.state]
    found = [t[~m] for state, m in states for t in state.values() if isinstance(t, Tensor) and t.shape == m.shape]
    return sum(int((tensor != 0).sum()) for tensor in found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_of_any_optimizer_revives_a_weight(name: str) -> None:
    model = network()
    mask = random_mask(model)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    for seed in range(3):  # a momentum of the dense network, which must not come back
        step(model, optimizer, seed)
    before = models.tensors(model)
    with lth.hold(model, mask, optimizer):
        assert revived(model, mask) == 0 == remembered(optimizer, model, mask)
        for seed in range(3, 8):
            step(model, optimizer, seed)
            assert revived(model, mask) == 0 == remembered(optimizer, model, mask)
    assert not torch.equal(models.tensors(model)["4.weight"][mask["4.weight"]], before["4.weight"][mask["4.weight"]])
    step(model, optimizer, 9)
    assert revived(model, mask) > 0  # let go, the weights are free again: the mask was held by nothing else


def test_the_loop_without_hold_does_revive_weights() -> None:
    model = network()
    mask = random_mask(model)
    model.load_state_dict(masks.apply(mask, model.state_dict()))
    step(model, OPTIMIZERS["adam"](list(model.parameters())), 0)
    assert revived(model, mask) > 0


def test_lbfgs_with_its_closure() -> None:
    model = network()
    mask = random_mask(model)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    x, y = batch()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    with lth.hold(model, mask, optimizer):
        for _ in range(3):
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
            assert revived(model, mask) == 0


def test_what_lbfgs_remembers_of_the_dense_network_is_forgotten() -> None:
    """It keeps vectors of all numbers; a direction of the dense network would revive weights inside a step."""
    model = network()
    mask = random_mask(model)
    optimizer = torch.optim.LBFGS(model.parameters(), 0.5, max_iter=4)
    x, y = batch()
    alive: list[int] = []

    def closure() -> Tensor:
        alive.append(revived(model, mask))
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    alive.clear()
    with lth.hold(model, mask, optimizer):
        for _ in range(2):
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    assert len(alive) > 4 and not any(alive)


def test_a_frozen_parameter_that_is_unfrozen_inside_has_no_gradient_where_it_is_pruned() -> None:
    model = network().requires_grad_(False)
    mask = random_mask(model)
    with lth.hold(model, mask):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.requires_grad_(True)
        x, y = batch()
        cross_entropy(model(x), y).backward()
        for name, parameter in models.counted(model).items():
            assert parameter.grad is not None and not parameter.grad[~mask[name]].any() and parameter.grad.any()
    cross_entropy(model(x), y).backward()
    assert any(p.grad[~mask[n]].any() for n, p in models.counted(model).items() if p.grad is not None)


def test_held_training_is_that_of_the_sparse_network() -> None:
    """Beside torch's own pruning, which computes with weight * mask: the same weights survive with the same values."""
    model, theirs = network(), network()
    mask = random_mask(model)
    for n in (0, 4, 6):
        prune.custom_from_mask(theirs[n], "weight", mask[f"{n}.weight"].float())
    ours, other = (torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, theirs))
    with lth.hold(model, mask, ours):
        for seed in range(10):
            x, y = batch(seed)
            for m, optimizer in ((model, ours), (theirs, other)):
                optimizer.zero_grad()
                cross_entropy(m(x), y).backward()
                nn.utils.clip_grad_norm_(m.parameters(), 0.05)  # by the norm of what survives
                optimizer.step()
    for n in (0, 4, 6):
        surviving = theirs[n].weight_orig * theirs[n].weight_mask
        torch.testing.assert_close(model[n].weight, surviving, rtol=1e-4, atol=1e-6)


def test_gradient_accumulation_counts_survivors_only() -> None:
    model = network()
    mask = random_mask(model)
    optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
    x, y = batch()
    cross_entropy(model(x), y).backward()  # accumulated before the mask came
    with lth.hold(model, mask, optimizer):
        for seed in range(4):
            for part in range(3):
                x, y = batch(10 * seed + part)
                (cross_entropy(model(x), y) / 3).backward()
                for name, layer in mask.items():
                    gradient = models.parameters(model)[name].grad
                    assert gradient is not None and not gradient[~layer].any() and gradient[layer].any()
            optimizer.step()
            optimizer.zero_grad()
            assert revived(model, mask) == 0


@pytest.mark.parametrize("fused", [False, True])
def test_mixed_precision_with_a_grad_scaler(fused: bool) -> None:
    """Skipped steps included: the first scale is far too large."""
    model = network()
    mask = random_mask(model)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.5, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)  # pyright: ignore[reportPrivateImportUsage]
    before = models.tensors(model)
    with lth.hold(model, mask, optimizer):
        for seed in range(25):
            x, y = batch(seed)
            with torch.autocast("cpu", torch.float16):
                loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert revived(model, mask) == 0
    scale = scaler.get_scale()
    assert scale < 2.0**24  # steps were skipped
    assert not torch.equal(models.tensors(model)["6.bias"], before["6.bias"])  # and others were not
    assert all(tensor.isfinite().all() for tensor in models.tensors(model).values())


def test_a_pruned_weights_infinite_gradient_harms_nobody() -> None:
    layer = nn.Linear(2, 1, bias=False)
    mask = {"weight": torch.tensor([[True, False]])}
    with lth.hold(layer, mask):
        layer(torch.tensor([[1.0, float("inf")]]).nan_to_num(posinf=3e38)).mul(3e38).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[pytest.approx(3e38), 0.0]]


def test_sparse_gradients_of_an_embedding() -> None:
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True))
    mask = random_mask(model)
    optimizer = torch.optim.SparseAdam(model.parameters(), 0.1)
    words = torch.tensor([1, 3, 3, 7])
    model(words).sum().backward()
    with lth.hold(model, mask, optimizer):
        assert model[0].weight.grad.to_dense()[~mask["0.weight"]].count_nonzero() == 0
        for _ in range(3):
            optimizer.step()
            optimizer.zero_grad()
            assert revived(model, mask) == 0
            model(words).sum().backward()
            gradient = model[0].weight.grad
            assert gradient.is_sparse and torch.equal(gradient.to_dense(), gradient.to_dense() * mask["0.weight"])


def test_an_optimizer_made_inside_is_held_too() -> None:
    """So a training function that makes its own optimizer needs no change."""
    model = network()
    mask = random_mask(model)
    with lth.hold(model, mask):
        optimizer = OPTIMIZERS["muon"](list(model.parameters()))
        for seed in range(3):
            step(model, optimizer, seed)
            assert revived(model, mask) == 0


def test_other_models_are_left_alone() -> None:
    model, other = network(), network(1)
    mask = random_mask(model)
    with lth.hold(model, mask):
        step(other, OPTIMIZERS["adam"](list(other.parameters())), 0)
    assert all(p.count_nonzero() == p.numel() for n, p in other.named_parameters() if n.endswith("weight"))


def test_tied_weights_are_held_under_either_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    for names in (["words.weight"], ["head.weight"], ["words.weight", "head.weight"]):
        model = Tied()
        assert list(models.counted(model)) == ["words.weight"]
        drawn = torch.Generator().manual_seed(1)
        layer = torch.rand(6, 4, generator=drawn) < 0.6
        mask = dict.fromkeys(names, layer)
        optimizer = OPTIMIZERS["adamw"](list(model.parameters()))
        with lth.hold(model, mask, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                cross_entropy(model(torch.arange(6)), torch.arange(6)).backward()
                optimizer.step()
                assert model.head.weight[~layer].count_nonzero() == 0 and model.head.weight[layer].all()
    apart = {"words.weight": torch.ones(6, 4).bool(), "head.weight": torch.zeros(6, 4).bool()}
    with (
        pytest.raises(UsageError, match=r"words\.weight and head\.weight are one parameter, but"),
        lth.hold(Tied(), apart),
    ):
        pass


def test_nothing_about_the_module_changes() -> None:
    model = network()
    keys, parts = list(model.state_dict()), [type(module) for module in model.modules()]
    same = list(map(id, model.parameters()))
    mask = random_mask(model)
    with lth.hold(model, mask, OPTIMIZERS["sgd"](list(model.parameters()))):
        assert list(model.state_dict()) == keys
        assert [type(module) for module in model.modules()] == parts and list(map(id, model.parameters())) == same
        twin = copy.deepcopy(model)
        torch.save(model, io.BytesIO())  # warns of hooks that cannot be saved, were there any
    step(twin, OPTIMIZERS["adam"](list(twin.parameters())), 0)
    assert revived(twin, mask) > 0 == revived(model, mask)  # a copy is free, and leaves the original alone


def test_torch_compile_goes_on_working() -> None:
    for order in ("compiled first", "held first"):
        model, plain = network(), network()
        mask = random_mask(model)
        compiled: Any = torch.compile(model, backend="aot_eager") if order == "compiled first" else None
        ours, other = (torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, plain))
        with lth.hold(compiled or model, mask, ours), lth.hold(plain, mask, other):
            compiled = compiled or torch.compile(model, backend="aot_eager")
            for seed in range(3):
                step(compiled, ours, seed)
                step(plain, other, seed)
                assert revived(model, mask) == 0
        torch.testing.assert_close(models.tensors(model), models.tensors(plain))


def in_parallel(rank: int, folder: str) -> None:
    """One of two processes: each sees its own batches, and both end with the same held weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = network()
    mask = random_mask(model)
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01, weight_decay=0.5)
    with lth.hold(wrapped, mask, optimizer):
        for seed in range(4):
            step(wrapped, optimizer, 2 * seed + rank)
            assert revived(model, mask) == 0
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_goes_on_working(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_parallel, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    weights = [name for name in first if not name.startswith("1.")]  # batch norm's statistics are each process's own
    assert all(torch.equal(first[name], second[name]) for name in weights)
    assert not torch.equal(first["6.weight"], network().state_dict()["6.weight"])


def test_what_does_not_fit_is_refused_at_once() -> None:
    model = network()
    mask = random_mask(model)
    changes: dict[str, dict[str, Tensor]] = {
        "4.weigth is not a parameter of the model; did you mean '4.weight'?": {"4.weigth": torch.ones(8, 64).bool()},
        r"4.weight is torch.float32, expected torch.bool: write mask.bool\(\)": {"4.weight": torch.ones(8, 64)},
        r"4.weight is \(8, 63\), but the model's is \(8, 64\)": {"4.weight": torch.ones(8, 63).bool()},
    }
    for message, change in changes.items():
        with pytest.raises(UsageError, match=message), lth.hold(model, mask | change):
            pass
    other = OPTIMIZERS["adam"](list(network().parameters()))
    with pytest.raises(UsageError, match="the optimizer trains none of the masked parameters"):  # noqa: SIM117
        with lth.hold(model, mask, other):
            pass
    assert model[4].weight.count_nonzero() == 512  # refused before anything was pruned


def test_a_parameter_that_is_replaced_meanwhile_is_not_passed_over() -> None:
    model = network()
    mask = random_mask(model)
    with pytest.raises(LthError, match=r"'4.weight' was replaced"):  # noqa: SIM117
        with lth.hold(model, mask):
            model[4].weight = nn.Parameter(torch.ones(8, 64))


class Interrupting(torch.optim.SGD):
    """It updates the weights and is interrupted before its step ends."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        with torch.no_grad():
            [parameter.fill_(1.0) for group in self.param_groups for parameter in group["params"]]
        raise KeyboardInterrupt


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_inside_lets_go_and_comes_out(error: type[BaseException]) -> None:
    model = network()
    mask = random_mask(model)
    with pytest.raises(error), lth.hold(model, mask):
        if error is KeyboardInterrupt:
            step(model, Interrupting(model.parameters(), 0.1), 0)
        raise error
    assert revived(model, mask) == 0
    step(model, OPTIMIZERS["adam"](list(model.parameters())), 0)
    assert revived(model, mask) > 0


def hooks(model: nn.Module) -> list[int]:
    """How many hooks there are, of the modules, the parameters, and all optimizers."""
    from torch.optim import optimizer

    kinds = [
        "_load_state_dict_post_hooks", "_load_state_dict_pre_hooks", "_forward_pre_hooks", "_forward_hooks",
        "_backward_hooks", "_state_dict_hooks",
    ]  # fmt: skip
    of_modules = [len(getattr(module, kind)) for module in model.modules() for kind in kinds]
    of_parameters = [len(parameter._backward_hooks or ()) for parameter in model.parameters()]
    return of_modules + of_parameters + [len(optimizer._global_optimizer_post_hooks)]


def test_after_the_end_nothing_of_it_is_left() -> None:
    model = network()
    mask = random_mask(model)
    before = hooks(model)
    with lth.hold(model, mask):
        assert hooks(model) != before
    assert hooks(model) == before
    with pytest.raises(UsageError), lth.hold(model, mask, OPTIMIZERS["adam"](list(network().parameters()))):
        pass
    assert hooks(model) == before


@pytest.mark.parametrize("wrap", ["plain", "compiled", "part"])
def test_weights_that_are_loaded_inside_are_zero_at_once(wrap: str) -> None:
    model, dense = network(), network(1).state_dict()
    mask = random_mask(model)
    loaded: Any = torch.compile(model, backend="eager") if wrap == "compiled" else model
    with lth.hold(loaded, mask):
        if wrap == "part":
            model[4].load_state_dict({"weight": dense["4.weight"], "bias": dense["4.bias"]})
        else:
            model.load_state_dict(dense)
        assert revived(model, mask) == 0
        assert torch.equal(model[4].weight, dense["4.weight"] * mask["4.weight"])
        twin, file = copy.deepcopy(model), io.BytesIO()
        torch.save(model, file)
    file.seek(0)
    for free in (model, twin, torch.load(file, weights_only=False)):
        free.load_state_dict(dense)
        assert all(torch.equal(tensor, dense[name]) for name, tensor in free.state_dict().items())


def test_weights_that_replace_the_held_ones_are_refused_as_they_are_loaded() -> None:
    model = network()
    mask, same = random_mask(model), list(map(id, model.parameters()))
    with lth.hold(model, mask):
        with pytest.raises(UsageError, match=r"'0.weight' was replaced by .*; load without assign=True, or load first"):
            model.load_state_dict(network(1).state_dict(), assign=True)
        assert revived(model, mask) == 0 and id(model[0].weight) == same[0]
        model.load_state_dict(network(1).state_dict())
        assert revived(model, mask) == 0


def test_holds_are_nested_and_entered_again() -> None:
    model = network()
    outer, inner = random_mask(model, 0.6), {"4.weight": torch.rand(8, 64) < 0.3}
    holding, before = lth.hold(model, outer), hooks(model)
    for _ in range(2):
        with holding:
            with lth.hold(model, inner), holding:
                step(model, OPTIMIZERS["adam"](list(model.parameters())), 0)
                assert revived(model, outer) == 0 == revived(model, inner)
            step(model, OPTIMIZERS["adam"](list(model.parameters())), 0)
            assert revived(model, outer) == 0 < revived(model, inner)
        step(model, OPTIMIZERS["adam"](list(model.parameters())), 0)
        assert revived(model, outer) > 0 and hooks(model) == before


def test_an_average_of_the_weights_is_held_like_any_module() -> None:
    model = network()
    mask = random_mask(model)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)  # of the dense network
    with lth.hold(model, mask), lth.hold(average.module, mask):
        for seed in range(3):
            step(model, OPTIMIZERS["sgd"](list(model.parameters())), seed)
            average.update_parameters(model)
            assert revived(average.module, mask) == 0


def test_a_mask_of_another_depth_is_told_which_module_it_fits() -> None:
    inner = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    outer = nn.ModuleDict({"body": inner})
    ticket = lth.imp(inner, lambda model: None, levels=0)[0]
    for call in (ticket.apply, lambda model: lth.hold(model, ticket.mask).__enter__()):
        with pytest.raises(UsageError, match=r"Its names are those of the model's body: give model.body$") as error:
            call(outer)
        assert len(str(error.value)) <= 400 and " more. " in str(error.value)
    with pytest.raises(UsageError, match=r"as those of a module that holds this one as body: give that one$"):
        lth.imp(outer, lambda model: None, levels=0)[0].apply(inner)
    with pytest.raises(UsageError, match=r"more$"):
        ticket.apply(nn.Linear(4, 4))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_beside_embeddings_with_sparse_gradients(momentum: float) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    mask = {"0.weight": torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) < 0.5}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
    words = torch.tensor([[0, 1], [3, 3]])
    model(words).square().sum().backward()
    optimizer.step()  # gathers momentum of weights that are pruned then
    before = model[0].weight.detach().clone()
    with lth.hold(model, mask, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(words).square().sum().backward()
            optimizer.step()
            assert not model[0].weight[~mask["0.weight"]].any()
    assert (model[0].weight != before)[
        mask["0.weight"] & (torch.arange(5) != 2)[:, None] & (torch.arange(5) != 4)[:, None]
    ].all()
