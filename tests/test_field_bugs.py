"""The bugs that other implementations of the hypothesis have (design, section 9), each with a test that finds it here.

Those of counts, ties, nesting and signs are in test_pruning.py; those of error bars and keys in test_plots.py and
test_records.py; those of resuming in test_resume.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import lth
from lth import config, data, models
from lth.execution.job import carry_out
from lth.execution.resources import choose
from lth.execution.setup import set_up
from lth.models import init
from lth.plan import evaluations, plan
from lth.pruning import masks
from lth.training.batches import batches
from lth.training.loop import train
from lth.training.torch_engine import TorchEngine, prepare
from stored_runs import summary, ticket, trained


def finished(tables: dict[str, Any], folder: Path, **options: Any) -> Path:
    lth.run(tables, out=folder, engine="torch", workers=1, **options)
    return folder


def outcome(run: Path, level: int, branch: str = "") -> dict[str, Any]:
    """The summary of a training without its time, and without digests, which differ even for unused settings."""
    ignored = ("seconds", "seal", "files", "training", "made_from")
    return {key: value for key, value in summary(run, level, branch).items() if key not in ignored}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "momentum", "lr": 0.05, "weight_decay": 0.01, "drops": [10, 30], "warmup": 5},
    ],
    ids=["adam", "momentum-with-drops"],
)
def test_every_level_has_a_fresh_optimizer_and_the_first_learning_rate(
    tiny: dict[str, Any], tmp_path: Path, recipe: dict[str, Any]
) -> None:
    """What level 2 learns inside a run is what a training by itself learns from level 2's ticket, to the bit."""
    tiny["recipe"] |= recipe
    run = finished(tiny, tmp_path / "run")
    experiment = config.resolve(tiny)
    loaded = data.load(tiny["data"]["name"])
    prepared = prepare(data.split(loaded, 90, experiment.seed), "cpu")
    model = models.build(experiment.model, tuple(loaded.train_x.shape[1:]), loaded.classes)
    found = ticket(run, 2)
    key = (experiment.seed, 1, "trial-1/level-02")
    torch.set_num_threads(1)  # as in the run: sums may round differently with more
    alone = TorchEngine(model, found.start, found.mask, experiment.recipe, prepared, key, "cpu")
    alone.advance(experiment.recipe.iterations)
    assert same(alone.weights(), trained(run, 2))


def test_every_level_starts_from_the_first_weights(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A saved start that aliases the live weights works for the first reset only; biases must come back too."""
    run = finished(tiny | {"levels": 3}, tmp_path / "run")
    first = safetensors.torch.load_file(run / "trial-1/start.safetensors")
    for level in range(4):
        found = ticket(run, level)
        assert same(found.start, masks.apply(found.mask, first))
        assert not torch.equal(trained(run, level)["fc1.bias"], found.start["fc1.bias"])
        assert not found.start["fc1.bias"].any()


def test_batch_norm_is_neither_counted_nor_pruned_and_its_statistics_are_reset() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    model[1].running_mean.fill_(7.0)
    state = init.draw(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), torch.Generator())
    assert models.groups(model) == {"0.weight": "fc", "3.weight": "output"}
    model.load_state_dict(state)
    assert not model[1].running_mean.any() and (model[1].weight == 1).all()


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "momentum"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_pruned_weights_stay_exactly_zero(
    tiny: dict[str, Any], tmp_path: Path, optimizer: str, weight_decay: float
) -> None:
    """Neither momentum nor weight decay revives them, at any update; and surviving negative weights do move."""
    tiny["recipe"] |= {"optimizer": optimizer, "weight_decay": weight_decay}
    experiment = config.resolve(tiny)
    loaded = data.load(tiny["data"]["name"])
    prepared = prepare(data.split(loaded, 90, 1), "cpu")
    model = models.build(experiment.model, (1, 6, 6), 4)
    start = init.draw(model, torch.Generator().manual_seed(3))
    mask = {
        name: torch.rand(start[name].shape, generator=torch.Generator().manual_seed(4)) < 0.5
        for name in models.groups(model)
    }
    begin = masks.apply(mask, start)
    engine = TorchEngine(model, begin, mask, experiment.recipe, prepared, ("key",), "cpu")
    for update in range(1, 21):
        engine.advance(update)
        assert all((engine.weights()[name][~layer] == 0).all() for name, layer in mask.items())
    moved = engine.weights()["fc1.weight"] != begin["fc1.weight"]
    assert moved[mask["fc1.weight"] & (begin["fc1.weight"] < 0)].any()


def test_building_a_network_leaves_the_global_generator_and_the_names_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model = models.build(config.Model(), (1, 28, 28), 10)
    init.draw(model, torch.Generator())
    assert torch.equal(before, torch.random.get_rng_state())
    assert list(model.state_dict()) == [
        f"{layer}.{kind}" for layer in ("fc1", "fc2", "output") for kind in ("weight", "bias")
    ]


def test_the_test_set_decides_nothing(tiny: dict[str, Any], tiny_data: Path, tmp_path: Path) -> None:
    """With other test labels, masks, weights and early stops are the same."""
    run = finished(tiny, tmp_path / "a")
    arrays = dict(np.load(tiny_data))
    arrays["y_test"] = arrays["y_test"][::-1].copy()
    np.savez(tiny_data, **arrays)
    other = finished(tiny, tmp_path / "b")
    for level in range(3):
        assert same(trained(run, level), trained(other, level))
        a, b = outcome(run, level), outcome(other, level)
        assert a["early_stop_iteration"] == b["early_stop_iteration"]
        assert a["test_accuracy_at_early_stop"] != b["test_accuracy_at_early_stop"]


def test_accuracy_counts_every_example_once(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the batches' means is wrong when the last batch is smaller."""
    monkeypatch.setattr("lth.training.torch_engine.EVALUATION_BATCH", 64)  # 310 training examples, so 54 in the last
    experiment = config.resolve(tiny)
    splits = data.split(data.load(tiny["data"]["name"]), 90, 1)
    model = models.build(experiment.model, (1, 6, 6), 4)
    start = init.draw(model, torch.Generator().manual_seed(3))
    engine = TorchEngine(model, start, {}, experiment.recipe, prepare(splits, "cpu"), ("key",), "cpu")
    loss, accuracy = engine.evaluate("train")
    with torch.no_grad():
        outputs = model(data.pixels(splits.train_x))
    assert accuracy == (outputs.argmax(1) == splits.train_y).double().mean().item()
    assert loss == pytest.approx(nn.functional.cross_entropy(outputs, splits.train_y).item(), rel=1e-6)


def test_a_control_changes_nothing_in_the_trunk(tiny: dict[str, Any], tmp_path: Path) -> None:
    """reinit wears the ticket's own mask; it is no pruning loop of its own."""
    plain = finished(tiny, tmp_path / "plain")
    controlled = finished(tiny, tmp_path / "controlled", branches="reinit:2,random-mask")
    for level in range(3):
        assert same(trained(plain, level), trained(controlled, level))
        assert outcome(plain, level) == outcome(controlled, level)
    for level in (1, 2):
        trunk = ticket(controlled, level)
        first, second = ticket(controlled, level, "reinit-1"), ticket(controlled, level, "reinit-2")
        random = ticket(controlled, level, "random-mask-1")
        assert same(first.mask, trunk.mask) and same(second.mask, trunk.mask)
        assert not same(first.start, trunk.start) and not same(first.start, second.start)
        assert masks.alive(random.mask) == masks.alive(trunk.mask) and not same(random.mask, trunk.mask)
        whole = ticket(controlled, 0).start
        assert same(random.start, masks.apply(random.mask, whole))


def test_a_random_mask_can_have_a_start_of_its_own(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["branch"] = [{"name": "random-mask", "start": "fresh"}]
    run = finished(tiny, tmp_path / "run")
    found = ticket(run, 1, "random-mask-1")
    assert not same(found.start, masks.apply(found.mask, ticket(run, 0).start))


def test_continued_training_finds_its_masks_from_trained_weights(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Appendix B: level k of the chain goes on from level k - 1's weights; the ticket rows are its masks, reset."""
    run = finished(tiny | {"strategy": "continued"}, tmp_path / "run")
    chain, trunk = ticket(run, 2, "continued"), ticket(run, 2)
    assert same(chain.mask, trunk.mask)
    assert same(chain.start, masks.apply(chain.mask, trained(run, 1, "continued")))
    assert same(trunk.start, masks.apply(trunk.mask, ticket(run, 0).start))
    smallest_kept = trained(run, 1, "continued")["fc1.weight"].abs()[trunk.mask["fc1.weight"]].min()
    lost = ticket(run, 1).mask["fc1.weight"] & ~trunk.mask["fc1.weight"]
    assert lost.any() and trained(run, 1, "continued")["fc1.weight"].abs()[lost].max() <= smallest_kept


def test_oneshot_prunes_level_0_every_time(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = finished(tiny | {"strategy": "oneshot"}, tmp_path / "run")
    whole = trained(run, 0)["fc1.weight"].abs()
    kept = ticket(run, 2).mask["fc1.weight"]
    assert int(kept.sum()) == 432 - round(432 * 0.36)
    assert whole[kept].min() >= whole[~kept].max()


def test_early_stop_is_the_first_minimum_over_all_evaluations() -> None:
    """Not the last epoch before patience ran out; the accuracies there are those of the weights there."""
    losses = [0.9, 0.5, 0.7, 0.4, 0.6, 0.4, 0.8]

    class Scripted:
        iteration = 0

        def advance(self, until: int) -> None:
            self.iteration = until

        def evaluate(self, split: str) -> tuple[float, float]:
            at = self.iteration if not hasattr(self, "shown") else self.shown
            return losses[evaluated.index(at)], at / 1000

        def weights(self) -> dict[str, torch.Tensor]:
            return {"iteration": torch.tensor(self.iteration)}

        def set_weights(self, weights: dict[str, torch.Tensor]) -> None:
            self.shown = int(weights["iteration"])

        def state(self) -> dict[str, torch.Tensor]:
            return {}

        def restore(self, state: Any, iteration: int) -> None: ...

    recipe = config.Recipe(optimizer="sgd", lr=0.1, iterations=55, eval_every=10)
    evaluated = [iteration for iteration, _ in evaluations(recipe)]
    assert evaluated == [1, 11, 21, 31, 41, 51, 55]
    outcome = train(Scripted(), recipe)
    assert outcome.summary["early_stop_iteration"] == 31
    assert outcome.summary["val_loss_at_early_stop"] == 0.4
    assert outcome.summary["test_accuracy_at_early_stop"] == 0.031
    assert outcome.summary["final_test_accuracy"] == 0.055


def test_every_epoch_of_every_training_has_its_own_order() -> None:
    order = lambda key, first, until: torch.cat(batches(key, 100, 30, first, until))
    epochs = [order(("a",), 4 * epoch, 4 * epoch + 4) for epoch in range(3)]
    assert all(torch.equal(epoch.sort().values, torch.arange(100)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(order(("b",), 0, 4), epochs[0])
    assert torch.equal(order(("a",), 3, 9), torch.cat(epochs)[90:230])
    assert [len(batch) for batch in batches(("a",), 100, 30, 0, 5)] == [30, 30, 30, 10, 30]


CHANGED: dict[str, Any] = {
    "seed": 2,
    "trials": 2,
    "levels": 1,
    "strategy": "oneshot",
    "data.validation": 80,
    "model.layers": [12, 9],
    "model.dropout": 0.5,
    "model.init_sigma": 0.1,
    "recipe.optimizer": "sgd",
    "recipe.lr": 0.02,
    "recipe.weight_decay": 0.1,
    "recipe.clip": 0.01,
    "recipe.iterations": 41,
    "recipe.batch": 31,
    "recipe.warmup": 10,
    "recipe.schedule": "cosine",
    "recipe.drops": [20],
    "recipe.eval_every": 20,
    "recipe.test_every": 20,
    "recipe.report_at": [15],
    "recipe.train_accuracy": False,
    "recipe.augment": True,
    "recipe.precision": "bfloat16",
    "prune.groups": ["fc"],
    "prune.rate": 0.5,
    "prune.output_factor": 1.0,
    "prune.rates": [0.3, 0.3],
    "prune.densities": [0.5, 0.4],
    "prune.scope": "global",
    "prune.structure": "1:2",
    "store.keep": "tickets",
}
ELSEWHERE = {
    "name": "names the folder: test_cli.py",
    "about": "a caption",
    "scale": "a record; setting it is refused: test_config.py",
    "data.name": "another dataset: test_data.py",
    "data.mean": "with data.std: test_engines.py",
    "data.std": "with data.mean: test_engines.py",
    "data.size": "of folders of images: test_data_folders.py",
    "data.task": "of .npz files: test_regression.py",
    "data.classes": "a record: test_classes.py",
    "model.name": "another network: test_presets.py",
    "prune.conv_rate": "of networks with convolutions: test_models.py",
    "recipe.momentum": "below, with its optimizer",
    "recipe.compile": "the same numbers in another way: test_precision.py",
    "prune.score": "of a file: test_extending.py",
    "files": "a record: test_userfile.py",
    "branch": "the controls above",
    "model.sha256": "a record: test_own_model.py",
    "model.pretrained": "of custom models: test_draws.py",
    "model.count": "of custom models: test_counting.py",
    "model.leave_out": "of custom models: test_counting.py",
    "ticket": "a ticket file: test_ticket.py",
    "ticket_sha256": "a record: test_ticket.py",
}


def everything(run: Path) -> list[Any]:
    curves = [path.read_text() for path in sorted(run.rglob("curve.csv"))]
    weights = [path.read_bytes() for path in sorted(run.rglob("trained.safetensors"))]
    summaries = [outcome(run, 0), outcome(run, 1)]
    return [curves, weights, summaries]


@pytest.mark.parametrize("key", CHANGED)
def test_every_setting_does_something(key: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    plain = everything(finished(tiny, tmp_path / "plain"))
    lth.run(tiny, {key: CHANGED[key]}, out=tmp_path / "changed", engine="torch", workers=1)
    assert everything(tmp_path / "changed") != plain


def test_momentum_does_something(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"] |= {"optimizer": "momentum", "momentum": 0.5}
    plain = everything(finished(tiny, tmp_path / "plain"))
    tiny["recipe"]["momentum"] = 0.9
    assert everything(finished(tiny, tmp_path / "changed")) != plain


def test_the_list_of_settings_is_whole() -> None:
    assert set(config.keys()) == {*CHANGED, *ELSEWHERE}


def test_a_diverged_training_ends_its_trial_and_no_other(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny |= {"trials": 2, "recipe": tiny["recipe"] | {"optimizer": "sgd", "lr": 1e30}}
    run = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, branches="reinit")
    assert list(run.summary["status"]) == ["diverged", "diverged"]
    again = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, branches="reinit")
    assert list(again.summary["level"]) == [0, 0]


def test_a_layer_without_weights_is_named_and_the_run_goes_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["model"]["layers"] = [12, 1]
    tiny["prune"] = {"densities": [0.3, 0.01], "output_factor": 1.0}
    run = lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1)
    assert list(run.summary["status"])[2] == "collapsed"
    assert "output.weight" in outcome(tmp_path / "run", 2)["collapsed_layers"]


def test_what_is_needed_comes_first_and_low_levels_before_deep_ones() -> None:
    trainings = plan(config.resolve("lenet", trials=2, levels=3, branches="reinit:2"))
    seen: set[str] = set()
    for training in trainings:
        assert seen.issuperset(training.needs)
        seen.add(training.id)
    assert len(trainings) == 2 * (4 + 3 * 2)
    assert [t.level for t in trainings] == sorted(t.level for t in trainings)


def test_a_training_is_the_same_by_itself(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Nothing carries over from whatever the process did before."""
    run = finished(tiny, tmp_path / "run")
    again = finished(tiny | {"levels": 1}, tmp_path / "again")
    experiment, loaded = config.resolve(tiny), data.load(tiny["data"]["name"])
    means, _ = choose(experiment, (1, 6, 6), 4, "torch", "cpu")
    bench = set_up(experiment, means, again, loaded)
    torch.manual_seed(99)
    torch.rand(17)
    carry_out(plan(experiment)[2], bench)
    assert (again / "trial-1/level-02/trained.safetensors").read_bytes() == (
        run / "trial-1/level-02/trained.safetensors"
    ).read_bytes()
